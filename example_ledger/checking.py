"""Proving the books: the ledger's invariants over the whole log, and over the documents made from it."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent, Runtime
from example_ledger.accounts import Account, CountersChanged, MoneyMoved
from example_ledger.money import AMOUNT_MAX, Direction, Leg, available_of, balance_of
from example_ledger.transfer_checking import Changes, TransferChecker
from example_ledger.transfers import Transfer

__all__ = ["CheckReport", "LogChecker", "Violation", "check_books"]

VIOLATIONS_MAX = 100
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")
AccountEvent = Account.Frozen | Account.Unfrozen | Account.Closed | Account.OverdraftLimitSet | Account.MetadataSet
TRANSFER_EVENTS = (Transfer.Posted, Transfer.Held, Transfer.Captured, Transfer.Voided, Transfer.Expired)


class Violation(msgspec.Struct, frozen=True):
    """One broken invariant, where in the log, and how. `invariant` is its number in the documentation of the ledger."""

    invariant: int
    position: int
    message: str


class CheckReport(msgspec.Struct):
    """What was looked at, and what was found wrong (the first 100)."""

    events: int = 0
    accounts: int = 0
    transfers: int = 0
    documents: dict[str, int] = {}
    violations: list[Violation] = []


class _Account(msgspec.Struct):
    opened: Account.Opened
    counters: dict[str, int]
    limit: int | None
    closed: bool = False

    @property
    def available(self) -> int:
        debits, credits_, debits_pending, credits_pending = (self.counters[name] for name in COUNTERS)
        balance = balance_of(self.opened.type, debits, credits_)
        return available_of(self.opened.type, balance, debits_pending, credits_pending)


class LogChecker:
    """Takes the events of a log in order (`take`), then is asked for what is wrong with them (`violations`)."""

    def __init__(self) -> None:
        self.accounts: dict[UUID, _Account] = {}
        self.transfers = TransferChecker(self._found)
        self.violations: list[Violation] = []
        self.position = 0
        self._versions: dict[UUID, int] = {}
        self._changes: defaultdict[UUID, Changes] = defaultdict(Changes)
        self._available_before: dict[UUID, int] = {}
        self._excess: defaultdict[tuple[str, str], int] = defaultdict(int)

    def take(self, at: RecordedEvent, event: Any) -> None:
        """Look at the next event."""
        if at.position != self.position + 1:
            self._found(9, at, f"position {at.position} follows {self.position}")
        self.position = at.position
        version = self._versions.get(at.stream_id, 0) + 1
        if at.stream_version != version:
            self._found(9, at, f"stream {at.stream_id} has version {at.stream_version} where {version} is due")
        self._versions[at.stream_id] = at.stream_version
        if isinstance(event, Account.Opened):
            self.accounts[at.stream_id] = _Account(event, dict.fromkeys(COUNTERS, 0), event.overdraft_limit)
        elif isinstance(event, AccountEvent):
            self._take_account_event(at, event)
        elif isinstance(event, CountersChanged):
            self._take_change(at, event)
        elif isinstance(event, Transfer.Reversed):
            self.transfers.take(at, event, Changes())
        elif isinstance(event, TRANSFER_EVENTS):
            self.transfers.take(at, event, self._changes.pop(at.stream_id, Changes()))
            self._end_transfer(at)

    def finish(self) -> None:
        """The log has ended: no movement may be left without its transfer."""
        for transfer_id in self._changes:
            self._report(Violation(2, self.position, f"movements of {transfer_id} have no transfer"))
        for message in self.transfers.finish():
            self._report(Violation(7, self.position, message))

    def _take_change(self, at: RecordedEvent, event: CountersChanged) -> None:
        account = self.accounts.get(at.stream_id)
        if account is None:
            self._found(8, at, f"account {at.stream_id} was never opened")
            return
        if account.closed:
            self._found(8, at, f"account {at.stream_id} is closed and takes a movement of {event.transfer_id}")
        direction, changes = _direction_of(event), self._changes[event.transfer_id]
        leg = Leg(at.stream_id, direction, event.amount)
        kind, amount = "posted", event.amount
        if isinstance(event, MoneyMoved):
            changes.moved.append(leg)
            self._check_kind(at, event, account)
        elif isinstance(event, Account.HoldReleased):
            kind, amount = "pending", -event.amount
            changes.released.append(leg)
        else:
            kind = "pending"
            changes.held.append(leg)
        currency = account.opened.currency
        changes.currencies.add(currency)
        self._excess[currency, kind] += amount if direction == "debit" else -amount
        self._available_before.setdefault(at.stream_id, account.available)
        self._check_counters(at, event, account, f"{direction}s_{kind}", amount)

    def _take_account_event(self, at: RecordedEvent, event: AccountEvent) -> None:
        account = self.accounts.get(at.stream_id)
        if account is None:
            self._found(8, at, f"account {at.stream_id} was never opened")
            return
        if account.closed and not isinstance(event, Account.MetadataSet):
            self._found(8, at, f"account {at.stream_id} was closed before")
        if isinstance(event, Account.OverdraftLimitSet):
            account.limit = event.overdraft_limit
            if account.limit is not None and account.available < -account.limit:
                self._found(4, at, f"account {at.stream_id} has {account.available} available, its limit is lower")
        elif isinstance(event, Account.Closed):
            account.closed = True
            if account.available or account.counters["debits_pending"] or account.counters["credits_pending"]:
                self._found(8, at, f"account {at.stream_id} is closed with {account.counters}")

    def _check_counters(
        self, at: RecordedEvent, event: CountersChanged, account: _Account, changed: str, amount: int
    ) -> None:
        expected = {**account.counters, changed: account.counters[changed] + amount}
        found = {name: getattr(event, name) for name in COUNTERS}
        if found != expected:
            self._found(3, at, f"the counters of account {at.stream_id} are {found}, {expected} is due")
        if not all(0 <= value <= AMOUNT_MAX for value in found.values()):
            self._found(3, at, f"a counter of account {at.stream_id} is out of range: {found}")
        account.counters = found

    def _check_kind(self, at: RecordedEvent, event: MoneyMoved, account: _Account) -> None:
        opened = account.opened
        if (event.account_type, event.currency) != (opened.type, opened.currency):
            self._found(
                1, at, f"account {at.stream_id} is {opened.type} in {opened.currency}, the event says otherwise"
            )

    def _end_transfer(self, at: RecordedEvent) -> None:
        """A decision over several accounts is complete: now limits hold, and both sides of the books are equal."""
        for account_id, before in self._available_before.items():
            account = self.accounts[account_id]
            limit, available = account.limit, account.available
            if limit is not None and available < before and available < -limit:
                self._found(4, at, f"account {account_id} has {available} available, its limit is {limit}")
        self._available_before.clear()
        if self._changes or any(self._excess.values()):
            open_ids = ", ".join(str(each) for each in list(self._changes)[:3]) or "none is open"
            self._found(2, at, f"at the end of transfer {at.stream_id} debits and credits differ: {open_ids}")
            self._excess.clear()

    def _found(self, invariant: int, at: RecordedEvent, message: str) -> None:
        self._report(Violation(invariant, at.position, message))

    def _report(self, violation: Violation) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)


def _direction_of(event: CountersChanged) -> Direction:
    if isinstance(event, Account.HoldReleased):
        return event.direction
    return "debit" if isinstance(event, Account.Debited | Account.DebitHeld) else "credit"


async def check_books(
    runtime: Runtime, *, documents: bool = True, on_progress: Callable[[int, int], None] = lambda *_: None
) -> CheckReport:
    """Read the log up to its head of now and check all invariants; with `documents`, those of the read models too.

    The projections must have reached the head. `on_progress` is told the position and the head.
    """
    head = await runtime.event_store.head()
    checker = LogChecker()
    registry = runtime.application.registry
    position = 0
    while position < head:
        block = await runtime.event_store.read(position, min(runtime.settings.block_size_max, head - position))
        for recorded in block.events:
            checker.take(recorded, registry.decode(recorded))
        position = block.until
        on_progress(position, head)
    if checker.position != head:
        checker.violations.append(Violation(9, head, f"the log ends at position {checker.position}, not at its head"))
    checker.finish()
    report = CheckReport(checker.position, len(checker.accounts), len(checker.transfers), {}, checker.violations)
    if documents:
        await _check_documents(runtime, report, head)
    return report


async def _check_documents(runtime: Runtime, report: CheckReport, head: int) -> None:
    for projection in runtime.application.projections:
        verifier = await runtime.verifier(projection, until=head)
        async for difference in verifier.differences():
            if len(report.violations) < VIOLATIONS_MAX:
                message = f"{difference.projection} {difference.id} is {difference.found}, {difference.expected} is due"
                report.violations.append(Violation(10, head, message))
        report.documents[projection.name] = await runtime.read_store.count(await runtime.reader.index(projection))
