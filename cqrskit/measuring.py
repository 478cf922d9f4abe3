"""Measuring what only the servers know, for whoever scrapes the metrics: lag, parked keys, due commands."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from cqrskit.metrics import DueFigures, Metrics, ProjectionFigures, ReactionFigures

__all__ = ["Figures", "Measuring"]

MEASURED_AGAIN_SECONDS = 5.0
MEASURING_TIMEOUT_SECONDS = 1.5


class Figures(msgspec.Struct, frozen=True):
    """All that is measured at once."""

    projections: Sequence[ProjectionFigures]
    reactions: Sequence[ReactionFigures]
    due: DueFigures


class Measuring:
    """Measures at most every few seconds, and one at a time, however often somebody scrapes."""

    def __init__(self, metrics: Metrics, measure: Callable[[], Awaitable[Figures]]) -> None:
        """`measure` asks the servers; what it raises leaves the figures as they were."""
        self._metrics = metrics
        self._measure = measure
        self._running: asyncio.Future[Figures] | None = None
        self._begun_at: float | None = None

    async def measure(self) -> None:
        """Bring the figures up to date, unless they are fresh or Postgres does not answer in time."""
        if self._running is None:
            now = time.monotonic()
            if self._begun_at is not None and now - self._begun_at < MEASURED_AGAIN_SECONDS:
                return
            self._begun_at = now
            self._running = asyncio.ensure_future(self._measure())
            self._running.add_done_callback(self._ended)
        await asyncio.wait({self._running}, timeout=MEASURING_TIMEOUT_SECONDS)

    def _ended(self, task: "asyncio.Future[Figures]") -> None:
        self._running = None
        if not task.cancelled() and task.exception() is None:
            found = task.result()
            self._metrics.measured(found.projections, found.reactions, found.due)
