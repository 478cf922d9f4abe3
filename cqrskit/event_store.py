"""The event store's port: append under the log's lock, load streams, read the feed.

`cqrskit.postgres.event_store.PostgresEventStore` is the adapter.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

import msgspec

from cqrskit.events import NewEvent, RecordedEvent

__all__ = ["AppendTransaction", "EventStore", "FeedBlock"]


class FeedBlock(msgspec.Struct, frozen=True):
    """Events of the positions `after` + 1 … `until`, all of them looked at; `events` are those of the wanted types.

    `head` is the log's last position when the block was read: the reader is level if `until` equals it.
    """

    events: list[RecordedEvent]
    until: int
    head: int


class AppendTransaction(Protocol):
    """One transaction that holds the log's head row. Leaving its context commits; an exception rolls back."""

    previous_head: int
    """Position of the last event committed before this transaction."""

    async def changed_streams(self, after: int) -> set[UUID] | None:
        """Streams that got events at positions > `after`; None if there are too many to list."""

    async def resize(self, count: int) -> None:
        """Reserve `count` positions in place of the number given at the start."""

    async def append(self, events: Sequence[NewEvent]) -> None:
        """Write the events at the next positions, `previous_head` + 1 … + the reserved count.

        Raises StreamConflict if a stream version is taken, CommandFailed if the database refuses the data.
        """


class EventStore(Protocol):
    """An append-only log with dense positions 1, 2, 3 … in commit order.

    Each method raises ServerUnavailable when the server does not answer.
    """

    def transaction(self, count: int) -> AbstractAsyncContextManager[AppendTransaction]:
        """Take the head row and reserve `count` positions. CommitUnknown if the connection dies in the commit."""

    async def load_streams(self, stream_ids: Sequence[UUID]) -> list[RecordedEvent]:
        """All events of these streams, ordered by stream and version, in one query."""

    async def head(self) -> int:
        """Position of the last committed event; 0 for an empty log."""

    async def read(self, after: int, limit: int, types: Sequence[str] | None = None) -> FeedBlock:
        """The next block of the feed: at most `limit` positions, only events of `types` if given.

        A type without a version (``Account.Credited``) stands for all versions, later ones than this code has too.
        """
