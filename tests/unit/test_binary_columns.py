"""Arrays in Postgres' binary form, compared with what the driver makes of the same values."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.pq import Format

from cqrskit.postgres.binary_columns import (
    BigintColumn,
    ByteaColumn,
    Column,
    IntegerColumn,
    TextColumn,
    TimestamptzColumn,
    UuidColumn,
)

moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(tzinfo=UTC))
texts = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=5_000)
KINDS: list[tuple[Callable[[list[Any]], Column], st.SearchStrategy[Any]]] = [
    (UuidColumn.of, st.uuids()),
    (IntegerColumn.of, st.integers(-(2**31), 2**31 - 1)),
    (BigintColumn.of, st.none() | st.integers(-(2**63), 2**63 - 1)),
    (TimestamptzColumn.of, moments),
    (ByteaColumn.of, st.binary(max_size=5_000)),
    (TextColumn.of, texts),
]


@pytest.mark.parametrize(("make", "values"), KINDS)
def test_what_is_sent_reads_back_as_the_same_values(
    make: Callable[[list[Any]], Column], values: st.SearchStrategy[Any]
) -> None:
    @given(st.lists(values, max_size=20))
    def check(expected: list[Any]) -> None:
        column = make(expected)
        transformer = Transformer(psycopg.adapters)
        loader = transformer.get_loader(column.array_oid, Format.BINARY)
        found = loader.load(column.data)
        assert found == expected

    check()
