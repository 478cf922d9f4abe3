"""Rows of the events table in PostgreSQL's binary COPY format.

The format is described in PostgreSQL's documentation of COPY; packing a row here costs about a microsecond.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct

from cqrskit.events import NewEvent

__all__ = ["encode_events"]

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_fixed_columns = Struct("!hiqi16sii").pack
_length = Struct("!i").pack
_timestamp_column = Struct("!iq").pack


def encode_events(events: Iterable[NewEvent], first_position: int) -> bytes:
    """The whole COPY body for events at `first_position`, `first_position` + 1 …"""
    parts = [HEADER]
    add = parts.append
    encoded_types: dict[str, bytes] = {}
    timestamps: dict[datetime, bytes] = {}
    for position, event in enumerate(events, first_position):
        type_column = encoded_types.get(event.type)
        if type_column is None:
            encoded = event.type.encode()
            type_column = encoded_types[event.type] = _length(len(encoded)) + encoded
        timestamp_column = timestamps.get(event.recorded_at)
        if timestamp_column is None:
            microseconds = (event.recorded_at - POSTGRES_EPOCH) // MICROSECOND
            timestamp_column = timestamps[event.recorded_at] = _timestamp_column(8, microseconds)
        data, metadata = event.data, event.metadata
        add(_fixed_columns(7, 8, position, 16, event.stream_id.bytes, 4, event.stream_version))
        add(type_column)
        add(_length(len(data)))
        add(data)
        add(_length(len(metadata)))
        add(metadata)
        add(timestamp_column)
    add(TRAILER)
    return b"".join(parts)
