"""What the ledger is asked: the directory of accounts, statements, and the trial balance."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import Indexed, Projection, RecordedEvent, Text, Unindexed, on
from example_ledger.accounts import Account, CountersChanged, MoneyMoved
from example_ledger.money import AccountStatus, AccountType, Currency, Direction, available_of, balance_of

__all__ = [
    "AccountDocument",
    "Accounts",
    "Moving",
    "SideTotals",
    "StatementLine",
    "StatementLines",
    "TrialBalance",
    "TrialBalances",
]


StatusChanged = Account.Frozen | Account.Unfrozen | Account.Closed
STATUS_AFTER: dict[type[StatusChanged], AccountStatus] = {
    Account.Frozen: "frozen",
    Account.Unfrozen: "open",
    Account.Closed: "closed",
}


def _searchable(metadata: dict[str, str]) -> str:
    return " ".join(f"{key} {value}" for key, value in sorted(metadata.items()))


class AccountDocument(msgspec.Struct, frozen=True):
    """One account with its current counters."""

    account_id: UUID
    name: Annotated[str, Text(keyword=True), Indexed()]
    type: AccountType
    currency: Currency
    status: AccountStatus
    balance: Annotated[int, Indexed()]
    available: int
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    overdraft_limit: int | None
    metadata: dict[str, str]
    metadata_text: Annotated[str, Text()]
    opened_at: Annotated[datetime, Indexed()]


class Accounts(Projection):
    """The directory of accounts, by account id."""

    document = AccountDocument

    @on(Account.Opened, creates=True)
    def opened(self, account: None, event: Account.Opened, at: RecordedEvent) -> AccountDocument:
        """Begin with nothing on either side."""
        return AccountDocument(
            account_id=at.stream_id,
            name=event.name,
            type=event.type,
            currency=event.currency,
            status="open",
            balance=0,
            available=0,
            debits_posted=0,
            credits_posted=0,
            debits_pending=0,
            credits_pending=0,
            overdraft_limit=event.overdraft_limit,
            metadata=event.metadata,
            metadata_text=_searchable(event.metadata),
            opened_at=at.recorded_at,
        )

    @on(Account.Debited, Account.Credited, Account.DebitHeld, Account.CreditHeld, Account.HoldReleased)
    def moved(self, account: AccountDocument, event: CountersChanged, at: RecordedEvent) -> AccountDocument:
        """Take over the counters after the event."""
        balance = balance_of(account.type, event.debits_posted, event.credits_posted)
        return msgspec.structs.replace(
            account,
            balance=balance,
            available=available_of(account.type, balance, event.debits_pending, event.credits_pending),
            debits_posted=event.debits_posted,
            credits_posted=event.credits_posted,
            debits_pending=event.debits_pending,
            credits_pending=event.credits_pending,
        )

    @on(Account.Frozen, Account.Unfrozen, Account.Closed)
    def status_changed(self, account: AccountDocument, event: StatusChanged, at: RecordedEvent) -> AccountDocument:
        """Show what may be done with it."""
        return msgspec.structs.replace(account, status=STATUS_AFTER[type(event)])

    @on(Account.OverdraftLimitSet)
    def limit_set(
        self, account: AccountDocument, event: Account.OverdraftLimitSet, at: RecordedEvent
    ) -> AccountDocument:
        """Show the new limit."""
        return msgspec.structs.replace(account, overdraft_limit=event.overdraft_limit)

    @on(Account.MetadataSet)
    def metadata_set(self, account: AccountDocument, event: Account.MetadataSet, at: RecordedEvent) -> AccountDocument:
        """Show the new metadata, and find the account by them."""
        return msgspec.structs.replace(account, metadata=event.metadata, metadata_text=_searchable(event.metadata))


class StatementLine(msgspec.Struct, frozen=True):
    """One movement of one account, with the balance after it."""

    account_id: UUID
    position: Annotated[int, Indexed(within="account_id")]
    transfer_id: UUID
    direction: Direction
    amount: int
    balance: int
    counterparty_account_id: UUID | None
    description: Annotated[str | None, Unindexed()]
    effective_at: Annotated[datetime, Indexed(within="account_id")]
    recorded_at: datetime


def _line_id(_: MoneyMoved, at: RecordedEvent) -> str:
    return f"{at.stream_key}:{at.position}"


class StatementLines(Projection):
    """One line for each event that moves money, by account id and position."""

    document = StatementLine

    @on(Account.Debited, key=_line_id, creates=True)
    def debited(self, line: None, event: MoneyMoved, at: RecordedEvent) -> StatementLine:
        """A line of the debit side."""
        return _line("debit", event, at)

    @on(Account.Credited, key=_line_id, creates=True)
    def credited(self, line: None, event: MoneyMoved, at: RecordedEvent) -> StatementLine:
        """A line of the credit side."""
        return _line("credit", event, at)


def _line(direction: Direction, event: MoneyMoved, at: RecordedEvent) -> StatementLine:
    return StatementLine(
        account_id=at.stream_id,
        position=at.position,
        transfer_id=event.transfer_id,
        direction=direction,
        amount=event.amount,
        balance=balance_of(event.account_type, event.debits_posted, event.credits_posted),
        counterparty_account_id=event.counterparty_account_id,
        description=event.description,
        effective_at=event.effective_at,
        recorded_at=at.recorded_at,
    )


class SideTotals(msgspec.Struct, frozen=True):
    """Sums of both sides."""

    debits: int = 0
    credits: int = 0


class Moving(msgspec.Struct, frozen=True):
    """Legs of a transfer whose other legs are still to come."""

    transfer_id: UUID
    totals: SideTotals
    by_type: dict[str, SideTotals]


class TrialBalance(msgspec.Struct, frozen=True):
    """All that was posted in one currency: exact whole numbers, which may exceed 64 bits.

    A block of the log may end, and this be read, between the two sides of a transfer. So what is `moving` is added when
    it is all there. What is not when the next transfer begins never will be: it is added as it is, and sides differ.
    """

    currency: Currency
    totals: Annotated[SideTotals, Unindexed()]
    by_type: Annotated[dict[str, SideTotals], Unindexed()]
    moving: Annotated[Moving | None, Unindexed()] = None


def _currency(event: MoneyMoved, _: RecordedEvent) -> str:
    return event.currency


class TrialBalances(Projection):
    """The trial balance, by currency, of transfers that are there as a whole."""

    document = TrialBalance

    @on(Account.Debited, key=_currency)
    def debited(self, trial: TrialBalance | None, event: MoneyMoved, at: RecordedEvent) -> TrialBalance:
        """Add to the debits."""
        return _added(trial, event, debit=event.amount)

    @on(Account.Credited, key=_currency)
    def credited(self, trial: TrialBalance | None, event: MoneyMoved, at: RecordedEvent) -> TrialBalance:
        """Add to the credits."""
        return _added(trial, event, credit=event.amount)


NOTHING = SideTotals()


def _added(trial: TrialBalance | None, event: MoneyMoved, *, debit: int = 0, credit: int = 0) -> TrialBalance:
    if trial is None:
        trial = TrialBalance(event.currency, NOTHING, {})
    moving = trial.moving
    if moving is not None and moving.transfer_id != event.transfer_id:
        trial, moving = _settled(trial, moving), None
    totals, by_type = (NOTHING, {}) if moving is None else (moving.totals, moving.by_type)
    of_type = by_type.get(event.account_type, NOTHING)
    moving = Moving(
        event.transfer_id,
        SideTotals(totals.debits + debit, totals.credits + credit),
        {**by_type, event.account_type: SideTotals(of_type.debits + debit, of_type.credits + credit)},
    )
    if moving.totals.debits == moving.totals.credits:
        return _settled(trial, moving)
    return TrialBalance(trial.currency, trial.totals, trial.by_type, moving)


def _settled(trial: TrialBalance, moved: Moving) -> TrialBalance:
    by_type = dict(trial.by_type)
    for account_type, sums in moved.by_type.items():
        by_type[account_type] = _sum(by_type.get(account_type, NOTHING), sums)
    return TrialBalance(trial.currency, _sum(trial.totals, moved.totals), by_type)


def _sum(one: SideTotals, other: SideTotals) -> SideTotals:
    return SideTotals(one.debits + other.debits, one.credits + other.credits)
