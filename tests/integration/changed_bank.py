"""A bank before and after its events changed: what the old code wrote, the new code must read."""

from typing import Any
from uuid import UUID

import msgspec

from cqrskit import Aggregate, Application, Command, Projection, RecordedEvent, Repository, event, handles, on, upcasts


class OldAccount(Aggregate):
    """An account as the first code knew it: whole units, one currency."""

    class Opened(Aggregate.Created):
        """It exists."""

        stored_name = "Account.Opened"
        owner: str

    class Credited(Aggregate.Event):
        """Version 1."""

        stored_name = "Account.Credited"
        amount: int

    class Greeted(Aggregate.Event):
        """Gone in the new code."""

        stored_name = "Account.Greeted"
        words: str

    @event(Opened)
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.amount = 0

    @event(Credited)
    def credit(self, amount: int) -> None:
        """Take money."""
        self.amount += amount

    @event(Greeted)
    def greet(self, words: str) -> None:
        """Say something."""


class OldCredit(Command):
    """Open the account if need be, greet, and put money into it."""

    account_id: UUID
    amount: int


@handles(OldCredit)
def old_credit(command: OldCredit, repository: Repository) -> int:
    """As told."""
    account = repository.find(OldAccount, command.account_id)
    account = account or repository.create(OldAccount, command.account_id, owner="Ann")
    account.greet("hello")
    account.credit(command.amount)
    return account.amount


class Account(Aggregate):
    """An account as it is now: cents, and a currency."""

    class Opened(Aggregate.Created):
        """It exists."""

        owner: str

    class Credited(Aggregate.Event, version=3):
        """Version 2 had cents, version 3 has a currency."""

        cents: int
        currency: str

    @event(Opened)
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.cents = 0

    @event(Credited)
    def credit(self, cents: int, currency: str) -> None:
        """Take money."""
        self.cents += cents


@upcasts(Account.Credited, from_version=1)
def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    """Whole units were meant."""
    return {"cents": 100 * data["amount"]}


@upcasts(Account.Credited, from_version=2)
def in_euro(data: dict[str, Any]) -> dict[str, Any]:
    """There was but one currency."""
    return {**data, "currency": "EUR"}


class Credit(Command):
    """Put money into an account."""

    account_id: UUID
    cents: int


@handles(Credit)
def credit(command: Credit, repository: Repository) -> int:
    """As told."""
    account = repository.get(Account, command.account_id)
    account.credit(command.cents, "EUR")
    return account.cents


class Balance(msgspec.Struct, frozen=True):
    """What an account has, and in how many steps it came."""

    cents: int
    currencies: list[str]


class Balances(Projection):
    """By account."""

    document = Balance

    @on(Account.Opened, creates=True)
    def opened(self, balance: None, event: Account.Opened, at: RecordedEvent) -> Balance:
        """Begin with nothing."""
        return Balance(0, [])

    @on(Account.Credited)
    def credited(self, balance: Balance, event: Account.Credited, at: RecordedEvent) -> Balance:
        """Add up; the type stays what was stored."""
        return Balance(balance.cents + event.cents, [*balance.currencies, f"{event.currency} of {at.type}"])


class OldBalances(Projection):
    """By account, as the first code had it."""

    document = Balance

    @on(OldAccount.Credited)
    def credited(self, balance: Balance | None, event: OldAccount.Credited, at: RecordedEvent) -> Balance:
        """Add up."""
        return Balance(event.amount * 100 + (0 if balance is None else balance.cents), [])


old_bank = Application("bank", aggregates=[OldAccount], handlers=[old_credit], projections=[OldBalances])
new_bank = Application(
    "bank",
    aggregates=[Account],
    handlers=[credit],
    projections=[Balances],
    upcasters=[in_cents, in_euro],
    retired=["Account.Greeted"],
)
