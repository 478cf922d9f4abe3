"""Queries, checked against the documents that they ask for, before any server sees them."""

import base64
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit.document import Text, Unindexed, shape_of
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import LIMIT_MAX, All, Condition, Exists, Match, Not, Prefix, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.query_plan import (
    CONDITIONS_MAX,
    NESTING_MAX,
    AllNode,
    AnyNode,
    RangeNode,
    TermsNode,
    WordNode,
    plan_of,
    where_of,
)


class Row(msgspec.Struct, frozen=True):
    key: UUID
    name: Annotated[str, Text(keyword=True)] = ""
    remark: Annotated[str, Text()] = ""
    number: int = 0
    ratio: float = 0.0
    rank: int | None = None
    flag: bool = False
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    due: date = date(2026, 1, 1)
    labels: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    kept: Annotated[Any, Unindexed()] = None


SHAPE = shape_of(Row)


def condition_values(condition: Condition) -> Any:
    node = where_of(condition, SHAPE)
    assert isinstance(node, TermsNode)
    return node.values


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        (Term("key", UUID(int=1)), ("00000000-0000-0000-0000-000000000001",)),
        (Term("number", 2**63 - 1), (2**63 - 1,)),
        (Term("ratio", -0.0), (0.0,)),
        (Term("moment", datetime(2026, 1, 1, 9, tzinfo=timezone(timedelta(hours=9)))), ("2026-01-01T00:00:00Z",)),
        (Term("due", date(2026, 2, 3)), ("2026-02-03",)),
        (Term("labels.a.b", "x"), ("x",)),
        (Terms("tags", ["a", "b"]), ("a", "b")),
    ],
)
def test_values_become_what_is_stored(condition: Condition, values: tuple[Any, ...]) -> None:
    assert condition_values(condition) == values


def test_a_match_asks_for_each_word_once() -> None:
    node = where_of(Match(("name", "remark"), "Main main STREET"), SHAPE)
    assert isinstance(node, AllNode)
    assert [(type(word), word.word, len(word.fields)) for word in node.nodes] == [
        (WordNode, "main", 2),
        (WordNode, "street", 2),
    ]
    assert where_of(Match(("name",), "?!"), SHAPE) == AnyNode(())


def test_a_range_keeps_its_bounds() -> None:
    node = where_of(Range("number", gt=1, lte=5), SHAPE)
    assert isinstance(node, RangeNode)
    assert node.bounds == (("gt", 1), ("lte", 5))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), st.text(min_size=1, max_size=3))
def test_a_prefix_is_the_range_of_texts_that_begin_with_it(text: str, prefix: str) -> None:
    try:
        node = where_of(Prefix("name", prefix), SHAPE)
    except InvalidQuery:
        return
    assert isinstance(node, RangeNode)
    bounds = dict(node.bounds)
    for each in (text, prefix + text, prefix, bounds.get("lt", prefix)):
        within = bounds["gte"] <= each and ("lt" not in bounds or each < bounds["lt"])
        assert within == each.startswith(prefix), (each, bounds)


def nested(depth: int) -> Condition:
    condition: Condition = Term("number", 1)
    for _ in range(depth - 1):
        condition = Not(condition)
    return condition


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (Term("nothing", 1), "no searchable field 'nothing'; it has: due, "),
        (Term("kept", 1), "no searchable field"),
        (Term("a\0", 1), "no searchable field"),
        (Term("number", "1"), "'number' cannot be compared"),
        (Term("number", True), "'number' cannot be compared"),
        (Term("number", 1.5), "'number' cannot be compared"),
        (Term("number", 2**63), "'number' cannot be compared"),
        (Term("number", None), "'number' cannot be compared"),
        (Term("rank", None), "'rank' cannot be compared"),
        (Term("ratio", float("nan")), "'ratio' cannot be compared"),
        (Term("name", "a\0"), "no document can have"),
        (Term("name", "\ud800"), "no document can have"),
        (Term("moment", datetime(2026, 1, 1)), "'moment' cannot be compared"),
        (Term("remark", "x"), "use Match"),
        (Term("labels", "x"), "'labels.colour'"),
        (Terms("number", range(LIMIT_MAX + 1)), "at most 1000"),
        (Term("nubmer", 1), "did you mean 'number'"),
        (Term("kept", 1), "kept with the document only"),
        (Prefix("number", "1"), "Prefix is for keywords"),
        (Prefix("remark", "a"), "Prefix is for keywords"),
        (Prefix("name", ""), "one character or more"),
        (Prefix("name", "a\0"), "one character or more"),
        (Prefix("labels.a", "a"), "Prefix is for keywords"),
        (Exists("remark"), "keyword=True"),
        (Exists("labels"), "'labels.colour'"),
        (Terms("name", "ab"), "give a list"),
        (Terms("name", {"a", "b"}), "give a list"),  # type: ignore[arg-type]
        (Match("name", "x"), "give a list"),
        (Range("number"), "no bound"),
        (Range("flag", gt=False), "no order"),
        (Range("remark", gt="a"), "no order"),
        (Range("labels.a", gt="a"), "no order"),
        (Match(("number",), "1"), "annotated with Text"),
        (Match((), "x"), "at least one text field"),
        (Match(("name",), " ".join(f"w{number}" for number in range(CONDITIONS_MAX + 1))), "words"),
        (All(*(Term("number", 1) for _ in range(CONDITIONS_MAX))), "more than"),
        (nested(NESTING_MAX + 1), "deep"),
        ("number = 1", "is not a condition"),
    ],
)
def test_an_impossible_condition_is_refused_by_name(condition: Any, reason: str) -> None:
    with pytest.raises(InvalidQuery, match=reason):
        where_of(condition, SHAPE)


def test_conditions_at_their_limits_are_taken() -> None:
    where_of(nested(NESTING_MAX), SHAPE)
    where_of(AnyOf(*(Term("number", 1) for _ in range(CONDITIONS_MAX - 1))), SHAPE)
    where_of(Terms("number", range(LIMIT_MAX)), SHAPE)


@pytest.mark.parametrize("limit", [0, -1, LIMIT_MAX + 1, True, 1.0, "10"])
def test_an_impossible_limit_is_refused(limit: Any) -> None:
    with pytest.raises(InvalidQuery, match="limit"):
        plan_of(Query(limit=limit), SHAPE)


@pytest.mark.parametrize("name", ["remark", "flag", "tags", "labels.a", "labels", "kept", "nothing"])
def test_a_field_without_one_ordered_value_cannot_be_sorted_by(name: str) -> None:
    with pytest.raises(InvalidQuery, match=name):
        plan_of(Query(sort=[Sort(name)]), SHAPE)


def test_a_sort_without_its_list_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="give a list"):
        plan_of(Query(sort=Sort("number")), SHAPE)  # type: ignore[arg-type]


def keys_of(*sorts: Sort) -> list[tuple[str | None, bool, bool]]:
    keys = plan_of(Query(sort=sorts), SHAPE).sort
    return [(None if key.field is None else key.field.name, key.descending, key.absent) for key in keys]


def test_the_id_is_the_last_part_of_every_order_in_the_direction_of_the_last_sort() -> None:
    assert keys_of() == [(None, False, False)]
    assert keys_of(Sort("number"), Sort("name", descending=True)) == [
        ("number", False, False),
        ("name", True, False),
        (None, True, False),
    ]


def test_missing_values_come_last_in_either_direction() -> None:
    for descending in (False, True):
        assert keys_of(Sort("rank", descending))[:2] == [("rank", False, True), ("rank", descending, False)]


# --- cursors

sorts = st.lists(
    st.builds(Sort, st.sampled_from(["number", "rank", "name", "ratio", "moment", "due", "key"]), st.booleans()),
    max_size=3,
    unique_by=lambda sort: sort.field,
)
rows = st.builds(
    Row,
    key=st.uuids(),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    number=st.integers(-(2**63), 2**63 - 1),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    rank=st.none() | st.integers(-(2**63), 2**63 - 1),
    moment=st.datetimes(datetime(1970, 1, 2), datetime(2261, 1, 1), timezones=st.just(UTC)),
    due=st.dates(),
)


@given(rows, sorts)
def test_a_cursor_holds_the_place_of_its_row_exactly(document: Row, sort: list[Sort]) -> None:
    plan = plan_of(Query(sort=sort), SHAPE)
    cursor = plan.cursor_after("id 1", document)
    next_plan = plan_of(Query(sort=sort, cursor=cursor), SHAPE)
    plain = msgspec.to_builtins(document)
    assert next_plan.after == tuple(key.value_in("id 1", plain) for key in plan.sort)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_nonsense_is_no_cursor(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        plan_of(Query(cursor=cursor), SHAPE)


def with_values(cursor: str, *values: Any) -> str:
    fingerprint, *_ = msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return base64.urlsafe_b64encode(msgspec.json.encode([fingerprint, values])).decode().rstrip("=")


@pytest.mark.parametrize(
    "values",
    [(False, "1", "id"), (0, 1, "id"), (False, 1, 5), (False, 2**63, "id"), (False, 1, "a\0"), (False, 1), ()],
)
def test_a_forged_cursor_is_refused(values: tuple[Any, ...]) -> None:
    sort = [Sort("rank")]
    cursor = plan_of(Query(sort=sort), SHAPE).cursor_after("id", Row(UUID(int=1), rank=1))
    plan_of(Query(sort=sort, cursor=with_values(cursor, False, 1, "id")), SHAPE)
    with pytest.raises(InvalidCursor):
        plan_of(Query(sort=sort, cursor=with_values(cursor, *values)), SHAPE)


@pytest.mark.parametrize(
    "other",
    [
        Query(where=Term("number", 2), sort=[Sort("number")]),
        Query(where=Term("number", 1), sort=[Sort("number", descending=True)]),
        Query(where=Term("number", 1), sort=[Sort("ratio")]),
        Query(where=Not(Term("number", 1)), sort=[Sort("number")]),
    ],
)
def test_a_cursor_belongs_to_one_condition_and_sort(other: Query) -> None:
    query = Query(where=Term("number", 1), sort=[Sort("number")])
    cursor = plan_of(query, SHAPE).cursor_after("id", Row(UUID(int=1), number=1))
    plan_of(Query(where=query.where, sort=query.sort, cursor=cursor, limit=3), SHAPE)
    with pytest.raises(InvalidCursor, match="another query"):
        plan_of(Query(where=other.where, sort=other.sort, cursor=cursor), SHAPE)
