"""Deleting the receipts of idempotency keys that are older than they are to be kept."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from cqrskit.errors import CqrskitError

__all__ = ["ReceiptPruner"]

log = structlog.get_logger(__name__)

CHUNK_SIZE = 5_000
PAUSE_SECONDS = 0.05
"""Between chunks, so that callers' work goes first."""
INTERVAL_SECONDS = 3_600.0
DAYS_MAX = 36_500


class ReceiptPruner:
    """Deletes old receipts in chunks, at once and then every hour. Several processes may do it side by side."""

    def __init__(self, prune: Callable[[datetime, int], Awaitable[int]], *, kept_days: float) -> None:
        """`prune` deletes at most so many receipts from before a moment, and says how many they were."""
        self._prune = prune
        self._kept = timedelta(days=min(kept_days, DAYS_MAX))

    async def run(self) -> None:
        """Delete what is too old, every hour until cancelled. A failure is logged, and the next hour tries again."""
        while True:
            try:
                await self.prune()
            except CqrskitError as error:
                log.warning("receipts.not_pruned", reason=str(error))
            except Exception:
                log.exception("receipts.failed")
            await asyncio.sleep(INTERVAL_SECONDS)

    async def prune(self) -> int:
        """Delete what is too old now; how many receipts that were."""
        before = datetime.now(UTC) - self._kept
        pruned = 0
        while True:
            count = await self._prune(before, CHUNK_SIZE)
            pruned += count
            if count < CHUNK_SIZE:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        if pruned:
            log.info("receipts.pruned", receipts=pruned, before=before.isoformat())
        return pruned
