"""Columns of values as Postgres arrays in binary, as one parameter each: a batch is a handful of them.

Made here since converting values one by one in the driver costs most of a large insert; the format is described by
PostgreSQL's sources (array_send).
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct, pack
from typing import ClassVar
from uuid import UUID

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = [
    "BigintColumn",
    "ByteaColumn",
    "Column",
    "IntegerColumn",
    "TextColumn",
    "TimestamptzColumn",
    "UuidColumn",
]

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_header = Struct("!iiiii").pack
_length = Struct("!i").pack
_LENGTHS = [_length(number) for number in range(4_096)]
_NULL = _length(-1)


class Column:
    """One array parameter; `data` is its binary form. Its class is its type."""

    element_oid: ClassVar[int]
    array_oid: ClassVar[int]
    __slots__ = ("data",)

    def __init__(self, count: int, elements: bytes, *, has_nulls: bool = False) -> None:
        self.data = _header(1, int(has_nulls), self.element_oid, count, 1) + elements


class UuidColumn(Column):
    """uuid[]"""

    element_oid, array_oid = 2950, 2951
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[UUID]) -> "UuidColumn":
        """Of these ids."""
        elements = _LENGTHS[16].join([b"", *[value.bytes for value in values]])
        return cls(len(values), elements)


class IntegerColumn(Column):
    """integer[]"""

    element_oid, array_oid = 23, 1007
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[int]) -> "IntegerColumn":
        """Of these numbers below 2^31."""
        numbers = [4] * (2 * len(values))
        numbers[1::2] = values
        return cls(len(values), pack(f"!{len(numbers)}i", *numbers))


class BigintColumn(Column):
    """bigint[], with nulls."""

    element_oid, array_oid = 20, 1016
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[int | None]) -> "BigintColumn":
        """Of these numbers below 2^63."""
        elements = [_NULL if value is None else pack("!iq", 8, value) for value in values]
        return cls(len(values), b"".join(elements), has_nulls=None in values)


class TimestamptzColumn(Column):
    """timestamptz[]"""

    element_oid, array_oid = 1184, 1185
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[datetime]) -> "TimestamptzColumn":
        """Of these aware moments; a batch has few different ones."""
        encoded = {value: pack("!iq", 8, (value - POSTGRES_EPOCH) // MICROSECOND) for value in set(values)}
        return cls(len(values), b"".join([encoded[value] for value in values]))


class ByteaColumn(Column):
    """bytea[]"""

    element_oid, array_oid = 17, 1001
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[bytes]) -> "ByteaColumn":
        """Of these bytes."""
        return cls(len(values), _with_lengths(values))


class TextColumn(Column):
    """text[]"""

    element_oid, array_oid = 25, 1009
    __slots__ = ()

    @classmethod
    def of(cls, values: Sequence[str]) -> "TextColumn":
        """Of these texts."""
        return cls(len(values), _with_lengths([value.encode() for value in values]))


def _with_lengths(values: Iterable[bytes]) -> bytes:
    parts = []
    for value in values:
        size = len(value)
        parts.append(_LENGTHS[size] if size < 4_096 else _length(size))
        parts.append(value)
    return b"".join(parts)


def _register(column_class: type[Column]) -> None:
    """Teach the driver to send a column class; the classes are ours alone, so nobody else is affected."""

    class ColumnDumper(Dumper):
        format = Format.BINARY
        oid = column_class.array_oid

        def dump(self, obj: Column) -> bytes:
            return obj.data

    psycopg.adapters.register_dumper(column_class, ColumnDumper)


for _column_class in (UuidColumn, IntegerColumn, BigintColumn, TimestamptzColumn, ByteaColumn, TextColumn):
    _register(_column_class)
