"""The event store's port: append batches, load what deciding needs, read the feed.

`cqrskit.postgres.event_store.PostgresEventStore` is the adapter.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from cqrskit.events import NewEvent, RecordedEvent
from cqrskit.partition import Partition
from cqrskit.receipts import NewReceipt, Receipt

__all__ = ["DueChange", "EventStore", "FeedBlock", "Found", "LockedLog", "LogReader", "NewBatch", "Snapshot"]


class FeedBlock(msgspec.Struct, frozen=True):
    """Events of the positions `after` + 1 … `until`, all of them looked at; `events` are those of the wanted types.

    `head` is the log's last position when the block was read: the reader is level if `until` equals it.
    """

    events: list[RecordedEvent]
    until: int
    head: int


class DueChange(msgspec.Struct, frozen=True, gc=False):
    """A command to be run at `due_at`, stored under `key` in place of what was there; None there takes it back.

    `content` is the command as JSON, `command` its class's name, `metadata` that of the decision that asked for it.
    """

    key: str
    due_at: datetime | None
    command: str = ""
    content: bytes = b""
    metadata: bytes = b""


class NewBatch(msgspec.Struct, frozen=True, gc=False):
    """What is appended in one transaction: events in their order, receipts, and at most one change of each due command.

    A batch with due commands has an event or a receipt too, which tells whether it is in the log.
    """

    events: list[NewEvent]
    receipts: list[NewReceipt]
    due: Sequence[DueChange] = ()


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """An aggregate's state after `stream_version` events, the last of them at `position`; see `cqrskit.snapshots`."""

    stream_id: UUID
    stream_version: int
    position: int
    shape: str
    state: bytes


class Found(msgspec.Struct, frozen=True):
    """What a load found: events ordered by stream and version, each stream's from its snapshot on if there is one."""

    events: list[RecordedEvent]
    snapshots: list[Snapshot]
    receipts: list[Receipt]


class LogReader(Protocol):
    """Loads what a batch of commands needs."""

    async def load(self, streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
        """The events of `streams` after the versions given (0: all), and the receipts of `keys`, in one query.

        A stream with a snapshot of one of these `shapes` that is newer than the version given begins there.
        """


class LockedLog(LogReader, Protocol):
    """The log while its head row is held: nobody else can append. Leaving its context commits."""

    previous_head: int
    """Position of the last event committed before."""

    async def append(self, batch: NewBatch) -> None:
        """Write the batch at the positions after `previous_head`. Raises as `EventStore.append`."""


class EventStore(LogReader, Protocol):
    """An append-only log with dense positions 1, 2, 3 … in commit order.

    Each method raises ServerUnavailable when the server does not answer.
    """

    async def append(self, batch: NewBatch, *, expected_head: int | None = None) -> int | None:
        """Append in a transaction of its own; the position of the last event before the batch.

        With `expected_head` only if that is the last position; None, and nothing written, if it is another. Raises
        StreamConflict if a stream version or a key is taken, CommandFailed if the database refuses the data,
        ServerUnavailable if nothing can have been written, CommitUnknown if that is not known.
        """

    def locked(self) -> AbstractAsyncContextManager[LockedLog]:
        """Hold the log's head row, waiting for whoever holds it. CommitUnknown if the connection dies in the commit."""

    async def settle(self, batch: NewBatch) -> int | None:
        """After CommitUnknown: the head before the batch if it is in the log; None if it is not and never will be."""

    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep these; an older one of the same stream is replaced, a newer one stays."""

    async def load_streams(self, stream_ids: Sequence[UUID]) -> list[RecordedEvent]:
        """All events of these streams, ordered by stream and version, in one query."""

    async def head(self) -> int:
        """Position of the last committed event; 0 for an empty log."""

    async def read(
        self, after: int, limit: int, types: Sequence[str] | None = None, partition: Partition | None = None
    ) -> FeedBlock:
        """The next block of the feed: at most `limit` positions, only events of `types` if given.

        A type without a version (``Account.Credited``) stands for all versions, later ones than this code has too.
        With `partition` only events of the streams that it owns (`Partition.owns_stream`).
        """
