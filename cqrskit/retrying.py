"""Retrying parked keys: whoever moves their partitions is asked, or it is done here where nobody does."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import msgspec

from cqrskit.checkpoints import Checkpoints, Generation, Lease, ParkedKey
from cqrskit.errors import ConfigurationError, LeaseLost
from cqrskit.fingerprint import fingerprint_of
from cqrskit.folding import partition_of
from cqrskit.generations import check_index
from cqrskit.projection import Projection
from cqrskit.projector import Projector
from cqrskit.read_store import ReadStore
from cqrskit.settings import Settings
from cqrskit.tasks import end_tasks

__all__ = ["Retried", "Retrying"]

POLL_INTERVAL_SECONDS = 0.05
RENEWALS_PER_LEASE = 3


class Retried(msgspec.Struct, frozen=True):
    """What became of a parked key: it is ``level``, has ``failed`` again at `position`, or is still ``waiting``."""

    key: str
    result: Literal["level", "failed", "waiting"]
    position: int | None = None
    error: str | None = None
    events_waiting: int = 0


class Retrying:
    """Retries parked keys of one generation of a projection."""

    def __init__(
        self,
        projection: type[Projection],
        generation: int,
        *,
        worker: str,
        read_store: ReadStore,
        checkpoints: Checkpoints,
        settings: Settings,
        make_projector: Callable[[Projection, Lease], Projector],
    ) -> None:
        """`worker` is the name under which leases are taken where nobody has one."""
        self._projection = projection
        self._number = generation
        self._worker = worker
        self._read_store = read_store
        self._checkpoints = checkpoints
        self._settings = settings
        self._make_projector = make_projector

    async def retry(self, keys: Sequence[str], *, timeout_seconds: float) -> list[Retried]:
        """Try these keys again, and say what became of each within the time; those that wait are tried all the same.

        Keys that are not parked are level. Raises ServerUnavailable, ConfigurationError if nobody holds a partition and
        its documents have other fields than this code's, or what a projector raises.
        """
        deadline = time.monotonic() + timeout_seconds
        await self._checkpoints.request_retry(self._projection.name, self._number, keys)
        while True:
            parked = await self._parked()
            waiting = {key for key in keys if key in parked and parked[key].retry_requested}
            if not waiting or time.monotonic() >= deadline:
                return [_outcome(key, parked.get(key)) for key in keys]
            await self._retry_here({parked[key].owner for key in waiting}, deadline)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    async def _parked(self) -> dict[str, ParkedKey]:
        return {key.key: key for key in await self._checkpoints.parked(self._projection.name, self._number)}

    async def _retry_here(self, owners: Collection[str], deadline: float) -> None:
        """Do the work of those of these partitions that nobody holds."""
        generation = await self._generation()
        if generation is None or generation.paused:
            return
        count = len(generation.partitions)
        numbers = {partition_of(owner, count) for owner in owners}
        for partition in generation.partitions:
            if partition.number not in numbers or (partition.leased_seconds or 0) > 0:
                continue
            seconds = self._settings.lease_seconds
            lease = await self._checkpoints.claim(
                self._worker, self._projection.name, self._number, partition.number, seconds=seconds
            )
            if lease is not None:
                await self._retry_with(generation, lease, deadline)

    async def _generation(self) -> Generation | None:
        found = await self._checkpoints.generations()
        return next((each for each in found if (each.projection, each.number) == self._place), None)

    @property
    def _place(self) -> tuple[str, int]:
        return self._projection.name, self._number

    async def _retry_with(self, generation: Generation, lease: Lease, deadline: float) -> None:
        """Hold the lease while the retry runs; what is left undone at the deadline is done by whoever comes next."""
        try:
            await self._check_code(generation)
            await check_index(self._read_store, self._projection, lease)
        except BaseException:
            await self._checkpoints.release([lease])
            raise
        projector = self._make_projector(self._projection(), lease)
        renewing = asyncio.create_task(self._renew(lease))
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0)):
                await projector.open()
                await projector.retry_parked()
        except (TimeoutError, LeaseLost):
            pass
        finally:
            await end_tasks([renewing])
            await projector.stop()
            await self._checkpoints.release([lease])

    async def _check_code(self, generation: Generation) -> None:
        """Refuse documents with other fields; note that other code than their own folds them from now on."""
        code = fingerprint_of(self._projection)
        if generation.code.shape != code.shape:
            raise ConfigurationError(
                f"no worker moves generation {self._number} of projection {self._projection.name!r}, and its documents "
                "have other fields than this code: retry it with the code that made them"
            )
        if not generation.fits(code):
            await self._checkpoints.set_mixed(self._projection.name, self._number)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / RENEWALS_PER_LEASE)
            await self._checkpoints.renew([lease], seconds=self._settings.lease_seconds)


def _outcome(key: str, parked: ParkedKey | None) -> Retried:
    if parked is None:
        return Retried(key, "level")
    result: Literal["failed", "waiting"] = "waiting" if parked.retry_requested else "failed"
    return Retried(key, result, parked.position, parked.error, parked.events_waiting)
