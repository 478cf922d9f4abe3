"""Versions of events: old ones are upcast wherever they are read; a chain that cannot work is refused at start-up."""

from typing import Any

import msgspec
import pytest

from cqrskit import (
    Aggregate,
    DefinitionError,
    Projection,
    RecordedEvent,
    event,
    on,
    upcasts,
)
from cqrskit.aggregate import event_classes
from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.event_versions import Upcaster, stored_names_of
from cqrskit.events import EventRegistry, RetiredEvent
from cqrskit.projection import folds_of
from cqrskit.testing import Scenario
from tests.unit.versioned_account import (
    REGISTRY,
    STREAM,
    WHEN,
    Account,
    Credit,
    Other,
    application,
    credited_v1,
    noted_v1,
    recorded,
)

# --- reading old versions


def test_each_version_has_its_own_name_in_the_log() -> None:
    assert Account.Credited.stored_name == "Account.Credited@3"
    assert stored_names_of(Account.Credited) == ["Account.Credited", "Account.Credited@2", "Account.Credited@3"]
    assert stored_names_of(Account.Noted) == ["account.annotated", "account.annotated@2"]
    assert stored_names_of(Account.Opened) == ["Account.Opened"]


def test_the_registry_knows_all_versions() -> None:
    names = ["Account.Credited", "Account.Credited@2", "Account.Credited@3", "Account.Opened"]
    assert REGISTRY.stored_names == [*names, "account.annotated", "account.annotated@2"]
    assert all(name in REGISTRY for name in names)
    assert "Account.Credited@4" not in REGISTRY
    assert {REGISTRY.class_of(name) for name in names[:3]} == {Account.Credited}


@pytest.mark.parametrize(
    ("stored_name", "data"),
    [
        ("Account.Credited", b'{"amount":5}'),
        ("Account.Credited@2", b'{"cents":500}'),
        ("Account.Credited@3", b'{"cents":500,"currency":"EUR"}'),
    ],
)
def test_an_old_version_becomes_an_event_of_the_current_class_in_its_place(stored_name: str, data: bytes) -> None:
    found = REGISTRY.decode(recorded(stored_name, data, 4))
    assert found == Account.Credited(cents=500, currency="EUR")
    assert (found.originator_id, found.originator_version, found.timestamp) == (STREAM, 4, WHEN)


def test_a_version_that_newer_code_has_written_says_so() -> None:
    with pytest.raises(UnknownEventType, match=r"Account\.Credited@4.*newer code.*up to version 3"):
        REGISTRY.decode(recorded("Account.Credited@4", b"{}"))


def test_one_upcaster_may_serve_several_events_and_an_inherited_version_counts() -> None:
    class Moved(Aggregate.Event, version=2):
        cents: int

    class Wallet(Aggregate):
        class Filled(Moved):
            pass

        class Emptied(Moved):
            pass

        class Locked(Moved, version=3):
            pass

    @upcasts(Wallet.Filled, Wallet.Emptied, Wallet.Locked, from_version=1)
    def in_cents(data: dict[str, Any]) -> dict[str, Any]:
        return {"cents": 100 * data["amount"]}

    @upcasts(Wallet.Locked, from_version=2)
    def same(data: dict[str, Any]) -> dict[str, Any]:
        return data

    registry = application(aggregates=[Wallet], upcasters=[in_cents, same]).registry
    for name, kind in [("Wallet.Filled", Wallet.Filled), ("Wallet.Emptied", Wallet.Emptied)]:
        assert registry.decode(recorded(name, b'{"amount":1}')) == kind(cents=100)
    assert registry.class_of("Wallet.Locked@3") is Wallet.Locked


def test_an_aggregate_that_inherits_events_has_their_versions_under_its_own_names() -> None:
    class Savings(Account):
        pass

    assert "Savings.Credited@3" in [each.stored_name for each in event_classes(Savings)]


def test_an_event_that_begins_a_stream_has_versions_too() -> None:
    class Shop(Aggregate):
        class Opened(Aggregate.Created, version=2):
            owner: str
            city: str

        @event(Opened)
        def __init__(self, owner: str, city: str) -> None:
            self.where = f"{owner} in {city}"

    step = upcasts(Shop.Opened, from_version=1)(lambda data: {**data, "city": "Berlin"})
    registry = application(aggregates=[Shop], upcasters=[step]).registry
    assert registry.decode(recorded("Shop.Opened", b'{"owner":"Ann"}')).mutate(None).where == "Ann in Berlin"


def test_an_old_version_in_a_story_is_loaded_and_built_on() -> None:
    story = Scenario(application()).given(STREAM, Account.Opened(owner="Ann"))
    story.given_stored(STREAM, "Account.Credited", {"amount": 5}).given_stored(
        STREAM, "account.annotated", {"note": "hello"}
    )
    story.when(Credit(account_id=STREAM, cents=1)).then_reply(501)
    assert [each.type for each in story.log][-1] == "Account.Credited@3"


# --- what goes wrong at load


def broken(function: Upcaster) -> EventRegistry:
    step = upcasts(Account.Credited, from_version=2)(function)
    return application(upcasters=[credited_v1, step, noted_v1]).registry


def raises(data: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("currency")


def returns_nothing(data: dict[str, Any]) -> dict[str, Any]:
    return None  # type: ignore[return-value]


def forgets(data: dict[str, Any]) -> dict[str, Any]:
    return data


def makes_what_json_cannot_hold(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": object()}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raises, r"upcaster raises failed: KeyError: 'currency'"),
        (returns_nothing, r"upcaster returns_nothing returned no dict but NoneType"),
        (forgets, r"upcaster credited_v1 and forgets made what does not fit Account\.Credited@3: .*currency"),
        (makes_what_json_cannot_hold, r"upcaster credited_v1 and makes_what_json_cannot_hold made what JSON cannot"),
    ],
)
def test_an_upcaster_that_fails_is_named_with_the_type_and_the_place(function: Upcaster, reason: str) -> None:
    with pytest.raises(
        EventDecodeError, match=rf"event 9 of stream {STREAM} is stored as 'Account\.Credited' but {reason}"
    ):
        broken(function).decode(recorded("Account.Credited", b'{"amount":5}', 9))


@pytest.mark.parametrize("data", [b"[]", b"5", b"nonsense", b""])
def test_old_bytes_that_are_no_json_object_reach_no_upcaster(data: bytes) -> None:
    with pytest.raises(EventDecodeError, match="is no"):
        REGISTRY.decode(recorded("Account.Credited", data))


# --- projections


class Sum(msgspec.Struct, frozen=True):
    """What came in."""

    cents: int


class Sums(Projection):
    """By account."""

    document = Sum

    @on(Account.Credited)
    def credited(self, sum: Sum | None, event: Account.Credited, at: RecordedEvent) -> Sum:  # noqa: A002
        """Add."""
        return Sum(event.cents)


def test_a_projection_of_an_event_gets_all_its_versions() -> None:
    application(projections=[Sums])
    assert sorted(folds_of(Sums())) == ["Account.Credited", "Account.Credited@2", "Account.Credited@3"]


# --- retired events


def test_a_retired_event_is_counted_and_changes_nothing_in_all_its_versions() -> None:
    bank = application(retired=["Account.Renamed"])
    story = Scenario(bank).given(STREAM, Account.Opened(owner="Ann"))
    story.given_stored(STREAM, "Account.Renamed", {"owner": "Ben"}).given_stored(STREAM, "Account.Renamed@2", {})
    story.given_stored(STREAM, "Account.Credited", {"amount": 5})
    story.when(Credit(account_id=STREAM, cents=1)).then_reply(501)
    ((_, decided),) = story.events
    assert decided.originator_version == 5
    assert "Account.Renamed@5" in bank.registry
    assert isinstance(bank.registry.decode(recorded("Account.Renamed", b"{}")), RetiredEvent)
    with pytest.raises(UnknownEventType, match=r"Account\.Renamed"):
        application().registry.decode(recorded("Account.Renamed", b"{}"))


def test_a_stream_that_begins_with_a_retired_event_cannot_be_loaded() -> None:
    with pytest.raises(EventDecodeError, match="is retired, so no aggregate"):
        application(retired=["Gone.Made"]).registry.decode(recorded("Gone.Made", b"{}")).mutate(None)


@pytest.mark.parametrize(
    ("retired", "message"),
    [("Account.Opened", "is retired, but .*Opened declares it"), ("Gone.Made@2", "names a version")],
)
def test_what_cannot_be_retired_is_refused(retired: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        application(retired=[retired])


def test_a_retired_event_cannot_be_folded() -> None:
    class Folds(Projection):
        document = Sum

        @on(Other.Happened)
        def happened(self, sum: Sum | None, event: Other.Happened, at: RecordedEvent) -> Sum:  # noqa: A002
            return Sum(0)

    with pytest.raises(DefinitionError, match=r"folds Other\.Happened"):
        application(projections=[Folds], retired=["Other.Happened"])
