"""The checkpoints' port: which generations a projection has, how far each partition is, and who may move it.

A *generation* is one index full of a projection's documents; a *partition* is a share of its keys with a checkpoint of
its own; a *lease* is the right to move that checkpoint for a few seconds, renewed by whoever works on it. Leases only
keep workers from doing the same work: a worker that goes on without one does no harm, since documents have versions and
a checkpoint is moved by the holder of its newest lease alone.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from cqrskit.fingerprint import Fingerprint
from cqrskit.partition import Partition

__all__ = [
    "Checkpoints",
    "Generation",
    "GenerationState",
    "Lease",
    "ParkedKey",
    "PartitionProgress",
    "SkippedEvent",
    "WorkerSeen",
]


class GenerationState(StrEnum):
    """``building`` → ``ready`` (level, not yet read) → ``live`` (read) → ``retired`` (kept to go back to)."""

    BUILDING = "building"
    READY = "ready"
    LIVE = "live"
    RETIRED = "retired"


class PartitionProgress(msgspec.Struct, frozen=True):
    """One partition: its checkpoint, who holds it, and for how many seconds (None: nobody)."""

    number: int
    position: int
    visible_position: int
    worker: str | None
    leased_seconds: float | None
    failure: str | None


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a projection, with its partitions in order.

    `mixed`: other code than `code` has folded into it since. `rolled_back`: it was live and was given up.
    `paused`: nobody may move the projection. `resumptions`: how often somebody let it go on. `parked_keys` and
    `retries` count its parked keys, and those of them that somebody wants to be tried again.
    """

    projection: str
    number: int
    state: GenerationState
    index_identity: str
    code: Fingerprint
    mixed: bool
    rolled_back: bool
    paused: bool
    resumptions: int
    created_at: datetime
    live_at: datetime | None
    retired_at: datetime | None
    events_per_second: float | None
    parked_keys: int
    retries: int
    partitions: tuple[PartitionProgress, ...]

    @property
    def position(self) -> int:
        """Every event up to here is in written documents."""
        return min((partition.position for partition in self.partitions), default=0)

    @property
    def visible_position(self) -> int:
        """A search sees every event up to here."""
        return min((partition.visible_position for partition in self.partitions), default=0)

    def fits(self, code: Fingerprint) -> bool:
        """Whether all its documents were folded by this code."""
        return self.code == code and not self.mixed


class Lease(msgspec.Struct, frozen=True):
    """The right to move one partition's checkpoint, and where it stood when the lease was given."""

    projection: str
    generation: int
    index_identity: str
    partition: Partition
    worker: str
    epoch: int
    position: int
    visible_position: int


class ParkedKey(msgspec.Struct, frozen=True):
    """A document whose fold failed at `position`; that event and its later ones wait until it is retried.

    `owner` is the text that tells its partition: the key, or the id of the stream that the event is of, where the
    projection is divided by streams. `events_waiting` is about how many those are: a worker that dies before its
    checkpoint may leave some counted twice.
    """

    key: str
    position: int
    error: str
    owner: str
    events_waiting: int = 0
    parked_at: datetime | None = None
    retry_requested: bool = False


class SkippedEvent(msgspec.Struct, frozen=True):
    """An event that somebody gave up for one document."""

    key: str
    position: int
    error: str = ""


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker that was alive a moment ago, and what it moves, as it has named it: the generations of its code."""

    worker: str
    projections: tuple[str, ...]


class Checkpoints(Protocol):
    """Where all this is kept; each method may raise ServerUnavailable."""

    async def generations(self) -> Sequence[Generation]:
        """All generations of all projections, ordered by projection and number."""

    async def create_generation(
        self, projection: str, state: GenerationState, code: Fingerprint, partitions: int
    ) -> int:
        """Begin another generation at position 0 and return its number, which no other one ever had or gets.

        A live one only where no generation is live; one that is being built only where none is coming: else the number
        of the one that is there is returned, and nothing is made.
        """

    async def set_index(self, projection: str, generation: int, index_identity: str) -> None:
        """Say which index the generation's documents are in; positions that speak of another one begin again at 0."""

    async def set_partitions(self, projection: str, generation: int, count: int) -> None:
        """Divide the generation anew, if its number of partitions is another: each begins where the last one stood."""

    async def set_mixed(self, projection: str, generation: int) -> None:
        """Note that other code than the generation's folds into it."""

    async def adopt(self, projection: str, generation: int, code: Fingerprint) -> bool:
        """Note that all its documents are what this code would have folded.

        False, and nothing is noted, if they have other fields than this code's.
        """

    async def set_ready(self, projection: str, generation: int, events_per_second: float) -> None:
        """A generation that was being built is level with the log."""

    async def swap(self, projection: str, generation: int, *, rolled_back: bool = False) -> bool:
        """Make the generation live and retire the live one, unless it is behind it: then False, and nothing changes.

        It is behind if a search, or a request by id, would see less than before. The retired one's leases end in the
        same moment. `rolled_back` is noted of the retired one. Raises ProjectionStopped if the generation is gone, or
        is still being built.
        """

    async def reset(self, projection: str, code: Fingerprint, partitions: int) -> int:
        """Make a generation at position 0 that is live at once, and retire the live one; the new one's number.

        The retired one's leases end in the same moment.
        """

    async def delete_generation(self, projection: str, generation: int) -> bool:
        """Forget a generation that is not live and that no worker holds; False if it is live or held."""

    async def claim(
        self, worker: str, projection: str, generation: int, partition: int, *, seconds: float
    ) -> Lease | None:
        """Take a partition that nobody holds, or whose lease has run out; None if somebody has it."""

    async def renew(self, leases: Sequence[Lease], *, seconds: float) -> list[bool]:
        """Which of these leases are still theirs; those are renewed."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""

    async def beat(self, worker: str, projections: Sequence[str], *, seconds: float) -> Sequence[WorkerSeen]:
        """Say that a worker is alive, and hear which ones were within so many seconds."""

    async def leave(self, worker: str) -> None:
        """Say that a worker has ended."""

    async def save(self, lease: Lease, position: int, visible_position: int) -> bool:
        """Move forward to these positions, never back; False, and nothing is moved, if the lease is an old one."""

    async def fail(self, lease: Lease, failure: str | None) -> None:
        """Note why a partition cannot go on, or that it can."""

    async def park(self, lease: Lease, parked: Sequence[ParkedKey]) -> None:
        """Remember parked keys; one that is parked already keeps its first position. Only the newest lease may."""

    async def parked(self, projection: str, generation: int) -> Sequence[ParkedKey]:
        """The parked keys of a generation, ordered by position."""

    async def count_waiting(self, lease: Lease, waiting: Mapping[str, int]) -> None:
        """Add to the number of events that wait behind each parked key."""

    async def request_retry(self, projection: str, generation: int, keys: Sequence[str] | None) -> int:
        """Ask whoever holds the partitions to try these parked keys again (None: all); how many that are."""

    async def unpark(self, lease: Lease, keys: Sequence[str]) -> None:
        """These keys are level again."""

    async def repark(self, lease: Lease, parked: ParkedKey) -> None:
        """A retry has failed, at this position."""

    async def skip(self, projection: str, generation: int, key: str, position: int) -> bool:
        """Give up an event for one document of the projection, for good, in all generations.

        False, and nothing is given up, if the key is not parked at this position in this generation any more.
        """

    async def skipped(self, projection: str) -> Sequence[SkippedEvent]:
        """The events that were given up."""

    async def pause(self, projection: str, *, paused: bool) -> None:
        """Keep all workers from moving a projection, or let them again, those too that gave it up."""
