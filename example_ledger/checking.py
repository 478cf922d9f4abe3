"""Proving the books: the ledger's invariants over the whole log, the receipts, and the documents made from it.

Memory stays flat: what is known of accounts, transfers and receipts is in a temporary file (`example_ledger.scratch`).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec

from cqrskit import CqrskitError, RecordedEvent, Runtime
from example_ledger.account_checking import COUNTERS, AccountChecker, Changes, CheckedAccount
from example_ledger.accounts import Account
from example_ledger.findings import Findings, Violation
from example_ledger.holds import due_key_of
from example_ledger.receipt_checking import ReceiptChecker
from example_ledger.scratch import Records, Scratch
from example_ledger.transfer_checking import TransferChecker
from example_ledger.transfers import Transfer

__all__ = ["COUNTERS", "CheckReport", "LogChecker", "Violation", "check_books"]

OVERDUE_GRACE = timedelta(minutes=1)
"""So long after its end a hold may still be held, though nothing is there to expire it."""
IDS_AT_ONCE = 500
RECEIPTS_AT_ONCE = 5_000
HELD_MAX = 20_000
TRIM_EVERY_EVENTS = 5_000

CHANGES = (Account.Frozen, Account.Unfrozen, Account.Closed, Account.OverdraftLimitSet, Account.MetadataSet)
MOVEMENTS = (Account.Debited, Account.Credited, Account.DebitHeld, Account.CreditHeld, Account.HoldReleased)
NOTHING = Changes()
TRANSFERS = (Transfer.Posted, Transfer.Held, Transfer.Captured, Transfer.Voided, Transfer.Expired)

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is done."""


class CheckReport(msgspec.Struct):
    """What was looked at, and what was found wrong: `counts` by kind, and the first `violations` of each kind."""

    events: int = 0
    accounts: int = 0
    transfers: int = 0
    receipts: int = 0
    documents: dict[str, int] = {}
    counts: dict[str, int] = {}
    violations: list[Violation] = []


class LogChecker:
    """Takes the events of a log in order (`take`), then is asked for what is wrong with them (`violations`).

    `receipts` are checked by those who note them before. It is a context, at whose end its temporary file is gone.
    """

    def __init__(self, *, held_max: int = HELD_MAX) -> None:
        """About `held_max` accounts, and as many transfers, are held in memory."""
        self.findings = Findings()
        self.position = 0
        self._trim_every_events = min(held_max, TRIM_EVERY_EVENTS)
        self._scratch = Scratch()
        self._accounts = AccountChecker(self.findings, self._scratch, held_max)
        self.transfers = TransferChecker(self.findings, self._scratch, held_max)
        known = self._accounts.accounts, self.transfers.transfers
        self.receipts = ReceiptChecker(self.findings, self._scratch, *known, held_max)
        take_change, take_movement, take_transfer = self._accounts.change, self._accounts.move, self._take_transfer
        self._takers: dict[type, Callable[[RecordedEvent, Any], None]] = {
            Account.Opened: self._accounts.open,
            **dict.fromkeys(CHANGES, take_change),
            **dict.fromkeys(MOVEMENTS, take_movement),
            **dict.fromkeys(TRANSFERS, take_transfer),
            Transfer.Reversed: self._take_reversal,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    @property
    def violations(self) -> list[Violation]:
        """The first of each kind that were found so far."""
        return self.findings.violations

    @property
    def accounts(self) -> Records[CheckedAccount]:
        """What is known of each account."""
        return self._accounts.accounts

    @property
    def account_count(self) -> int:
        """How many accounts were opened."""
        return self._accounts.count

    def take(self, at: RecordedEvent, event: Any) -> None:
        """Look at the next event."""
        self._take_position(at)
        taker = self._takers.get(type(event))
        if taker is not None:
            taker(at, event)
        if at.position % self._trim_every_events == 0:
            self._accounts.accounts.trim()
            self.transfers.trim()

    def take_unreadable(self, at: RecordedEvent, reason: str) -> None:
        """Look at the next event, which cannot be decoded."""
        self._take_position(at)
        expected = "an event that can be read"
        self.findings.add("unreadable_event", at.position, f"stream {at.stream_id}", reason, expected)

    def finish(self) -> None:
        """The log has ended: no movement may be left without its transfer, no reversal without its posting."""
        self._accounts.report_strays(self.position)
        self.transfers.finish()

    def _take_position(self, at: RecordedEvent) -> None:
        if at.position != self.position + 1:
            self.findings.add("position_gap", at.position, "the log", at.position, self.position + 1)
        self.position = at.position

    def _take_transfer(self, at: RecordedEvent, event: Any) -> None:
        """The last event of a decision."""
        self.transfers.take(at, event, self._accounts.changes.pop(at.stream_id, NOTHING))
        self._accounts.end_decision(at)

    def _take_reversal(self, at: RecordedEvent, event: Any) -> None:
        """The decision goes on with the posting of the reversal, to which the movements before it belong."""
        self.transfers.take(at, event, self._accounts.changes.pop(at.stream_id, NOTHING))


async def check_books(
    runtime: Runtime,
    *,
    documents: bool = True,
    on_progress: Progress = lambda *_: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CheckReport:
    """Read the log up to its head of now and check all invariants; with `documents`, those of the read models too.

    Writers may go on meanwhile. With `documents` the projections must have reached the head. By `now` it is told
    whether a hold is overdue.
    """
    with LogChecker() as checker:
        await _note_receipts(runtime, checker, on_progress)
        head = await runtime.event_store.head()
        await _read_log(runtime, checker, head, on_progress)
        await _check_overdue(runtime, checker, now() - OVERDUE_GRACE)
        findings = checker.findings
        report = CheckReport(
            checker.position,
            checker.account_count,
            len(checker.transfers),
            checker.receipts.count,
            {},
            findings.counts,
            findings.violations,
        )
    if documents:
        await _check_documents(runtime, report, findings, head, on_progress)
    return report


async def _note_receipts(runtime: Runtime, checker: LogChecker, on_progress: Progress) -> None:
    """All receipts, before the head is looked at, so that the positions they name are not beyond it."""
    key = ""
    while receipts := await runtime.event_store.list_receipts(key, RECEIPTS_AT_ONCE):
        for receipt in receipts:
            checker.receipts.note(receipt.command, receipt.outcome, receipt.position, receipt.recorded_at)
        key = receipts[-1].key
        on_progress("reading receipts", checker.receipts.count, 0)
    checker.receipts.begin()


async def _read_log(runtime: Runtime, checker: LogChecker, head: int, on_progress: Progress) -> None:
    registry = runtime.application.registry
    position = 0
    while position < head:
        block = await runtime.event_store.read(position, min(runtime.settings.block_size_max, head - position))
        taken: list[tuple[RecordedEvent, Any]] = []
        for recorded in block.events:
            try:
                event = registry.decode(recorded)
            except CqrskitError as error:
                checker.take_unreadable(recorded, str(error))
                continue
            checker.take(recorded, event)
            taken.append((recorded, event))
        checker.receipts.take(position, block.until, taken)
        position = block.until
        on_progress("checking the log", position, head)
    if checker.position != head:
        checker.findings.add("position_gap", head, "the log", f"its end at {checker.position}", f"its end at {head}")
    checker.finish()
    checker.receipts.finish(head)


async def _check_overdue(runtime: Runtime, checker: LogChecker, until: datetime) -> None:
    """Holds that have been over since before `until`: something must be there that will expire them."""
    overdue: dict[UUID, datetime | None] = {}
    for hold_id, hold in checker.transfers.overdue(until):
        overdue[hold_id] = hold.expires_at
        if len(overdue) == IDS_AT_ONCE:
            await _report_forgotten(runtime, checker, overdue)
            overdue = {}
    await _report_forgotten(runtime, checker, overdue)


async def _report_forgotten(runtime: Runtime, checker: LogChecker, overdue: dict[UUID, datetime | None]) -> None:
    """Those of them that have no due command, and were not resolved since the log was read."""
    keys = {due_key_of(hold_id): hold_id for hold_id in overdue}
    stored = await runtime.due_commands.stored_keys(list(keys)) if keys else set()
    forgotten = [hold_id for key, hold_id in keys.items() if key not in stored]
    if not forgotten:
        return
    last = {each.stream_id: each for each in await runtime.event_store.load_streams(forgotten)}
    for hold_id in forgotten:
        if isinstance(runtime.application.registry.decode(last[hold_id]), Transfer.Held):
            found = f"held, though it ended at {overdue[hold_id]}"
            expected = f"expired, or a due command {due_key_of(hold_id)}"
            checker.findings.add("hold_overdue", last[hold_id].position, f"transfer {hold_id}", found, expected)


async def _check_documents(
    runtime: Runtime, report: CheckReport, findings: Findings, head: int, on_progress: Progress
) -> None:
    for projection in runtime.application.projections:
        name = projection.name

        def tell(done: int, total: int, phase: str, name: str = name) -> None:
            on_progress(f"{name}: {phase}", done, total)

        verifier = await runtime.verifier(projection, until=head, on_progress=tell)
        async for each in verifier.differences():
            position = each.expected_version or head
            findings.add("document_differs", position, f"{name} {each.id}", each.found, each.expected)
        report.documents[name] = verifier.report.documents
