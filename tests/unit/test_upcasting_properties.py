"""Reading an old version is the composition of its upcasters, whatever they do and whatever the fields are."""

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from types import GenericAlias
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cqrskit import Aggregate, Application, RecordedEvent, upcasts
from cqrskit.event_versions import Upcaster, stored_names_of
from cqrskit.events import EventRegistry


def registry_of(aggregate: type[Aggregate], upcasters: list[Upcaster]) -> EventRegistry:
    return Application("things", aggregates=[aggregate], handlers=[], upcasters=upcasters).registry


def recorded(stored_name: str, data: bytes) -> RecordedEvent:
    return RecordedEvent(7, UUID(int=1), 1, stored_name, data, b"{}", datetime(2026, 1, 1, tzinfo=UTC))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
Change = Callable[[dict[str, Any]], dict[str, Any]]


def change(kind: str, field: str, value: Any) -> Change:
    """A pure step: add or overwrite a field, remove it, or keep the whole as it was under it."""

    def apply(data: dict[str, Any]) -> dict[str, Any]:
        if kind == "put":
            return {**data, field: value}
        if kind == "drop":
            return {name: each for name, each in data.items() if name != field}
        return {field: dict(data)}

    return apply


changes = st.builds(change, st.sampled_from(["put", "drop", "wrap"]), st.sampled_from("abc"), plain)


@given(st.data(), st.lists(changes, min_size=1, max_size=5), st.dictionaries(st.sampled_from("abcd"), plain))
def test_reading_version_k_equals_applying_the_steps_from_k_one_after_the_other(
    data: st.DataObject, steps: list[Change], stored: dict[str, Any]
) -> None:
    class Thing(Aggregate):
        class Happened(Aggregate.Event, version=len(steps) + 2):
            all: dict[str, object]

    def renamed(step: Change) -> Upcaster:
        return lambda given: step(given)

    upcasters = [
        upcasts(Thing.Happened, from_version=number)(renamed(step)) for number, step in enumerate(steps, start=1)
    ]
    last = upcasts(Thing.Happened, from_version=len(steps) + 1)(lambda given: {"all": given})
    registry = registry_of(Thing, [last, *reversed(upcasters)])
    first = data.draw(st.integers(1, len(steps) + 1))
    name = stored_names_of(Thing.Happened)[first - 1]
    expected: Any = stored
    for step in steps[first - 1 :]:
        expected = step(expected)
    assert registry.decode(recorded(name, msgspec.json.encode(stored))).all == expected


FIELDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers(-(2**63), 2**63 - 1)),
    (str, st.text()),
    (bool, st.booleans()),
    (UUID, st.uuids()),
    (date, st.dates()),
    (datetime, st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (bytes, st.binary()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
]


def composed(field: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, st.SearchStrategy[Any]]]:
    kind, values = field
    return st.sampled_from(
        [
            (kind, values),
            (operator.or_(kind, None), st.none() | values),
            (GenericAlias(tuple, (kind, ...)), st.lists(values, max_size=3).map(tuple)),
            (GenericAlias(list, kind), st.lists(values, max_size=3)),
            (GenericAlias(dict, (str, kind)), st.dictionaries(st.text(), values, max_size=3)),
        ]
    )


field_types = st.sampled_from(FIELDS).flatmap(composed)


@given(st.data(), st.dictionaries(st.sampled_from(["one", "two", "three", "four"]), field_types))
def test_an_upcaster_may_hand_over_values_of_any_field_type(
    data: st.DataObject, fields: dict[str, tuple[Any, st.SearchStrategy[Any]]]
) -> None:
    values = {name: data.draw(strategy) for name, (_, strategy) in fields.items()}
    annotations = {name: kind for name, (kind, _) in fields.items()}
    make: Any = type(Aggregate.Event)
    happened = make("Happened", (Aggregate.Event,), {"__annotations__": annotations, "__module__": __name__}, version=2)
    thing: Any = type("Thing", (Aggregate,), {"Happened": happened})
    step = upcasts(thing.Happened, from_version=1)(lambda _: dict(values))
    registry = registry_of(thing, [step])
    made = thing.Happened(**values)
    assert registry.decode(recorded("Thing.Happened@2", registry.encode(made))) == made
    assert registry.decode(recorded("Thing.Happened", b"{}")) == made
