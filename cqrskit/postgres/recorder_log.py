"""The eventsourcing library's stored events in this log: appended under the head row, read by stream or position."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    ApplicationRecorder,
    DataError,
    IntegrityError,
    Notification,
    NotSupportedError,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from psycopg import Connection
from psycopg.rows import TupleRow

from cqrskit.event_store import NewBatch
from cqrskit.events import NewEvent
from cqrskit.postgres.recorder_database import RecorderDatabase
from cqrskit.postgres.recorder_subscription import LogSubscription
from cqrskit.postgres.sql import statement
from cqrskit.postgres.writer import values_of

__all__ = [
    "LogRecorder",
    "ProcessLogRecorder",
    "TrackingTableRecorder",
    "as_stream_id",
    "checked_version",
    "read_stored_events",
]

VERSION_MAX = 2**31 - 1
POSITION_MAX = 2**63 - 1
NO_METADATA = b"{}"


class LogRecorder(ApplicationRecorder):
    """Stored events as events of the log. A notification's id is the event's position: dense, in commit order."""

    def __init__(self, database: RecorderDatabase) -> None:
        self.database = database

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append all or none, and return their positions.

        Raises the library's IntegrityError if a stream has one of the versions already, DataError for a version
        out of range, NotSupportedError for an originator that is not named by a UUID, and OperationalError when
        the database does not answer; its text says so if the outcome is unknown.
        """
        events = _as_new_events(stored_events)

        def append(connection: Connection[TupleRow]) -> int:
            self.before_append(connection, **kwargs)
            return _append(connection, events) if events else 1

        def was_committed(connection: Connection[TupleRow], first: int) -> bool:
            return _stands_at(connection, first, events)

        first_position = self.database.write(append, was_committed if events else None)
        if not events:
            return None
        self.database.grown()
        return list(range(first_position, first_position + len(events)))

    def before_append(self, connection: Connection[TupleRow], **kwargs: Any) -> None:
        """What else belongs into the transaction of an append, before the log is held; override it.

        It gets the keyword arguments of `insert_events`, and may run more than once.
        """

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """A stream's events with versions above `gt` up to `lte`, at most `limit`, the newest first if `desc`."""
        name = "list_stream_backwards" if desc else "list_stream_forwards"
        return read_stored_events(self.database, name, originator_id, gt=gt, lte=lte, limit=limit)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """At most `limit` events from position `start` (or after it) to `stop`, of some `topics` if any are named.

        These are all events of the log, those of other applications and of cqrskit's executor too.
        """
        first = 0 if start is None else start if inclusive_of_start else start + 1
        values: dict[str, object] = {"first": first, "last": POSITION_MAX if stop is None else stop, "limit": limit}
        name = "list_notifications"
        if topics:
            values["types"] = list(topics)
            name = "list_notifications_of_types"
        rows = self.database.read(
            lambda connection: connection.execute(statement(name), values, binary=True).fetchall()
        )
        return [
            Notification(id=position, originator_id=stream_id, originator_version=version, topic=topic, state=state)
            for position, stream_id, version, topic, state in rows
        ]

    def max_notification_id(self) -> int | None:
        """Position of the last committed event, or None if there is none."""
        rows = self.database.read(lambda connection: connection.execute(statement("read_log_head")).fetchall())
        position: int = rows[0][0]
        return position or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> LogSubscription:
        """Follow the log after position `gt`, each event once and in order, until it is stopped."""
        return LogSubscription(self, self.database, gt, topics)


class TrackingTableRecorder(TrackingRecorder):
    """How far a follower (its name in small letters) has come with each application. Subclass it for your views."""

    def __init__(self, database: RecorderDatabase, *, follower: str = "notification") -> None:
        self.database = database
        self.follower = follower

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record it in a transaction of its own. Raises IntegrityError if it, or a later one, was recorded."""
        self.database.write(lambda connection: self.insert_tracking_within(connection, tracking))

    def insert_tracking_within(self, connection: Connection[TupleRow], tracking: Tracking) -> None:
        """Record it in the caller's transaction: that of `database.write`, which holds what your view changes too."""
        values = {
            "follower": self.follower,
            "application_name": tracking.application_name,
            "notification_id": tracking.notification_id,
        }
        if connection.execute(statement("advance_tracking"), values).fetchone() is None:
            raise IntegrityError(
                f"{self.follower!r} has already processed notification {tracking.notification_id} of "
                f"{tracking.application_name!r}, or a later one"
            )

    def max_tracking_id(self, application_name: str) -> int | None:
        """The last notification of an application that was processed, or None."""
        values = {"follower": self.follower, "application_name": application_name}
        row = self.database.read(lambda connection: connection.execute(statement("read_tracking"), values).fetchone())
        return None if row is None else row[0]


class ProcessLogRecorder(TrackingTableRecorder, LogRecorder, ProcessRecorder):
    """Appends events and records what they were made from, together or not at all."""

    def before_append(self, connection: Connection[TupleRow], **kwargs: Any) -> None:
        """Record the keyword argument `tracking`, if there is one."""
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is not None:
            self.insert_tracking_within(connection, tracking)


def as_stream_id(originator_id: UUID | str) -> UUID:
    """The UUID that names a stream. Raises NotSupportedError for a string, also one that looks like a UUID."""
    if isinstance(originator_id, UUID):
        return originator_id
    raise NotSupportedError(
        f"the originator id {originator_id!r} is a {type(originator_id).__name__}, but the log's streams are named by "
        "UUIDs: use aggregates with UUIDs (a name becomes one by uuid.uuid5)"
    )


def read_stored_events(
    database: RecorderDatabase,
    name: str,
    originator_id: UUID | str,
    *,
    gt: int | None,
    lte: int | None,
    limit: int | None,
) -> list[StoredEvent]:
    """Rows of the statement `name` as stored events."""
    values = {
        "stream_id": as_stream_id(originator_id),
        "after": -1 if gt is None else gt,
        "until": VERSION_MAX if lte is None else lte,
        "limit": limit,
    }
    rows = database.read(lambda connection: connection.execute(statement(name), values, binary=True).fetchall())
    return [
        StoredEvent(originator_id=stream_id, originator_version=version, topic=topic, state=state)
        for stream_id, version, topic, state in rows
    ]


def checked_version(event: StoredEvent) -> int:
    """The event's version. Raises DataError if the database has no room for it."""
    if 0 <= event.originator_version <= VERSION_MAX:
        return event.originator_version
    raise DataError(
        f"version {event.originator_version} of originator {event.originator_id} cannot be stored: versions go from 0 "
        f"to {VERSION_MAX}"
    )


def _as_new_events(stored_events: Sequence[StoredEvent]) -> list[NewEvent]:
    now = datetime.now(UTC)
    return [
        NewEvent(as_stream_id(each.originator_id), checked_version(each), each.topic, each.state, NO_METADATA, now)
        for each in stored_events
    ]


def _append(connection: Connection[TupleRow], events: list[NewEvent]) -> int:
    """Append under the head row, by the executor's own statement; the first event's position."""
    values = values_of(NewBatch(events, []))
    row = connection.execute(statement("append_batch"), values, binary=True, prepare=True).fetchone()
    assert row is not None, "no head was expected"
    return int(row[0]) + 1


def _stands_at(connection: Connection[TupleRow], first_position: int, events: list[NewEvent]) -> bool:
    """Whether the log has exactly these events at these positions."""
    connection.execute("BEGIN")
    # An append whose answer was lost may still be committing: it holds the head row until that is decided.
    connection.execute(statement("lock_log_head"))
    values = {"first": first_position, "last": first_position + len(events) - 1}
    rows = connection.execute(statement("list_appended_events"), values).fetchall()
    connection.execute("ROLLBACK")
    return rows == [(each.stream_id, each.stream_version, each.type, each.data, each.recorded_at) for each in events]
