"""The parked keys of one partition: what its projector knows of them, and what is kept of it."""

from collections.abc import Mapping, Sequence

import structlog

from cqrskit.checkpoints import Checkpoints, Lease, ParkedKey
from cqrskit.errors import ProjectionStopped

__all__ = ["ParkedKeys"]

log = structlog.get_logger(__name__)


class ParkedKeys:
    """`positions` has each key with the first position that its document lacks.

    A key is set aside in memory the moment that it fails, since what comes next is folded before that is kept.
    """

    def __init__(self, checkpoints: Checkpoints, lease: Lease, keys_max: int) -> None:
        """With more than `keys_max` keys the projection stops."""
        self.positions: dict[str, int] = {}
        self._checkpoints = checkpoints
        self._lease = lease
        self._keys_max = keys_max
        self._last_error = ""

    async def load(self) -> list[ParkedKey]:
        """Read again what is kept, which others may have changed."""
        parked = await self._checkpoints.parked(self._lease.projection, self._lease.generation)
        own = [key for key in parked if self._lease.partition.owns(key.owner)]
        self.positions.clear()
        self.positions.update((key.key, key.position) for key in own)
        self._last_error = f"{own[-1].key!r}: {own[-1].error}" if own else ""
        return own

    def set_aside(self, key: str, position: int) -> None:
        """A key has failed; what it lacks begins no later than before."""
        self.positions[key] = min(position, self.positions.get(key, position))

    async def park(self, parked: Sequence[ParkedKey]) -> None:
        """Keep the keys that have failed."""
        if not parked:
            return
        for key in parked:
            self._tell(key)
            self._last_error = f"{key.key!r}: {key.error}"
        await self._checkpoints.park(self._lease, parked)
        for key in parked:
            self.set_aside(key.key, key.position)

    def check_number(self) -> None:
        """Raise ProjectionStopped if there are too many."""
        if len(self.positions) > self._keys_max:
            raise ProjectionStopped(
                f"partition {self._lease.partition.number} of projection {self._lease.projection!r} has "
                f"{len(self.positions)} parked keys, more than CQRSKIT_PARKED_KEYS_MAX allows ({self._keys_max}): its "
                f"code is probably wrong rather than its events; the last one was {self._last_error}"
            )

    async def retried(self, wanted: Mapping[str, ParkedKey], failed: Mapping[str, ParkedKey]) -> None:
        """Keep the outcome of a retry: the wanted keys are level again but for those that failed."""
        level = [key for key in wanted if key not in failed]
        await self._checkpoints.unpark(self._lease, level)
        for key in level:
            self.positions.pop(key, None)
            log.info("projector.key_retried", projection=self._lease.projection, key=key)
        for key, parked in failed.items():
            await self._checkpoints.repark(self._lease, parked)
            self.positions[key] = parked.position
            self._tell(parked)

    def _tell(self, parked: ParkedKey) -> None:
        log.error(
            "projector.key_parked",
            projection=self._lease.projection,
            key=parked.key,
            position=parked.position,
            reason=parked.error,
        )
