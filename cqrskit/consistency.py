"""Positions that readers wait for: how far each projection is, and answers that say so.

A command's result carries a position. A query that sends it back is answered from documents that contain it,
or refused after a bounded wait; it is never answered from older ones.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from cqrskit.errors import NotYetVisible
from cqrskit.projection import Projection
from cqrskit.query import Query
from cqrskit.read_store import Page, ReadStore, Stored
from cqrskit.settings import Settings

__all__ = ["Answer", "Checkpoint", "Checkpoints", "ParkedKey", "Positions", "Reader"]

T = TypeVar("T")

POLL_INTERVAL_SECONDS = 0.01
FRESH_FOR_SECONDS = 0.1
RETRY_AFTER_SECONDS = 1.0


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a projection is: all events up to `position` are in written documents, a search sees those up to
    `visible_position`. It speaks of one index only; see `ReadStore.prepare`."""

    name: str
    generation: int
    index_identity: str
    position: int
    visible_position: int


class ParkedKey(msgspec.Struct, frozen=True):
    """A document whose fold failed at `position`; its later events are skipped until it is retried."""

    key: str
    position: int
    error: str


class Checkpoints(Protocol):
    """Where projections keep their positions and parked keys; each method may raise ServerUnavailable."""

    async def register(self, name: str, generation: int, index_identity: str) -> Checkpoint:
        """The checkpoint of a projection for this index, made at position 0 if it has none for it."""

    async def save(self, checkpoint: Checkpoint) -> None:
        """Move forward to these positions; never back, whoever calls last, and not for a replaced index."""

    async def all(self) -> Sequence[Checkpoint]:
        """Every projection's checkpoint."""

    async def park(self, name: str, generation: int, parked: ParkedKey) -> None:
        """Remember a parked key; a key parked already keeps its first position."""

    async def parked_keys(self, name: str, generation: int) -> Sequence[ParkedKey]:
        """The parked keys of a projection."""

    async def count_skipped(self, name: str, generation: int, skipped: dict[str, int]) -> None:
        """Add to the number of events that each parked key has missed."""


class Positions:
    """The last known positions of all projections. Those of one index only grow: an old value is a safe lower bound.

    Projectors of this process publish directly; those elsewhere are seen by polling the checkpoints, which
    happens only while somebody waits or asks.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._known: dict[str, Checkpoint] = {}
        self._changed = asyncio.Condition()
        self._polled_at = 0.0
        self._poll_lock = asyncio.Lock()

    def publish(self, checkpoint: Checkpoint) -> None:
        """Take note of a projection's progress."""
        known = self._known.get(checkpoint.name)
        if known is not None and known.index_identity == checkpoint.index_identity:
            checkpoint = msgspec.structs.replace(
                checkpoint,
                position=max(known.position, checkpoint.position),
                visible_position=max(known.visible_position, checkpoint.visible_position),
            )
        self._known[checkpoint.name] = checkpoint

    async def current(self, projection: type[Projection]) -> Checkpoint:
        """A recent checkpoint of a projection, at most 0.1 s old."""
        await self._poll(FRESH_FOR_SECONDS)
        return self._get(projection)

    async def wait(
        self, projection: type[Projection], position: int, *, visible: bool, timeout_seconds: float
    ) -> Checkpoint:
        """Wait until a projection has reached `position` (for searches: visibly); NotYetVisible after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            checkpoint = self._get(projection)
            reached = checkpoint.visible_position if visible else checkpoint.position
            if reached >= position:
                return checkpoint
            if time.monotonic() >= deadline:
                raise NotYetVisible(projection.name, position, reached, RETRY_AFTER_SECONDS)
            await self._poll(POLL_INTERVAL_SECONDS)
            checkpoint = self._get(projection)
            if (checkpoint.visible_position if visible else checkpoint.position) < position:
                await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _get(self, projection: type[Projection]) -> Checkpoint:
        known = self._known.get(projection.name)
        if known is None or known.generation != projection.generation:
            return Checkpoint(projection.name, projection.generation, "", 0, 0)
        return known

    async def _poll(self, fresh_for_seconds: float) -> None:
        """Read all checkpoints, unless somebody did within `fresh_for_seconds`; one reader at a time."""
        async with self._poll_lock:
            if time.monotonic() - self._polled_at < fresh_for_seconds:
                return
            for checkpoint in await self._checkpoints.all():
                known = self._known.get(checkpoint.name)
                if known is None or checkpoint.generation >= known.generation:
                    self.publish(checkpoint)
            self._polled_at = time.monotonic()


class Answer(msgspec.Struct, Generic[T], frozen=True):
    """A read model's answer: it contains every event up to `as_of_position`, and maybe later ones."""

    value: T
    as_of_position: int


class Reader:
    """Answers queries from read models, after waiting for the position that the caller names."""

    def __init__(self, read_store: ReadStore, positions: Positions, settings: Settings) -> None:
        self._read_store = read_store
        self._positions = positions
        self._timeout_seconds = settings.wait_timeout_seconds

    async def get(
        self, projection: type[Projection], document_id: str, *, min_position: int | None = None
    ) -> Answer[Stored | None]:
        """One document by its id, as just written. Raises NotYetVisible or ServerUnavailable."""
        checkpoint = await self._reach(projection, min_position, visible=False)
        stored = await self._read_store.get(projection().index, document_id)
        return Answer(stored, checkpoint.position)

    async def search(
        self, projection: type[Projection], query: Query, *, min_position: int | None = None
    ) -> Answer[Page]:
        """A page of documents. Raises InvalidQuery, InvalidCursor, NotYetVisible or ServerUnavailable."""
        checkpoint = await self._reach(projection, min_position, visible=True)
        page = await self._read_store.search(projection().index, query)
        return Answer(page, checkpoint.visible_position)

    async def _reach(self, projection: type[Projection], min_position: int | None, *, visible: bool) -> Checkpoint:
        if min_position is None:
            return await self._positions.current(projection)
        return await self._positions.wait(
            projection, min_position, visible=visible, timeout_seconds=self._timeout_seconds
        )
