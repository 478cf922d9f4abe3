"""Rebuilds: a new generation of a projection's documents, built beside the live one, and swapped in when it is right.

Nothing that reads or moves the live generation notices. The log is folded in slices, the partitions of the new
generation, each by a process with a checkpoint of its own, so a rebuild that was killed goes on where it was.
Then whoever rebuilds keeps the generation level (`Tail`) while it is compared with the log, and swaps it in at a moment
when it has come at least as far as the live one: so no reader is ever taken back.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from cqrskit.checkpoints import Checkpoints, Generation, GenerationState, Lease
from cqrskit.errors import ConfigurationError, IndexMissing, ProjectionStopped, ServerUnavailable
from cqrskit.event_store import EventStore
from cqrskit.events import EventRegistry
from cqrskit.fingerprint import Fingerprint, fingerprint_of
from cqrskit.folding import Folded, Folding
from cqrskit.garbage import collect_garbage_rarely
from cqrskit.generations import (
    check_index,
    coming_generation,
    live_generation,
    make_live,
    previous_generation,
)
from cqrskit.projection import Projection
from cqrskit.projector import Projector
from cqrskit.read_store import IndexSpec, ReadStore
from cqrskit.settings import Settings
from cqrskit.tasks import end_tasks
from cqrskit.worker import BEATS_PER_LEASE, worker_name

__all__ = ["Parts", "Rebuild", "RebuildPlan", "Tail", "build_slice", "plan_of_rebuild"]

CHECK_INTERVAL_SECONDS = 0.05
EVENTS_TRIED = 20_000
SWAP_TIMEOUT_SECONDS = 60.0
GARBAGE_THRESHOLD_OBJECTS = 200_000


class Parts(Protocol):
    """What a rebuild needs of an application at work; `cqrskit.Runtime` is one."""

    @property
    def event_store(self) -> EventStore:
        """The log."""

    @property
    def read_store(self) -> ReadStore:
        """Where documents are."""

    @property
    def checkpoints(self) -> Checkpoints:
        """Where generations are."""

    @property
    def settings(self) -> Settings:
        """How this process runs."""

    @property
    def registry(self) -> EventRegistry:
        """What decodes events."""

    def projector(self, projection: Projection, lease: Lease, *, bulk: bool = False) -> Projector:
        """A projector for a partition that is leased."""


class RebuildPlan(msgspec.Struct, frozen=True):
    """What a rebuild would do. Of what was never measured nothing is said: None.

    `events` is the length of the log, `documents` and `bytes` those of the live generation. `seconds` rests on how fast
    a generation was built before; where none was, on `tried` events that were folded now and written nowhere, so that
    it is the least that is to be expected.
    """

    projection: str
    events: int
    slices: int
    documents: int | None
    bytes: int | None
    seconds: float | None
    tried: int
    continues: int | None


async def plan_of_rebuild(parts: Parts, projection: type[Projection], slices: int) -> RebuildPlan:
    """What a rebuild of this projection would do."""
    own = await _generations(parts, projection)
    live, coming = live_generation(own), coming_generation(own)
    head = await parts.event_store.head()
    rates = [each.events_per_second for each in own if each.events_per_second]
    tried, rate = (0, rates[-1]) if rates else await _try_folding(parts, projection)
    documents, size_bytes = (None, None) if live is None else await _size_of(parts, projection.index(live.number))
    return RebuildPlan(
        projection=projection.name,
        events=head,
        slices=slices if coming is None else len(coming.partitions),
        documents=documents,
        bytes=size_bytes,
        seconds=head / rate if rate else None,
        tried=tried,
        continues=None if coming is None else coming.number,
    )


async def _size_of(parts: Parts, index: IndexSpec) -> tuple[int | None, int | None]:
    """How many documents an index holds, and its bytes; an index that is gone is what a rebuild is there for."""
    try:
        return await parts.read_store.count(index), await parts.read_store.size_bytes(index)
    except IndexMissing:
        return None, None


async def _try_folding(parts: Parts, projection: type[Projection]) -> tuple[int, float | None]:
    """How many events at the log's end were folded, into documents that are thrown away, and how many in a second."""
    folding = Folding(projection(), parts.registry)
    after = max(await parts.event_store.head() - EVENTS_TRIED, 0)
    begun_at = time.monotonic()
    feed = await parts.event_store.read(after, EVENTS_TRIED, folding.types)
    for items in folding.group(feed.events).groups.values():
        folding.fold(Folded(0, None), items)
    count = feed.until - after
    return count, count / max(time.monotonic() - begun_at, 0.001) if count else None


class Rebuild:
    """One rebuild of one projection: `begin`, build the slices, `finish_building`, then `Tail` and `swap`."""

    def __init__(self, parts: Parts, projection: type[Projection]) -> None:
        """`parts` and `projection` are of the code that the new documents are for."""
        self.projection = projection
        self._parts = parts
        self._code: Fingerprint = fingerprint_of(projection)
        self._begun_at = time.monotonic()
        self._begun_from = 0

    async def begin(self, slices: int, *, restart: bool = False) -> Generation:
        """The generation to build: the one that an interrupted rebuild has left, or a new one.

        `restart` throws away what is left of another. Raises ConfigurationError if that was begun by other code, or is
        being worked on.
        """
        coming = coming_generation(await _generations(self._parts, self.projection))
        if coming is not None and (restart or not coming.fits(self._code)):
            if not restart:
                raise ConfigurationError(
                    f"generation {coming.number} of projection {self.projection.name!r} is being built by other code: "
                    "go on with that, or throw it away and begin anew with --restart"
                )
            await self._throw_away(coming)
            coming = None
        if coming is None:
            await self._parts.checkpoints.create_generation(
                self.projection.name, GenerationState.BUILDING, self._code, slices
            )
        generation = await self._prepare()
        self._begun_at = time.monotonic()
        self._begun_from = sum(each.position for each in generation.partitions)
        return generation

    async def generation(self) -> Generation:
        """The generation that is being built, as it is now."""
        coming = coming_generation(await _generations(self._parts, self.projection))
        if coming is None:
            raise ProjectionStopped(
                f"somebody has removed the generation of {self.projection.name!r} that was being built"
            )
        return coming

    async def finish_building(self) -> Generation:
        """All slices are level: divide the generation as workers will have it, and let it be searched."""
        generation = await self.generation()
        if generation.state is GenerationState.BUILDING:
            done = sum(each.position for each in generation.partitions) - self._begun_from
            seconds = max(time.monotonic() - self._begun_at, 0.001)
            await self._parts.read_store.end_bulk_load(self.projection.index(generation.number))
            await self._parts.checkpoints.set_partitions(
                self.projection.name, generation.number, self.projection.partitions
            )
            rate = done / len(generation.partitions) / seconds
            await self._parts.checkpoints.set_ready(self.projection.name, generation.number, rate)
        return await self.generation()

    async def swap(self, generation: Generation, *, rolled_back: bool = False) -> None:
        """Make the generation live as soon as it is as far as the live one; somebody must be moving it.

        Raises ProjectionStopped if that does not come about within a minute, or if somebody has removed it.
        """
        deadline = time.monotonic() + SWAP_TIMEOUT_SECONDS
        name = self.projection.name
        while not await self._parts.checkpoints.swap(name, generation.number, rolled_back=rolled_back):
            if time.monotonic() > deadline:
                raise ProjectionStopped(
                    f"generation {generation.number} of projection {name!r} does not catch up with the live one within "
                    f"{SWAP_TIMEOUT_SECONDS:g} s, so it was not swapped in; run `cqrskit rebuild {name}` again to go on"
                )
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        await make_live(self._parts.read_store, self._parts.checkpoints, self.projection)

    async def previous(self) -> Generation:
        """The generation to roll back to, made ready to be moved by this code. ConfigurationError if there is none."""
        own = await _generations(self._parts, self.projection)
        generation = previous_generation(own)
        name = self.projection.name
        if generation is None:
            raise ConfigurationError(f"projection {name!r} has no earlier generation to roll back to")
        if generation.code.shape != self._code.shape:
            raise ConfigurationError(
                f"generation {generation.number} of projection {name!r} has other fields than this code: roll back "
                "with the code that made it"
            )
        if not generation.fits(self._code):
            await self._parts.checkpoints.set_mixed(name, generation.number)
        identity = await self._parts.read_store.prepare(self.projection.index(generation.number))
        await self._parts.checkpoints.set_index(name, generation.number, identity)
        return generation

    async def _prepare(self) -> Generation:
        generation = await self.generation()
        index = self.projection.index(generation.number)
        if not generation.index_identity:
            await self._parts.read_store.drop(index)  # one of this name has documents that are not this generation's
        identity = await self._parts.read_store.prepare(index)
        await self._parts.checkpoints.set_index(self.projection.name, generation.number, identity)
        if generation.state is GenerationState.BUILDING:
            await self._parts.read_store.begin_bulk_load(index)
        return await self.generation()

    async def _throw_away(self, generation: Generation) -> None:
        if not await self._parts.checkpoints.delete_generation(self.projection.name, generation.number):
            raise ConfigurationError(
                f"generation {generation.number} of projection {self.projection.name!r} is being built by another "
                "process: stop that first"
            )
        await self._parts.read_store.drop(self.projection.index(generation.number))


async def _generations(parts: Parts, projection: type[Projection]) -> Sequence[Generation]:
    return [each for each in await parts.checkpoints.generations() if each.projection == projection.name]


# --- moving partitions that no worker moves


async def build_slice(parts: Parts, projection: type[Projection], generation: int, partition: int) -> None:
    """Fold one slice from its checkpoint up to where the log ends at the call, or further.

    Raises ProjectionStopped if somebody else does, or if its index is another than the one that was begun.
    """
    collect_garbage_rarely(GARBAGE_THRESHOLD_OBJECTS)
    lease = await _claimed(parts, projection, generation, partition)
    if lease is None:
        raise ProjectionStopped(
            f"another process builds partition {partition} of generation {generation} of projection {projection.name!r}"
        )
    projector = parts.projector(projection(), lease, bulk=True)
    async with _renewed(parts, [lease]):
        try:
            await check_index(parts.read_store, projection, lease)
            await projector.open()
            goal = await parts.event_store.head()
            while not await projector.step() and projector.position < goal:
                continue
        finally:
            await projector.stop()


async def _claimed(parts: Parts, projection: type[Projection], generation: int, partition: int) -> Lease | None:
    """A lease; one that was left by a process that was killed is waited for."""
    seconds = parts.settings.lease_seconds
    deadline = time.monotonic() + 2 * seconds
    name = worker_name()
    while True:
        lease = await parts.checkpoints.claim(name, projection.name, generation, partition, seconds=seconds)
        if lease is not None or time.monotonic() > deadline:
            return lease
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)


@asynccontextmanager
async def _renewed(parts: Parts, leases: Sequence[Lease]) -> AsyncIterator[None]:
    """Keep leases for as long as the context, then give them back."""
    seconds = parts.settings.lease_seconds

    async def renew() -> None:
        while True:
            await asyncio.sleep(seconds / BEATS_PER_LEASE)
            try:
                await parts.checkpoints.renew(leases, seconds=seconds)
            except ServerUnavailable:
                continue  # the projector says so itself

    task = asyncio.create_task(renew(), name="cqrskit-renew")
    try:
        yield
    finally:
        await end_tasks([task])
        await parts.checkpoints.release(leases)


class Tail:
    """Keeps a generation that no worker moves level with the log, for as long as its context.

    Partitions that somebody else holds are left to them.
    """

    def __init__(self, parts: Parts, projection: type[Projection], generation: Generation) -> None:
        """`generation` has the number of partitions that it keeps."""
        self._parts = parts
        self._projection = projection
        self._generation = generation
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Tail"]:
        """The context."""
        number = self._generation.number
        found = [
            await _claimed(self._parts, self._projection, number, each.number) for each in self._generation.partitions
        ]
        leases = [lease for lease in found if lease is not None]
        projectors = [self._parts.projector(self._projection(), lease) for lease in leases]
        async with _renewed(self._parts, leases):
            try:
                for projector in projectors:
                    await check_index(self._parts.read_store, self._projection, projector.lease)
                    await projector.open()
                self._tasks = [asyncio.create_task(each.run(), name="cqrskit-tail") for each in projectors]
                yield self
            finally:
                await end_tasks(self._tasks)

    async def level(self, show: Callable[[int, int], None] | None = None) -> int:
        """Wait until searches see all that is in the log now, and return that position.

        `show` is told how far it is. Raises what a projector failed with.
        """
        goal = await self._parts.event_store.head()
        while True:
            self.check()
            own = await _generations(self._parts, self._projection)
            visible = next(each.visible_position for each in own if each.number == self._generation.number)
            if show is not None:
                show(min(visible, goal), goal)
            if visible >= goal:
                return goal
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)

    def check(self) -> None:
        """Raise what one of the projectors has failed with."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error
