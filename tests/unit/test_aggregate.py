"""Aggregates and events: names, fields, and what is wrong with a declaration is said at import."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit import Aggregate, Application, DefinitionError, event
from cqrskit.aggregate import event_classes, make_aggregate
from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.events import EventRegistry, RecordedEvent


class Address(msgspec.Struct, frozen=True):
    """A value inside an event."""

    street: str
    number: int | None


class Person(Aggregate):
    """Somebody."""

    class Born(Aggregate.Created):
        """With a name."""

        name: str

    class Moved(Aggregate.Event):
        """To an address, with fields of many types."""

        address: Address
        at: datetime
        day: date
        tags: list[str]
        marks: dict[str, int]
        other: UUID | None = None

    class Renamed(Aggregate.Event):
        """Under a stored name of its own."""

        stored_name = "person.renamed"
        name: str

    @event(Born)
    def __init__(self, name: str) -> None:
        self.name = name
        self.moves = 0

    @event(Renamed)
    def rename(self, name: str) -> None:
        """Take another name."""
        self.name = name


REGISTRY = EventRegistry(event_classes(Person))


def recorded(stored_name: str, data: bytes, version: int = 1) -> RecordedEvent:
    return RecordedEvent(7, UUID(int=1), version, stored_name, data, b"{}", datetime(2026, 1, 1, tzinfo=UTC))


def test_events_are_stored_under_stable_names() -> None:
    assert REGISTRY.stored_names == ["Person.Born", "Person.Moved", "person.renamed"]


def test_events_compare_by_content_and_hold_nothing_of_their_place() -> None:
    assert Person.Born(name="Ann") == Person.Born(name="Ann") != Person.Born(name="Ben")
    assert REGISTRY.encode(make_aggregate(Person, uuid4(), "Ann").collect_events()[0]) == b'{"name":"Ann"}'


def test_an_aggregate_is_rebuilt_from_its_events() -> None:
    person = REGISTRY.decode(recorded("Person.Born", b'{"name":"Ann"}')).mutate(None)
    person = REGISTRY.decode(recorded("person.renamed", b'{"name":"Anna"}', 2)).mutate(person)
    assert (person.name, person.id, person.version) == ("Anna", UUID(int=1), 2)


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
moved = st.builds(
    Person.Moved,
    address=st.builds(Address, st.text(), st.one_of(st.none(), st.integers())),
    at=moments,
    day=st.dates(),
    tags=st.lists(st.text()),
    marks=st.dictionaries(st.text(), st.integers()),
    other=st.one_of(st.none(), st.uuids()),
)


@given(moved)
def test_what_is_encoded_comes_back(happened: Person.Moved) -> None:
    assert REGISTRY.decode(recorded("Person.Moved", REGISTRY.encode(happened))) == happened


@given(st.lists(st.text(), max_size=20))
def test_the_state_is_the_fold_of_the_events_and_nothing_else(names: list[str]) -> None:
    person = make_aggregate(Person, UUID(int=1), "Ann")
    for name in names:
        person.rename(name=name)
    events = person.collect_events()
    again: Any = None
    for version, happened in enumerate(events, start=1):
        again = REGISTRY.decode(recorded(happened.stored_name, REGISTRY.encode(happened), version)).mutate(again)
    assert (again.name, again.version) == (person.name, person.version) == ([*["Ann"], *names][-1], len(names) + 1)


def test_a_type_that_nobody_declares_is_named() -> None:
    with pytest.raises(UnknownEventType, match=r"Person\.Died"):
        REGISTRY.decode(recorded("Person.Died", b"{}"))


@pytest.mark.parametrize("data", [b"{}", b'{"name":5}', b"[]", b"nonsense", b""])
def test_bytes_that_do_not_fit_name_the_event_and_its_place(data: bytes) -> None:
    with pytest.raises(EventDecodeError, match=r"event 1 of stream 00000000-.*Person\.Born"):
        REGISTRY.decode(recorded("Person.Born", data))


def test_two_events_of_one_name_in_a_class_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two events named 'Happened'"):

        class Twice(Aggregate):
            class Happened(Aggregate.Event):
                amount: int

            class Happened(Aggregate.Event):  # type: ignore[no-redef]  # noqa: F811  # this is what is tested
                amount: str


def test_two_classes_stored_under_one_name_are_refused() -> None:
    def make(module: str) -> type[Aggregate]:
        class Thing(Aggregate):
            class Happened(Aggregate.Event):
                amount: int

        Thing.Happened.__module__ = module
        return Thing

    with pytest.raises(DefinitionError, match=r"one\..*Happened and two\..*Happened"):
        Application("things", aggregates=[make("one"), make("two")], handlers=[])


def test_a_field_without_an_annotation_is_refused() -> None:
    with pytest.raises(DefinitionError, match="amount has no annotation"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event):
                amount = 5


def test_a_field_that_may_be_anything_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Thing\.Happened\.amount has no usable annotation"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event):
                amount: Any


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Person.Born(name="Ann").name = "Ben"  # type: ignore[misc]
