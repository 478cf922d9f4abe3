"""Documents: what annotations mean, what is refused, and that each document comes back as it went."""

from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit.document import Field, FieldKind, Indexed, Text, Unindexed, shape_of
from cqrskit.document_codec import (
    DATETIME_MAX,
    DATETIME_MIN,
    ID_BYTES_MAX,
    INDEXED_BYTES_MAX,
    KEYWORD_BYTES_MAX,
    Unstorable,
    check_id,
    codec_of,
)
from cqrskit.errors import DefinitionError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leg(msgspec.Struct, frozen=True):
    account_id: UUID
    amount: int


class Row(msgspec.Struct, frozen=True):
    key: UUID
    name: Annotated[str, Text(keyword=True)]
    number: Annotated[int, Indexed()]
    code: Annotated[str, Indexed()] = ""
    remark: Annotated[str | None, Text] = None
    ratio: float = 0.0
    flag: bool = False
    colour: Colour | None = None
    side: Literal["debit", "credit", None] = None
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    due: date | None = None
    labels: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    legs: tuple[Leg, ...] = ()
    first: Leg | None = None
    kept: Annotated[Any, Unindexed()] = None
    numbers: tuple[int, ...] = ()


def row(**fields: Any) -> Row:
    return Row(**{"key": UUID(int=1), "name": "a", "number": 1, **fields})


def field_of(name: str) -> Field:
    found = shape_of(Row).find(name)
    assert found is not None
    return found


# --- shapes


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("key", "keyword"),
        ("name", "text keyword"),
        ("remark", "text"),
        ("number", "long"),
        ("ratio", "double"),
        ("flag", "boolean"),
        ("colour", "keyword"),
        ("side", "keyword"),
        ("moment", "datetime"),
        ("due", "date"),
        ("labels", "flattened"),
        ("labels.a.b", "flattened"),
        ("tags", "keyword many"),
        ("legs.account_id", "keyword many"),
        ("legs.amount", "long many"),
        ("first.amount", "long"),
        ("kept", "stored"),
    ],
)
def test_annotations_say_how_a_field_is_searched(name: str, description: str) -> None:
    assert field_of(name).description == description


def test_a_field_may_be_missing_if_it_or_what_holds_it_may_be_null() -> None:
    nullable = {field.name for field in shape_of(Row).fields.values() if field.nullable}
    assert nullable == {"remark", "colour", "side", "due", "first.account_id", "first.amount"}


def test_values_are_found_in_nested_lists_and_nulls_are_none() -> None:
    plain = msgspec.to_builtins(row(legs=(Leg(UUID(int=1), 5), Leg(UUID(int=2), 7)), labels={"a": "b"}))
    assert list(field_of("legs.amount").values_in(plain)) == [5, 7]
    assert list(field_of("labels.a").values_in(plain)) == ["b"]
    assert list(field_of("labels.c").values_in(plain)) == []
    assert list(field_of("first.amount").values_in(plain)) == []


@pytest.mark.parametrize("name", ["labels.", "nothing", "legs", "number.x"])
def test_a_name_that_is_no_field_is_not_found(name: str) -> None:
    assert shape_of(Row).find(name) is None


def test_a_changed_field_changes_the_fingerprint_and_is_named() -> None:
    changed = msgspec.defstruct("Row", [("number", str), ("added", int)], frozen=True)
    original = msgspec.defstruct("Row", [("number", int)], frozen=True)
    differences = shape_of(changed).differences_from(shape_of(original).descriptions)
    assert [sentence.split()[0] for sentence in differences] == ["added", "number"]
    assert shape_of(changed).fingerprint != shape_of(original).fingerprint


@pytest.mark.parametrize(
    ("fields", "options", "reason"),
    [
        ([("x", int)], {"frozen": False}, "frozen"),
        ([("x", int)], {"array_like": True}, "array_like"),
        ([("x", int)], {"forbid_unknown_fields": True}, "forbid_unknown_fields"),
        ([("x", int)], {"omit_defaults": True}, "omit_defaults"),
        ([("cqrskit_x", int)], {}, "cqrskit_x"),
        ([("ä", int)], {}, "ä"),
        ([("x", complex)], {}, "complex"),
        ([("x", Annotated[int, Text()])], {}, "Text"),
        ([("x", Annotated[bool, Indexed()])], {}, "Indexed"),
        ([("x", Annotated[tuple[int, ...], Indexed()])], {}, "Indexed"),
        ([("x", Annotated[int, Indexed(within="y")])], {}, "within"),
        ([("x", Annotated[int, Indexed(within="y")]), ("y", int)], {}, "within"),
    ],
)
def test_a_document_that_cannot_be_stored_is_refused_at_import(
    fields: list[tuple[str, Any]], options: dict[str, Any], reason: str
) -> None:
    document = msgspec.defstruct("Bad", fields, **{"frozen": True, **options})
    with pytest.raises(DefinitionError, match=reason):
        shape_of(document)


def test_what_is_no_struct_is_refused() -> None:
    anything: Any = dict  # a user without a type checker might pass it
    with pytest.raises(DefinitionError, match="msgspec Struct"):
        shape_of(anything)


# --- documents as bytes

utf8 = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
moments = st.datetimes(
    DATETIME_MIN.replace(tzinfo=None) + timedelta(days=1),
    DATETIME_MAX.replace(tzinfo=None) - timedelta(days=1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=11))]),
)
longs = st.integers(-(2**63), 2**63 - 1)
rows = st.builds(
    Row,
    key=st.uuids(),
    name=utf8,
    number=longs,
    remark=st.none() | utf8,
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
    colour=st.none() | st.sampled_from(Colour),
    moment=moments,
    due=st.none() | st.dates(),
    labels=st.dictionaries(utf8, utf8, max_size=3),
    tags=st.lists(utf8, max_size=3).map(tuple),
    legs=st.lists(st.builds(Leg, st.uuids(), longs), max_size=3).map(tuple),
    numbers=st.lists(longs, max_size=3).map(tuple),
)


@given(rows)
def test_a_document_comes_back_as_it_went(document: Row) -> None:
    codec = codec_of(Row)
    data = codec.encode(document)
    assert codec.decode(data) == document
    assert codec.from_plain(msgspec.json.decode(data)) == document
    assert codec.encode(codec.decode(data)) == data


@given(moments)
def test_one_moment_has_one_form_whatever_its_zone(moment: datetime) -> None:
    elsewhere = moment.astimezone(timezone(timedelta(hours=9)))
    assert codec_of(Row).encode(row(moment=moment)) == codec_of(Row).encode(row(moment=elsewhere))


def test_zero_has_no_sign() -> None:
    assert codec_of(Row).encode(row(ratio=-0.0)) == codec_of(Row).encode(row(ratio=0.0))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"key": 1}, "is a dict"),
        (row(number=2**63), "64 bits"),
        (row(numbers=(1, -(2**63) - 1)), "64 bits"),
        (row(number="1"), "does not fit"),
        (row(ratio=float("nan")), "not fit|not come back"),
        (row(ratio=float("inf")), "not fit|not come back"),
        (row(name="a\0b"), "NUL"),
        (row(remark="\ud800"), "does not fit"),
        (row(moment=datetime(2026, 1, 1)), "time zone|does not fit"),
        (row(moment=datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)), "1970"),
        (row(moment=datetime(2262, 1, 1, tzinfo=UTC)), "2261"),
        (row(name="ä" * (KEYWORD_BYTES_MAX // 2 + 1)), "bytes"),
        (row(labels={"k": "x" * KEYWORD_BYTES_MAX}), "bytes"),
        (row(code="x" * (INDEXED_BYTES_MAX + 1)), "bytes"),
    ],
)
def test_a_document_that_would_not_come_back_is_refused(document: Any, reason: str) -> None:
    with pytest.raises(Unstorable, match=reason):
        codec_of(Row).encode(document)


def test_values_at_their_limits_are_taken() -> None:
    for document in (
        row(number=2**63 - 1),
        row(number=-(2**63)),
        row(code="x" * INDEXED_BYTES_MAX),
        row(name="x" * KEYWORD_BYTES_MAX),
        row(remark="x" * 100_000),
        row(moment=DATETIME_MIN),
        row(moment=DATETIME_MAX),
        row(kept={"big": 2**64 - 1, "long": "x" * 100_000}),
    ):
        assert codec_of(Row).decode(codec_of(Row).encode(document)) == document


def test_words_are_kept_by_field() -> None:
    codec = codec_of(Row)
    words = codec.words(codec.encode(row(name="Main Street", remark="to MAIN")))
    assert words == {"name": {"main", "street"}, "remark": {"to", "main"}}


@pytest.mark.parametrize("document_id", ["", "x" * (ID_BYTES_MAX + 1), "ä" * (ID_BYTES_MAX // 2 + 1), "a\0", "\ud800"])
def test_an_impossible_id_is_refused(document_id: str) -> None:
    with pytest.raises(Unstorable, match="its id"):
        check_id(document_id)


def test_an_id_may_be_long_and_odd() -> None:
    for document_id in ("x" * ID_BYTES_MAX, "ä" * (ID_BYTES_MAX // 2), " ", "../_x", FieldKind.LONG):
        check_id(document_id)
