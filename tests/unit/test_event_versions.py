"""Versions of events: old ones are upcast wherever they are read; a chain that cannot work is refused at start-up."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from cqrskit import (
    Aggregate,
    Application,
    Command,
    DefinitionError,
    Projection,
    RecordedEvent,
    Repository,
    event,
    handles,
    on,
    upcasts,
)
from cqrskit.aggregate import event_classes
from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.event_versions import Upcaster, stored_names_of
from cqrskit.events import EventRegistry, RetiredEvent
from cqrskit.projection import folds_of
from cqrskit.testing import Scenario

STREAM = UUID(int=1)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


class Account(Aggregate):
    """An account whose events have changed."""

    class Opened(Aggregate.Created):
        """As ever."""

        owner: str

    class Credited(Aggregate.Event, version=3):
        """Version 1 had an amount in whole units, version 2 cents, version 3 a currency."""

        cents: int
        currency: str

    class Noted(Aggregate.Event, version=2):
        """Stored under its old name."""

        stored_name = "account.annotated"
        text: str

    @event(Opened)
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.cents: dict[str, int] = {}

    @event(Credited)
    def credit(self, cents: int, currency: str) -> None:
        """Add it up."""
        self.cents[currency] = self.cents.get(currency, 0) + cents

    @event(Noted)
    def note(self, text: str) -> None:
        """Change nothing."""


@upcasts(Account.Credited, from_version=1)
def credited_v1(data: dict[str, Any]) -> dict[str, Any]:
    """In cents."""
    return {"cents": 100 * data["amount"]}


@upcasts(Account.Credited, from_version=2)
def credited_v2(data: dict[str, Any]) -> dict[str, Any]:
    """There was but one currency."""
    return {**data, "currency": "EUR"}


@upcasts(Account.Noted, from_version=1)
def noted_v1(data: dict[str, Any]) -> dict[str, Any]:
    """The field had another name."""
    return {"text": data["note"]}


class Credit(Command):
    """Put money into an account."""

    account_id: UUID
    cents: int


@handles(Credit)
def credit(command: Credit, repository: Repository) -> int:
    """In euro."""
    account = repository.get(Account, command.account_id)
    account.credit(cents=command.cents, currency="EUR")
    return account.cents["EUR"]


STEPS = [credited_v1, credited_v2, noted_v1]


def application(**changed: Any) -> Application:
    return Application("bank", **{"aggregates": [Account], "handlers": [credit], "upcasters": STEPS, **changed})


REGISTRY = application().registry


def recorded(stored_name: str, data: bytes, version: int = 1) -> RecordedEvent:
    return RecordedEvent(7, STREAM, version, stored_name, data, b"{}", WHEN)


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


# --- what is refused at start-up


def marked(*classes: type[Any], from_version: int) -> Upcaster:
    @upcasts(*classes, from_version=from_version)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return data

    return step


async def waits(data: dict[str, Any]) -> dict[str, Any]:
    return data


def takes_two(data: dict[str, Any], more: int) -> dict[str, Any]:
    return data


def with_step(function: Any) -> list[Any]:
    return [upcasts(Account.Credited, from_version=1)(function), credited_v2, noted_v1]


class Other(Aggregate):
    """Of another application."""

    class Happened(Aggregate.Event, version=2):
        """Something."""


@pytest.mark.parametrize(
    ("upcasters", "message"),
    [
        ([credited_v2, noted_v1], r"no upcaster leads from version 1 to 2: write one with @upcasts\(Account\.Credited"),
        ([credited_v1, noted_v1], "no upcaster leads from version 2 to 3"),
        ([*STEPS, marked(Account.Credited, from_version=1)], "two upcasters from version 1, credited_v1 and marked"),
        ([*STEPS, marked(Account.Credited, from_version=3)], "from version 3, but the class has version 3"),
        ([*STEPS, marked(Account.Credited, from_version=7)], "from version 7, but the class has version 3"),
        ([*STEPS, marked(Account.Credited, from_version=0)], "from version 0"),
        ([*STEPS, marked(Account.Opened, from_version=1)], "which has version 1 only"),
        (
            [*STEPS, marked(Other.Happened, from_version=1)],
            r"Other\.Happened, which is no event of an",
        ),
        ([*STEPS, lambda data: data], "does not say which event it upcasts"),
        (with_step(waits), "waits is a coroutine function"),
        (with_step(takes_two), "takes_two must take one argument"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_at_start_up(upcasters: list[Upcaster], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        application(upcasters=upcasters)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2"])
def test_a_version_counts_from_one(version: Any) -> None:
    with pytest.raises(DefinitionError, match="versions of an event count"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event, version=version):
                pass


def test_a_version_is_said_by_the_class_argument_only() -> None:
    with pytest.raises(DefinitionError, match="the @ separates the version"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event):
                stored_name = "happened@2"

    with pytest.raises(DefinitionError, match="sets stored_version"):

        class Another(Aggregate):
            class Happened(Aggregate.Event):
                stored_version = 2


def test_two_classes_of_one_base_name_are_refused_whatever_their_versions() -> None:
    class Thing(Aggregate):
        class Happened(Aggregate.Event, version=2):
            stored_name = "Account.Opened"

    with pytest.raises(DefinitionError, match=r"two event classes are stored as 'Account\.Opened'"):
        application(aggregates=[Account, Thing], upcasters=[*STEPS, marked(Thing.Happened, from_version=1)])


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
    story.when(Credit(account_id=STREAM, cents=1)).then_reply(1)
    assert [each.stream_version for each in story.log] == [1, 2, 3, 4]
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
