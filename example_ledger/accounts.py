"""Accounts: the aggregate, its events, and how one is opened."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import Aggregate, AggregateExists, Command, Repository, event, handles, new_id
from example_ledger.money import (
    AMOUNT_MAX,
    AccountStatus,
    AccountType,
    Currency,
    Direction,
    StoredCurrency,
    available_of,
    balance_of,
    is_debit_normal,
)
from example_ledger.refusals import AmountOverflow, InsufficientFunds

__all__ = [
    "Account",
    "CountersChanged",
    "Metadata",
    "MoneyMoved",
    "Name",
    "OpenAccount",
    "Opening",
    "PendingChanged",
    "open_account",
]

WITHOUT_NUL = "^[^\\x00]*$"
WITHOUT_NUL_IN_WORDS = {"in_words": "a text without the character NUL"}
Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=200, pattern=WITHOUT_NUL, examples=["Ann's savings"], extra=WITHOUT_NUL_IN_WORDS
    ),
]
Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=WITHOUT_NUL, extra=WITHOUT_NUL_IN_WORDS)],
        Annotated[str, msgspec.Meta(max_length=500, pattern=WITHOUT_NUL, extra=WITHOUT_NUL_IN_WORDS)],
    ],
    msgspec.Meta(max_length=50, description="at most 50 texts of your own, by name", examples=[{"city": "Bern"}]),
]
OverdraftLimit = Annotated[
    int, msgspec.Meta(ge=0, le=AMOUNT_MAX, description="minor units that it may be overdrawn by", examples=[50_000])
]


class MoneyMoved(Aggregate.Event):
    """One side of a posting, with the account's counters after it, so that a statement line needs no other state."""

    transfer_id: UUID
    amount: int
    currency: StoredCurrency
    account_type: AccountType
    counterparty_account_id: UUID | None
    effective_at: datetime
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    description: str | None = None

    def apply(self, aggregate: "Account") -> None:
        """Take the counters over."""
        aggregate.debits_posted = self.debits_posted
        aggregate.credits_posted = self.credits_posted


class PendingChanged(Aggregate.Event):
    """One side of a hold that is placed or released, with the account's counters after it."""

    transfer_id: UUID
    amount: int
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int

    def apply(self, aggregate: "Account") -> None:
        """Take the counters over."""
        aggregate.debits_pending = self.debits_pending
        aggregate.credits_pending = self.credits_pending


CountersChanged = MoneyMoved | PendingChanged
"""Any event that carries the account's counters after it."""


class Account(Aggregate):
    """One account. Its posted counters only grow, and all counters only by its events."""

    name: Name
    type: AccountType
    currency: Currency
    overdraft_limit: int | None
    overdraft_limit_at_opening: int | None
    metadata: Metadata
    metadata_at_opening: Metadata
    status: AccountStatus
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int

    class Opened(Aggregate.Created):
        """The account exists."""

        name: Name
        type: AccountType
        currency: StoredCurrency
        overdraft_limit: int | None
        metadata: Metadata

    class Debited(MoneyMoved):
        """The debit side of a posting."""

    class Credited(MoneyMoved):
        """The credit side of a posting."""

    class DebitHeld(PendingChanged):
        """The debit side of a hold: money set aside."""

    class CreditHeld(PendingChanged):
        """The credit side of a hold: money expected."""

    class HoldReleased(PendingChanged):
        """A hold on one side is no more: it was captured, voided, or has expired."""

        direction: Direction

    class Frozen(Aggregate.Event):
        """Nothing moves until it is unfrozen."""

    class Unfrozen(Aggregate.Event):
        """It takes movements again."""

    class Closed(Aggregate.Event):
        """It was empty, and takes no movements any more."""

    class OverdraftLimitSet(Aggregate.Event):
        """It may be overdrawn so far from now on; null: without limit."""

        overdraft_limit: int | None

    class MetadataSet(Aggregate.Event):
        """It is described by this from now on."""

        metadata: Metadata

    @event(Opened)
    def __init__(
        self, name: Name, type: AccountType, currency: Currency, overdraft_limit: int | None, metadata: Metadata
    ) -> None:
        self.name = name
        self.type = type
        self.currency = currency
        self.overdraft_limit = self.overdraft_limit_at_opening = overdraft_limit
        self.metadata = self.metadata_at_opening = metadata
        self.status = "open"
        self.debits_posted = 0
        self.credits_posted = 0
        self.debits_pending = 0
        self.credits_pending = 0

    @event(Frozen)
    def freeze(self) -> None:
        """Let nothing move."""
        self.status = "frozen"

    @event(Unfrozen)
    def unfreeze(self) -> None:
        """Take movements again."""
        self.status = "open"

    @event(Closed)
    def close(self) -> None:
        """Take no movements any more."""
        self.status = "closed"

    @event(OverdraftLimitSet)
    def set_overdraft_limit(self, overdraft_limit: int | None) -> None:
        """Take another limit; checks come before."""
        self.overdraft_limit = overdraft_limit

    @event(MetadataSet)
    def set_metadata(self, metadata: Metadata) -> None:
        """Take other metadata."""
        self.metadata = metadata

    @property
    def balance(self) -> int:
        """What the account has."""
        return balance_of(self.type, self.debits_posted, self.credits_posted)

    @property
    def available(self) -> int:
        """What it has beyond its holds."""
        return available_of(self.type, self.balance, self.debits_pending, self.credits_pending)

    def check_funds(self, *, debit: int = 0, credit: int = 0) -> None:
        """Refuse what would bring available below the overdraft limit; what adds to it is never refused."""
        reduction = credit if is_debit_normal(self.type) else debit
        if reduction and self.overdraft_limit is not None and self.available - reduction < -self.overdraft_limit:
            raise InsufficientFunds(self.id, self.available, self.overdraft_limit)

    def check_counters(self, *, debit: int = 0, credit: int = 0) -> None:
        """Refuse what no counter can hold, also once all holds are captured; so a capture always has room."""
        if (
            self.debits_posted + self.debits_pending + debit > AMOUNT_MAX
            or self.credits_posted + self.credits_pending + credit > AMOUNT_MAX
        ):
            raise AmountOverflow(self.id)

    def move(
        self,
        direction: Direction,
        amount: int,
        *,
        transfer_id: UUID,
        counterparty: UUID | None,
        effective_at: datetime,
        description: str | None,
    ) -> None:
        """Move `amount` on one side; checks come before."""
        debit, credit = (amount, 0) if direction == "debit" else (0, amount)
        self.trigger_event(
            self.Debited if debit else self.Credited,
            transfer_id=transfer_id,
            amount=amount,
            currency=self.currency,
            account_type=self.type,
            counterparty_account_id=counterparty,
            effective_at=effective_at,
            debits_posted=self.debits_posted + debit,
            credits_posted=self.credits_posted + credit,
            debits_pending=self.debits_pending,
            credits_pending=self.credits_pending,
            description=description,
        )

    def hold(self, direction: Direction, amount: int, transfer_id: UUID) -> None:
        """Set `amount` aside on one side; checks come before."""
        held = self.DebitHeld if direction == "debit" else self.CreditHeld
        self.trigger_event(held, transfer_id=transfer_id, amount=amount, **self._counters_after(direction, amount))

    def release(self, direction: Direction, amount: int, transfer_id: UUID) -> None:
        """Give back the `amount` that a hold has set aside on one side."""
        counters = self._counters_after(direction, -amount)
        self.trigger_event(self.HoldReleased, transfer_id=transfer_id, amount=amount, direction=direction, **counters)

    def _counters_after(self, direction: Direction, pending: int) -> dict[str, int]:
        debit, credit = (pending, 0) if direction == "debit" else (0, pending)
        return {
            "debits_posted": self.debits_posted,
            "credits_posted": self.credits_posted,
            "debits_pending": self.debits_pending + debit,
            "credits_pending": self.credits_pending + credit,
        }


class OpenAccount(Command):
    """Open an account. Without an `overdraft_limit` of its own it may not be overdrawn; null: without limit."""

    account_id: UUID = msgspec.field(default_factory=new_id)
    name: Name
    type: AccountType
    currency: Currency
    overdraft_limit: OverdraftLimit | None = 0
    metadata: Metadata = {}

    def idempotency_key(self) -> str:
        """The account's id."""
        return f"account:{self.account_id}"

    def new_ids(self) -> tuple[UUID, ...]:
        """The account's id."""
        return (self.account_id,)


class Opening(msgspec.Struct, frozen=True):
    """The reply to `OpenAccount`."""

    account_id: UUID


@handles(OpenAccount, sees_key_conflicts=True)
def open_account(command: OpenAccount, repository: Repository) -> Opening:
    """Open the account; AggregateExists for another account of this id.

    A retry gets the first reply from its receipt; without one it is recognised by what the account was opened with.
    """
    if repository.conflicting_field is not None:
        raise _exists(command.account_id, repository.conflicting_field)
    existing = repository.find(Account, command.account_id)
    if existing is None:
        repository.create(
            Account,
            command.account_id,
            name=command.name,
            type=command.type,
            currency=command.currency,
            overdraft_limit=command.overdraft_limit,
            metadata=command.metadata,
        )
        return Opening(command.account_id)
    opened_with = {
        "name": existing.name,
        "type": existing.type,
        "currency": existing.currency,
        "overdraft_limit": existing.overdraft_limit_at_opening,
        "metadata": existing.metadata_at_opening,
    }
    for field, value in opened_with.items():
        if getattr(command, field) != value:
            raise _exists(command.account_id, field)
    return Opening(command.account_id)


def _exists(account_id: UUID, differing_field: str) -> AggregateExists:
    refusal = AggregateExists("Account", account_id)
    refusal.details["field"] = differing_field
    return refusal
