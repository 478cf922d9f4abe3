"""The eventsourcing library's own snapshots: stored events in a table beside the log, with no place in it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import AggregateRecorder, StoredEvent
from psycopg import Connection
from psycopg.rows import TupleRow

from cqrskit.postgres.recorder_database import RecorderDatabase
from cqrskit.postgres.recorder_log import as_stream_id, checked_version, read_stored_events
from cqrskit.postgres.sql import statement

__all__ = ["SnapshotRecorder"]


class SnapshotRecorder(AggregateRecorder):
    """Snapshots by aggregate and version. The executor's snapshots are others, in a table of their own."""

    def __init__(self, database: RecorderDatabase) -> None:
        self.database = database

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int] | None:
        """Save all or none. Raises IntegrityError if one of this version is there."""
        rows = [
            {
                "stream_id": as_stream_id(each.originator_id),
                "version": checked_version(each),
                "topic": each.topic,
                "state": each.state,
            }
            for each in stored_events
        ]

        def save(connection: Connection[TupleRow]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(statement("save_recorder_snapshot"), rows)

        if rows:
            self.database.write(save)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """An aggregate's snapshots of versions above `gt` up to `lte`; at most `limit`, the newest first if `desc`."""
        name = "list_recorder_snapshots_backwards" if desc else "list_recorder_snapshots_forwards"
        return read_stored_events(self.database, name, originator_id, gt=gt, lte=lte, limit=limit)
