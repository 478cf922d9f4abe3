"""Proving the books: the ledger's invariants over the whole log, and over the documents made from it."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent, Runtime
from example_ledger.accounts import Account, MoneyMoved
from example_ledger.money import AMOUNT_MAX, available_of, balance_of
from example_ledger.transfers import Transfer

__all__ = ["CheckReport", "LogChecker", "Violation", "check_books"]

VIOLATIONS_MAX = 100
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")


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


class LogChecker:
    """Takes the events of a log in order (`take`), then is asked for what is wrong with them (`violations`)."""

    def __init__(self) -> None:
        self.accounts: dict[UUID, _Account] = {}
        self.transfers: set[UUID] = set()
        self.violations: list[Violation] = []
        self.position = 0
        self._versions: dict[UUID, int] = {}
        self._open_sides: dict[UUID, dict[str, list[tuple[UUID, int, str]]]] = defaultdict(lambda: defaultdict(list))

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
            self.accounts[at.stream_id] = _Account(event, dict.fromkeys(COUNTERS, 0))
        elif isinstance(event, MoneyMoved):
            self._take_movement(at, event)
        elif isinstance(event, Transfer.Posted):
            self._take_transfer(at, event)

    def finish(self) -> None:
        """The log has ended: no movement may be left without its transfer."""
        for transfer_id in self._open_sides:
            self._report(Violation(2, self.position, f"movements of {transfer_id} have no transfer"))

    def _take_movement(self, at: RecordedEvent, event: MoneyMoved) -> None:
        account = self.accounts.get(at.stream_id)
        if account is None:
            self._found(8, at, f"account {at.stream_id} was never opened")
            return
        side = "debits_posted" if isinstance(event, Account.Debited) else "credits_posted"
        expected = {**account.counters, side: account.counters[side] + event.amount}
        found = {name: getattr(event, name) for name in COUNTERS}
        if found != expected:
            self._found(3, at, f"the counters of account {at.stream_id} are {found}, {expected} is due")
        if not all(0 <= value <= AMOUNT_MAX for value in found.values()):
            self._found(3, at, f"a counter of account {at.stream_id} is out of range: {found}")
        self._check_limit(at, event, account, side)
        account.counters = found
        self._open_sides[event.transfer_id][side].append((at.stream_id, event.amount, event.currency))

    def _check_limit(self, at: RecordedEvent, event: MoneyMoved, account: _Account, side: str) -> None:
        opened = account.opened
        if (event.account_type, event.currency) != (opened.type, opened.currency):
            self._found(
                1, at, f"account {at.stream_id} is {opened.type} in {opened.currency}, the event says otherwise"
            )
        reduces = (side == "credits_posted") == (opened.type in ("asset", "expense"))
        balance = balance_of(opened.type, event.debits_posted, event.credits_posted)
        available = available_of(opened.type, balance, event.debits_pending, event.credits_pending)
        if reduces and opened.overdraft_limit is not None and available < -opened.overdraft_limit:
            self._found(
                4, at, f"account {at.stream_id} has {available} available, its limit is {opened.overdraft_limit}"
            )

    def _take_transfer(self, at: RecordedEvent, event: Transfer.Posted) -> None:
        if at.stream_id in self.transfers:
            self._found(6, at, f"transfer {at.stream_id} was posted before")
        self.transfers.add(at.stream_id)
        sides = self._open_sides.pop(at.stream_id, {})
        expected = {
            "debits_posted": [(event.debit_account_id, event.amount, event.currency)],
            "credits_posted": [(event.credit_account_id, event.amount, event.currency)],
        }
        if dict(sides) != expected:
            self._found(1, at, f"transfer {at.stream_id} moved {dict(sides)}, {expected} is due")
        if self._open_sides:
            others = ", ".join(str(each) for each in list(self._open_sides)[:3])
            self._found(2, at, f"at the end of transfer {at.stream_id} debits and credits differ: {others} is open")

    def _found(self, invariant: int, at: RecordedEvent, message: str) -> None:
        self._report(Violation(invariant, at.position, message))

    def _report(self, violation: Violation) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)


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
