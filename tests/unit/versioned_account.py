"""An account whose events have changed, with the upcasters of its old versions."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from cqrskit import (
    Aggregate,
    Application,
    Command,
    RecordedEvent,
    Repository,
    event,
    handles,
    upcasts,
)

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


class Other(Aggregate):
    """Of another application."""

    class Happened(Aggregate.Event, version=2):
        """Something."""


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
