"""The limit of every append: binary COPY of rows whose bytes are ready, by a client that does nothing else."""

from collections.abc import Iterable
from datetime import UTC, datetime
from struct import Struct
from typing import Self

import psycopg

from cqrskit.events import NewEvent

__all__ = ["BEGIN", "COLUMNS", "END", "RawCopy", "copy_bytes"]

BEGIN, END = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_before_type = Struct("!hiqi16siii").pack
_length = Struct("!i").pack
_moment = Struct("!iq").pack

COLUMNS = "(position, stream_id, stream_version, type, data, metadata, recorded_at)"
COPY = f"COPY raw_events {COLUMNS} FROM STDIN (FORMAT BINARY)"


def copy_bytes(events: Iterable[NewEvent], first_position: int) -> bytes:
    """The body of one binary COPY; written here a second time, so that the peer shares nothing with what it limits."""
    parts = [BEGIN]
    for position, event in enumerate(events, first_position):
        name = event.type.encode()
        microseconds = round((event.recorded_at - EPOCH).total_seconds() * 1_000_000)
        parts += (
            _before_type(7, 8, position, 16, event.stream_id.bytes, 4, event.stream_version, len(name)),
            name,
            _length(len(event.data)),
            event.data,
            _length(len(event.metadata)),
            event.metadata,
            _moment(8, microseconds),
        )
    parts.append(END)
    return b"".join(parts)


class RawCopy:
    """A table of the same shape as the log's, indices included, and one connection that copies into it."""

    def __init__(self, url: str) -> None:
        """`url` names a migrated database; its events table is the model."""
        self._connection = psycopg.connect(url)
        self._connection.execute("CREATE TABLE raw_events (LIKE events INCLUDING ALL)")
        self._connection.commit()
        self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def prepare(self, batches: Iterable[list[NewEvent]]) -> list[bytes]:
        """The bytes of batches at the next positions."""
        bodies = []
        for batch in batches:
            bodies.append(copy_bytes(batch, self.position + 1))
            self.position += len(batch)
        return bodies

    def write(self, bodies: Iterable[bytes]) -> None:
        """Each in a transaction of its own."""
        for body in bodies:
            with self._connection.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(body)
            self._connection.commit()
