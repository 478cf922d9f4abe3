"""Positions that readers wait for: how far each projection is, and answers that say so.

A command's result carries a position. A query that sends it back is answered from documents that contain it,
or refused after a bounded wait; it is never answered from older ones.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from cqrskit.checkpoints import Checkpoints, Generation, Lease
from cqrskit.document import shape_of
from cqrskit.errors import DocumentParked, IndexMissing, NotYetVisible
from cqrskit.fingerprint import Fingerprint, fingerprint_of
from cqrskit.folding import event_key
from cqrskit.generations import generation_for, index_of
from cqrskit.projection import Projection
from cqrskit.query import Query
from cqrskit.read_store import IndexSpec, Page, ReadStore, Stored
from cqrskit.settings import Settings
from cqrskit.summary import Groups, Summary
from cqrskit.summary_plan import plan_of_summary

__all__ = ["Answer", "Positions", "Reader", "Standing"]

T = TypeVar("T")

POLL_INTERVAL_SECONDS = 0.01
FRESH_FOR_SECONDS = 0.1
RETRY_AFTER_SECONDS = 1.0


class Standing(msgspec.Struct, frozen=True):
    """Where a projection stands for this program: the index that it reads, and how far that is.

    All events up to `position` are in written documents, a search sees those up to `visible_position`. `parked` are the
    keys of documents that lack events below that, each with the first position that it lacks; among them are events of
    which nobody can tell what documents they belong to (`cqrskit.folding.event_key`): any document may lack those.
    """

    index: IndexSpec
    position: int
    visible_position: int
    parked: Mapping[str, int]

    def lacks(self, document_id: str) -> int | None:
        """The first position that the document lacks, or may lack; None if it lacks nothing."""
        if not self.parked:
            return None
        unknown = (position for key, position in self.parked.items() if key == event_key(position))
        known = self.parked.get(document_id)
        return min(unknown if known is None else (known, *unknown), default=None)


class _Here(msgspec.Struct):
    """What the projector of one partition, in this process, has said last."""

    epoch: int
    position: int
    visible_position: int
    parked: Mapping[str, int]
    gone_at: float | None = None


class Positions:
    """The last known positions of all projections. Those of one index only grow: an old value is a safe lower bound.

    Projectors of this process publish directly; those elsewhere are seen by polling the checkpoints, which
    happens only while somebody waits or asks.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._codes: dict[type[Projection], Fingerprint] = {}
        self._generations: Sequence[Generation] = ()
        self._parked: dict[tuple[str, int], dict[str, int]] = {}
        self._here: dict[tuple[str, int, str, int], dict[int, _Here]] = {}
        self._polled_at = float("-inf")
        self._poll_lock = asyncio.Lock()

    def publish(self, lease: Lease, position: int, visible_position: int, parked: Mapping[str, int]) -> None:
        """A partition that is moved here has come so far; `parked` may change later, and is looked at again."""
        partitions = self._here.setdefault(
            (lease.projection, lease.generation, lease.index_identity, lease.partition.count), {}
        )
        partitions[lease.partition.number] = _Here(lease.epoch, position, visible_position, parked)

    def withdraw(self, lease: Lease) -> None:
        """A partition is no longer moved here. What was said of it holds until the checkpoints have been read again."""
        key = (lease.projection, lease.generation, lease.index_identity, lease.partition.count)
        here = self._here.get(key, {}).get(lease.partition.number)
        if here is not None and here.epoch == lease.epoch:
            here.gone_at = time.monotonic()

    async def generations(self, *, fresh_for_seconds: float = FRESH_FOR_SECONDS) -> Sequence[Generation]:
        """All generations, as they were at most so long ago."""
        await self._poll(fresh_for_seconds)
        return self._generations

    async def current(self, projection: type[Projection]) -> Standing:
        """Where a projection stands, at most 0.1 s ago. Raises RebuildRequired."""
        await self._poll(FRESH_FOR_SECONDS)
        return self._standing(projection)

    async def wait(
        self, projection: type[Projection], position: int, *, visible: bool, timeout_seconds: float
    ) -> Standing:
        """Wait until a projection has reached `position` (for searches: visibly); NotYetVisible after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        await self._poll(FRESH_FOR_SECONDS)
        while True:
            standing = self._standing(projection)
            reached = standing.visible_position if visible else standing.position
            if reached >= position:
                return standing
            if time.monotonic() >= deadline:
                raise NotYetVisible(projection.name, position, reached, RETRY_AFTER_SECONDS)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
            await self._poll(POLL_INTERVAL_SECONDS)

    def _standing(self, projection: type[Projection]) -> Standing:
        code = self._codes.get(projection)
        if code is None:
            code = self._codes[projection] = fingerprint_of(projection)
        generation = generation_for(projection, code, self._generations)
        if generation is None:
            return Standing(projection.index(1), 0, 0, {})
        here = self._here.get(
            (projection.name, generation.number, generation.index_identity, len(generation.partitions)), {}
        )
        position, visible_position = generation.position, generation.visible_position
        parked = self._parked.get((projection.name, generation.number), {})
        if here:
            positions = [
                (
                    (each.position, each.visible_position)
                    if (known := here.get(each.number)) is None
                    else (
                        max(known.position, each.position),
                        max(known.visible_position, each.visible_position),
                    )
                )
                for each in generation.partitions
            ]
            position = min(each for each, _ in positions)
            visible_position = min(each for _, each in positions)
            for known in here.values():
                if known.parked:
                    parked = {**parked, **known.parked}
        return Standing(index_of(projection, generation), position, visible_position, parked)

    async def _poll(self, fresh_for_seconds: float) -> None:
        """Read all checkpoints, unless somebody did within `fresh_for_seconds`; one reader at a time."""
        if time.monotonic() - self._polled_at < fresh_for_seconds:
            return
        async with self._poll_lock:
            if time.monotonic() - self._polled_at < fresh_for_seconds:
                return
            begun = time.monotonic()
            generations = await self._checkpoints.generations()
            parked: dict[tuple[str, int], dict[str, int]] = {}
            for each in generations:
                if each.parked_keys:  # read after the positions, so that none of a position's parked keys is missed
                    keys = await self._checkpoints.parked(each.projection, each.number)
                    parked[each.projection, each.number] = {key.key: key.position for key in keys}
            self._generations, self._parked, self._polled_at = generations, parked, begun
            for partitions in self._here.values():
                gone = [number for number, each in partitions.items() if each.gone_at and each.gone_at < begun]
                for number in gone:
                    del partitions[number]


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """A read model's answer: it contains every event up to `as_of_position`, and maybe later ones.

    Unless it is `stale`: then the document (for a search: some document of the projection, found or not) is parked and
    lacks events. The rows that do are marked: ``row.stale``.
    """

    value: T
    as_of_position: int
    stale: bool = False


class Reader:
    """Answers queries from read models, after waiting for the position that the caller names."""

    def __init__(self, read_store: ReadStore, positions: Positions, settings: Settings) -> None:
        self._read_store = read_store
        self._positions = positions
        self._timeout_seconds = settings.wait_timeout_seconds

    async def get(
        self, projection: type[Projection], document_id: str, *, min_position: int | None = None
    ) -> Answer[Stored | None]:
        """One document by its id, as just written.

        Raises NotYetVisible, ServerUnavailable, IndexMissing, and DocumentParked if the document lacks an event that
        the caller asks for.
        """
        standing = await self._reach(projection, min_position, visible=False)
        lacks = standing.lacks(document_id)
        if min_position is not None and lacks is not None and lacks <= min_position:
            raise DocumentParked(projection.name, document_id, lacks)
        stored = await _read(standing.position, self._read_store.get(standing.index, document_id), nothing=None)
        stale = lacks is not None
        return Answer(_marked(stored) if stored is not None and stale else stored, standing.position, stale)

    async def search(
        self, projection: type[Projection], query: Query, *, min_position: int | None = None
    ) -> Answer[Page]:
        """A page of documents. Raises InvalidQuery, InvalidCursor, NotYetVisible, ServerUnavailable, IndexMissing."""
        standing = await self._reach(projection, min_position, visible=True)
        page = await _read(standing.visible_position, self._read_store.search(standing.index, query), nothing=Page([]))
        if standing.parked:
            page = Page([_marked(row) if row.id in standing.parked else row for row in page.items], page.next)
        return Answer(page, standing.visible_position, bool(standing.parked))

    async def summarize(
        self, projection: type[Projection], summary: Summary, *, min_position: int | None = None
    ) -> Answer[Groups]:
        """Counts, sums and histograms of the documents that a search finds. Raises as `search` does."""
        standing = await self._reach(projection, min_position, visible=True)
        nothing = plan_of_summary(summary, shape_of(standing.index.document)).groups([])
        answer = self._read_store.summarize(standing.index, summary)
        groups = await _read(standing.visible_position, answer, nothing=nothing)
        return Answer(groups, standing.visible_position, bool(standing.parked))

    async def index(self, projection: type[Projection]) -> IndexSpec:
        """The index that this program reads at present, for whoever asks the read store (or its client) directly."""
        return (await self._positions.current(projection)).index

    async def _reach(self, projection: type[Projection], min_position: int | None, *, visible: bool) -> Standing:
        if min_position is None:
            return await self._positions.current(projection)
        return await self._positions.wait(
            projection, min_position, visible=visible, timeout_seconds=self._timeout_seconds
        )


async def _read(position: int, answer: Awaitable[T], *, nothing: T) -> T:
    """The store's answer; a missing index is `nothing` as long as nothing was folded, and an error from then on."""
    try:
        return await answer
    except IndexMissing:
        if position > 0:
            raise
        return nothing


def _marked(stored: Stored) -> Stored:
    return msgspec.structs.replace(stored, stale=True)
