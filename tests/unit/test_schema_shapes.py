"""The shape of an event, and the payloads that are made for it: the same each time, and true to its annotations."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit import DefinitionError
from cqrskit.schema import examples_of, shape_of
from tests.unit.schema_apps import bank

Meta = msgspec.Meta


class Colour(Enum):
    """Stored by value."""

    RED = "red"
    BLUE = "blue"


class Address(msgspec.Struct, frozen=True, rename="camel"):
    """Inside an event."""

    street_name: Annotated[str, Meta(min_length=1)]
    number: int | None = None


class Tree(msgspec.Struct, frozen=True):
    """Holds itself."""

    value: int
    parts: list["Tree"] = []
    above: Optional["Tree"] = None  # a string cannot be united


class Dog(msgspec.Struct, frozen=True, tag=True):
    """One of two."""

    name: str


class Cat(msgspec.Struct, frozen=True, tag=True):
    """The other."""

    lives: int


class Point(NamedTuple):
    """Stored as a list."""

    x: int
    y: int


class Size(TypedDict):
    """Stored as an object."""

    height: int


SHAPES: list[tuple[Any, str]] = [
    (int, "int"),
    (Annotated[int, Meta(ge=1, le=9)], "int(ge=1, le=9)"),
    (Annotated[str, Meta(description="for people")], "str"),
    (Annotated[str, Meta(pattern="^a$")], 'str(pattern="^a$")'),
    (int | None, "int | null"),
    (Optional[int], "int | null"),  # noqa: UP045
    (str | int | None, "int | str | null"),
    (Literal["b", "a"], '"a" | "b"'),
    (Colour, '"blue" | "red"'),
    (list[Address], "list[{number: int | null = null, streetName: str(min_length=1)}]"),
    (dict[str, list[int]], "dict[str, list[int]]"),
    (tuple[int, str], "tuple[int, str]"),
    (tuple[int, ...], "list[int]"),
    (frozenset[int], "set[int]"),
    (Tree, "{above: ^1 | null = null, parts: list[^1] = [], value: int}"),
    (Dog | Cat, '{type: "Cat", lives: int} | {type: "Dog", name: str}'),
    (Point, "[x: int, y: int]"),
    (Size, "{height: int}"),
    (Decimal, "decimal"),
    (bytes, "bytes"),
    (datetime, "datetime"),
    (Annotated[datetime, Meta(tz=True)], "datetime(tz=true)"),
    (timedelta, "timedelta"),
]


def credited(annotation: Any) -> Any:
    (event_class,) = bank({"field": annotation}).registry.event_classes
    return event_class


@pytest.mark.parametrize(("annotation", "text"), SHAPES, ids=[text for _, text in SHAPES])
def test_a_shape_says_in_words_what_is_stored(annotation: Any, text: str) -> None:
    assert shape_of(credited(annotation)) == {"field": text}


def test_a_default_is_part_of_the_shape() -> None:
    fields = {"one": int, "two": list[int], "three": UUID}
    factory: Callable[[], Any] = lambda: UUID(int=1)  # noqa: E731
    defaults = {"one": 5, "two": [], "three": msgspec.field(default_factory=factory)}
    (event_class,) = bank(fields, defaults=defaults).registry.event_classes
    assert shape_of(event_class) == {"one": "int = 5", "two": "list[int] = []", "three": "uuid = <lambda>()"}


def test_the_names_of_nested_classes_are_no_part_of_the_shape() -> None:
    renamed = msgspec.defstruct(
        "Place", [("number", int | None, None), ("streetName", Annotated[str, Meta(min_length=1)])], kw_only=True
    )
    assert shape_of(credited(renamed)) == shape_of(credited(Address))


@pytest.mark.parametrize(("annotation", "text"), SHAPES, ids=[text for _, text in SHAPES])
def test_every_payload_is_one_that_the_class_would_store(annotation: Any, text: str) -> None:
    event_class = credited(annotation)
    payloads = examples_of(event_class)
    assert payloads == examples_of(credited(annotation))
    assert len(set(payloads)) == len(payloads) >= 1
    for payload in payloads:
        assert msgspec.json.encode(msgspec.json.decode(payload, type=event_class)) == payload


def values(annotation: Any) -> list[Any]:
    return [msgspec.json.decode(payload)["field"] for payload in examples_of(credited(annotation))]


def test_payloads_have_the_edge_cases() -> None:
    assert values(Annotated[int, Meta(ge=1, le=9)])[:2] == [1, 9]
    assert values(Annotated[int, Meta(gt=1, lt=9, multiple_of=3)]) == [3, 6]
    assert values(str | None)[:3] == [None, "", "a"]
    assert values(Literal["a", "b", "c"]) == ["a", "b", "c"]
    assert values(Annotated[str, Meta(min_length=2, max_length=5)])[:2] == ["aa", "aaaaa"]
    assert [len(each) for each in values(list[int])] == [0, 1, 3]
    assert [len(each) for each in values(Annotated[list[int], Meta(min_length=2, max_length=7)])] == [2, 3]
    assert values(bool) == [False, True]
    assert {each["type"] for each in values(Dog | Cat)} == {"Dog", "Cat"}


def test_a_pattern_that_no_value_of_ours_fits_asks_for_examples() -> None:
    pattern = "^[A-Z]{2}[0-9]{20}$"
    with pytest.raises(DefinitionError, match=r"Account\.Credited\.field: give some .*examples="):
        examples_of(credited(Annotated[str, Meta(pattern=pattern)]))
    iban = "DE" + 20 * "0"
    assert values(Annotated[str, Meta(pattern=pattern, examples=[iban])]) == [iban]
    assert values(list[Annotated[str, Meta(pattern=pattern, examples=[iban])]]) == [[], [iban], [iban] * 3]


def test_combinations_that_the_class_refuses_are_left_out() -> None:
    class Span(msgspec.Struct, frozen=True):
        first: int
        last: int

        def __post_init__(self) -> None:
            if self.first < 0:
                raise ValueError("before the beginning")

    assert all(each["first"] >= 0 for each in values(Span))
    assert len(values(Span)) >= 2


LEAVES: list[Any] = [
    int,
    str,
    bool,
    float,
    UUID,
    date,
    datetime,
    time,
    timedelta,
    Decimal,
    bytes,
    Colour,
    Address,
    Tree,
    Dog | Cat,
]
annotations = st.recursive(
    st.sampled_from(LEAVES)
    | st.builds(
        lambda least, more: Annotated[int, Meta(ge=least, le=least + more)], st.integers(-9, 9), st.integers(0, 9)
    )
    | st.builds(
        lambda least, more: Annotated[str, Meta(min_length=least, max_length=least + more)],
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    lambda inner: (
        st.builds(lambda each: GenericAlias(list, each), inner)
        | st.builds(lambda each: GenericAlias(dict, (str, each)), inner)
        | st.builds(lambda each: GenericAlias(tuple, (each, int)), inner)
        | st.builds(
            lambda each, least: Annotated[GenericAlias(list, each), Meta(min_length=least)], inner, st.integers(0, 4)
        )
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(["one", "two", "three"]), annotations))
def test_payloads_can_be_made_for_any_fields_and_come_back(fields: dict[str, Any]) -> None:
    (event_class,) = bank(fields).registry.event_classes
    for payload in examples_of(event_class):
        assert msgspec.json.encode(msgspec.json.decode(payload, type=event_class)) == payload
    assert shape_of(event_class).keys() == fields.keys()
