"""Proving accounts: each event moves the counters by its amount, on an account that could take it, within its limit."""

from collections import defaultdict
from datetime import datetime
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent
from example_ledger.accounts import Account, CountersChanged, MoneyMoved
from example_ledger.findings import Findings
from example_ledger.money import AMOUNT_MAX, AccountStatus, AccountType, Direction, Leg, available_of, balance_of
from example_ledger.scratch import Records, Scratch

__all__ = ["COUNTERS", "AccountChecker", "Changes", "CheckedAccount"]

COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")
AccountChange = Account.Frozen | Account.Unfrozen | Account.Closed | Account.OverdraftLimitSet | Account.MetadataSet

Counters = tuple[int, int, int, int]
"""In the order of `COUNTERS`."""
PLACES: dict[tuple[str, Direction], int] = {
    ("posted", "debit"): 0,
    ("posted", "credit"): 1,
    ("pending", "debit"): 2,
    ("pending", "credit"): 3,
}


class Changes(msgspec.Struct):
    """What the account events of one transfer have changed since its last own event, in their order.

    `movements` are the events of the legs in `moved`.
    """

    moved: list[Leg] = []
    held: list[Leg] = []
    released: list[Leg] = []
    movements: list[MoneyMoved] = []
    currencies: set[str] = set()


class CheckedAccount(msgspec.Struct, array_like=True):
    """What is remembered of an account."""

    type: AccountType
    currency: str
    limit: int | None
    begun: int
    began_at: datetime
    version: int = 1
    status: AccountStatus = "open"
    values: Counters = (0, 0, 0, 0)

    @property
    def counters(self) -> dict[str, int]:
        """The four counters by their names."""
        return dict(zip(COUNTERS, self.values, strict=True))

    @property
    def available(self) -> int:
        """What it has beyond its holds."""
        debits, credits_, debits_pending, credits_pending = self.values
        balance = balance_of(self.type, debits, credits_)
        return available_of(self.type, balance, debits_pending, credits_pending)


class AccountChecker:
    """Takes each event of an account; `end_decision` says that all events of one decision were taken.

    `changes` are the movements whose transfer has not come yet, by its id.
    """

    def __init__(self, findings: Findings, scratch: Scratch, held_max: int) -> None:
        self.accounts = Records(scratch, "accounts", CheckedAccount, held_max)
        self.count = 0
        self.changes: dict[UUID, Changes] = {}
        self._findings = findings
        self._available_before: dict[UUID, int] = {}
        self._excess: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])

    def open(self, at: RecordedEvent, event: Account.Opened) -> None:
        """Look at the first event of an account."""
        before = self.accounts.get(at.stream_id)
        if before is None:
            self.count += 1
            self._check_version(at, 1)
            limit = event.overdraft_limit
            self.accounts[at.stream_id] = CheckedAccount(
                event.type, event.currency, limit, at.position, at.recorded_at, at.stream_version
            )
            return
        self._take_version(at, before)
        self._found("account_opened_again", at, "opened", f"its one opening, at position {before.begun}")

    def change(self, at: RecordedEvent, event: AccountChange) -> None:
        """Look at an event that moves nothing."""
        account = self.accounts.get(at.stream_id)
        if account is None:
            self._found("account_unknown", at, type(event).__name__, "Account.Opened first")
            return
        self._take_version(at, account)
        if account.status == "closed" and not isinstance(event, Account.MetadataSet):
            self._found("account_not_open", at, type(event).__name__, "no change, as the account is closed")
        if isinstance(event, Account.OverdraftLimitSet):
            account.limit = event.overdraft_limit
            if account.limit is not None and account.available < -account.limit:
                self._found("below_limit", at, f"{account.available} available", f"at least {-account.limit}")
        elif isinstance(event, Account.Closed):
            account.status = "closed"
            if account.available or account.values[2] or account.values[3]:
                self._found("account_closed_with_money", at, account.counters, "a balance of 0 and no holds")
        elif isinstance(event, Account.Frozen) and account.status == "open":
            account.status = "frozen"
        elif isinstance(event, Account.Unfrozen) and account.status == "frozen":
            account.status = "open"

    def move(self, at: RecordedEvent, event: CountersChanged) -> None:
        """Look at an event that moves, holds or releases money."""
        direction = _direction_of(event)
        amount, kind, is_release = event.amount, "pending", False
        changes = self.changes.get(event.transfer_id)
        if changes is None:
            changes = self.changes[event.transfer_id] = Changes()
        leg = Leg(at.stream_id, direction, amount)
        if isinstance(event, MoneyMoved):
            kind = "posted"
            changes.moved.append(leg)
            changes.movements.append(event)
        elif isinstance(event, Account.HoldReleased):
            is_release = True
            changes.released.append(leg)
        else:
            changes.held.append(leg)
        if not 1 <= amount <= AMOUNT_MAX:
            self._found("invalid_amount", at, amount, f"1 to {AMOUNT_MAX}")
        account = self.accounts.get(at.stream_id)
        if account is None:
            self._found("account_unknown", at, f"a movement of transfer {event.transfer_id}", "Account.Opened first")
            return
        self._take_version(at, account)
        if account.status == "closed" or (account.status == "frozen" and not is_release):
            found = f"{type(event).__name__} of transfer {event.transfer_id}"
            self._found("account_not_open", at, found, f"no movement, as the account is {account.status}")
        changes.currencies.add(account.currency)
        if at.stream_id not in self._available_before:
            self._available_before[at.stream_id] = account.available
        if isinstance(event, MoneyMoved) and (event.account_type, event.currency) != (account.type, account.currency):
            found = f"{event.account_type} in {event.currency}"
            self._found("currency_differs", at, found, f"{account.type} in {account.currency}, as it was opened")
        self._take_counters(at, event, account, PLACES[kind, direction], -amount if is_release else amount)

    def end_decision(self, at: RecordedEvent) -> None:
        """The last event of a decision was taken: limits hold, and both sides of the books are equal."""
        for account_id, before in self._available_before.items():
            account = self.accounts[account_id]
            limit, available = account.limit, account.available
            if limit is not None and available < before and available < -limit:
                subject = f"account {account_id}"
                self._findings.add("below_limit", at.position, subject, f"{available} available", f"at least {-limit}")
        self._available_before.clear()
        if self.changes:
            self.report_strays(at.position, f"those of transfer {at.stream_id}")
        for currency, (posted, pending) in self._excess.items():
            if posted or pending:
                found = f"posted debits exceed credits by {posted}, pending ones by {pending}"
                self._findings.add("books_unequal", at.position, f"all accounts in {currency}", found, "0 and 0")
        self._excess.clear()

    def report_strays(self, position: int, expected: str = "a transfer after them") -> None:
        """Movements whose transfer should have come by now."""
        for transfer_id, changes in self.changes.items():
            count = len(changes.moved) + len(changes.held) + len(changes.released)
            self._findings.add(
                "movements_without_transfer", position, f"transfer {transfer_id}", f"{count} account events", expected
            )
        self.changes.clear()

    def _take_counters(
        self, at: RecordedEvent, event: CountersChanged, account: CheckedAccount, place: int, amount: int
    ) -> None:
        before = account.values
        found = (event.debits_posted, event.credits_posted, event.debits_pending, event.credits_pending)
        due = list(before)
        due[place] += amount
        if found != tuple(due):
            self._found("counters_differ", at, found, f"{tuple(due)} ({', '.join(COUNTERS)})")
        if found[0] < before[0] or found[1] < before[1]:
            self._found("counter_falls", at, f"{found[:2]} posted", f"at least {before[:2]}")
        if min(found) < 0 or max(found) > AMOUNT_MAX:
            self._found("counter_out_of_range", at, found, f"each from 0 to {AMOUNT_MAX}")
        excess = self._excess[account.currency]
        excess[0] += (found[0] - before[0]) - (found[1] - before[1])
        excess[1] += (found[2] - before[2]) - (found[3] - before[3])
        account.values = found

    def _take_version(self, at: RecordedEvent, account: CheckedAccount) -> None:
        self._check_version(at, account.version + 1)
        account.version = at.stream_version

    def _check_version(self, at: RecordedEvent, due: int) -> None:
        if at.stream_version != due:
            self._found("version_gap", at, f"version {at.stream_version}", f"version {due}")

    def _found(self, kind: str, at: RecordedEvent, found: object, expected: object) -> None:
        self._findings.add(kind, at.position, f"account {at.stream_id}", found, expected)


def _direction_of(event: CountersChanged) -> Direction:
    if isinstance(event, Account.HoldReleased):
        return event.direction
    return "debit" if isinstance(event, Account.Debited | Account.DebitHeld) else "credit"
