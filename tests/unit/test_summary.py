"""Summaries, checked against their documents; and when a sum in doubles is exact."""

import base64
import random
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit.cursors import Cursor, pack
from cqrskit.document import shape_of
from cqrskit.elasticsearch.summary_body import is_exact
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.summary import DateHistogram, Histogram, Summary, Values
from cqrskit.summary_plan import plan_of_summary


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Row(msgspec.Struct, frozen=True):
    key: UUID
    colour: Colour
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)


SHAPE = shape_of(Row)
whole = st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**53) - 2, 2**53 + 2) | st.integers(-5, 5)


@given(st.lists(whole, min_size=1, max_size=20), st.randoms())
def test_where_the_bound_holds_doubles_sum_up_exactly_in_any_order(values: list[int], shuffle: random.Random) -> None:
    shuffle.shuffle(values)
    total = squares = 0.0
    for value in values:
        total += float(value)
        squares += float(value) ** 2
    if is_exact(len(values), total, float(min(values)), float(max(values)), squares):
        assert int(total) == sum(values)
        assert (int(float(min(values))), int(float(max(values)))) == (min(values), max(values))


def test_the_bound_lets_ordinary_sums_pass() -> None:
    assert is_exact(1_000_000, 9e15, 0.0, 1e10, 1e26)
    assert is_exact(1_000_000, 0.0, -1e6, 1e6, 1e18)
    assert not is_exact(2, float(2**53), 1.0, float(2**53), 2.0**106)


@pytest.mark.parametrize(
    ("by", "mark", "key"),
    [
        (Values("colour"), "red", Colour.RED),
        (Values("key"), str(UUID(int=1)), UUID(int=1)),
        (Values("flag"), True, True),
        (Values("number"), 2**63 - 1, 2**63 - 1),
        (Histogram("number", 10), -1, -10),
        (Histogram("number", 2**62), -2, -(2**63)),
        (Histogram("ratio", 0.5), 1.5, 1.5),
        (DateHistogram("moment", "day"), "2026-01-05", date(2026, 1, 5)),
        (Values("number"), None, None),
    ],
)
def test_a_key_is_what_the_document_has(by: Any, mark: Any, key: Any) -> None:
    plan = plan_of_summary(Summary(by=by, limit=1), SHAPE)
    groups = plan.groups([(mark, 1, []), (mark, 1, [])])
    assert (groups.items[0].key, type(groups.items[0].key)) == (key, type(key))
    if mark is not None:
        assert plan_of_summary(Summary(by=by, cursor=groups.next), SHAPE).after == mark


@pytest.mark.parametrize(
    ("by", "mark"),
    [
        (Values("colour"), "green"),
        (Values("colour"), None),
        (Values("number"), "1"),
        (Values("number"), 2**63),
        (Values("flag"), 1),
        (Histogram("number", 10), 1.0),
        (Histogram("number", 10), True),
        (Histogram("number", 10), 2**63),
        (Histogram("ratio", 0.5), "1"),
        (DateHistogram("moment", "day"), "20260105"),
        (DateHistogram("moment", "day"), "yesterday"),
        (DateHistogram("moment", "day"), 5),
    ],
)
def test_a_forged_cursor_is_refused(by: Any, mark: Any) -> None:
    fingerprint = plan_of_summary(Summary(by=by), SHAPE).fingerprint
    with pytest.raises(InvalidCursor):
        plan_of_summary(Summary(by=by, cursor=pack(Cursor(fingerprint, (mark,)))), SHAPE)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_nonsense_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        plan_of_summary(Summary(by=Values("number"), cursor=cursor), SHAPE)


def test_a_summary_of_too_much_is_refused() -> None:
    fields = {f"n{number}": 0 for number in range(21)}
    many = msgspec.defstruct("Many", [(name, int) for name in fields], frozen=True)
    with pytest.raises(InvalidQuery, match="21 fields"):
        plan_of_summary(Summary(of=list(fields)), shape_of(many))
    plan_of_summary(Summary(of=list(fields)[:20]), shape_of(many))


def test_what_is_no_grouping_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="Values, Histogram or DateHistogram"):
        plan_of_summary(Summary(by="number"), SHAPE)  # type: ignore[arg-type]
