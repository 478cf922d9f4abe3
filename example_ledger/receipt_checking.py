"""Proving receipts: what a command's caller was told is in the log, and what was refused is not.

Receipts are noted first, and the log is read after them, so that each position they name has been committed. They wait
in the scratch file: a reply until the log comes to its position, a refusal until its account or transfer begins.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import Metadata, RecordedEvent
from example_ledger.account_checking import CheckedAccount
from example_ledger.accounts import Account, OpenAccount
from example_ledger.entries import PostEntry
from example_ledger.findings import Findings
from example_ledger.holds import PlaceHold
from example_ledger.reversals import ReverseTransfer
from example_ledger.scratch import Records, Scratch
from example_ledger.transfer_checking import CheckedTransfer
from example_ledger.transfers import PostBatch, PostTransfer, Transfer

__all__ = ["ReceiptChecker"]

ROWS_AT_ONCE = 5_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNINGS = {
    "OpenAccount": "account_id",
    "PostTransfer": "transfer_id",
    "PostEntry": "entry_id",
    "PlaceHold": "hold_id",
    "ReverseTransfer": "reversal_id",
}
"""Commands that begin an account or a transfer, and which of their fields is its id."""
ALWAYS_CHANGE = {"CaptureHold": "hold_id", "VoidHold": "hold_id"}
MAY_CHANGE_NOTHING = {
    "ExpireHold": "hold_id",
    "FreezeAccount": "account_id",
    "UnfreezeAccount": "account_id",
    "CloseAccount": "account_id",
    "SetOverdraftLimit": "account_id",
    "SetAccountMetadata": "account_id",
}
IDS = {**BEGINNINGS, **ALWAYS_CHANGE, **MAY_CHANGE_NOTHING}

_TABLES = """
CREATE TABLE replies (position INTEGER, stream BLOB, command TEXT, recorded INTEGER);
CREATE TABLE refusals (position INTEGER, stream BLOB, command TEXT, content BLOB, code TEXT);
"""
_INDEXES = """
CREATE INDEX replies_position ON replies (position);
CREATE INDEX refusals_stream ON refusals (stream);
"""


class _Refusal(msgspec.Struct):
    code: str


class _Outcome(msgspec.Struct):
    reply: msgspec.Raw = msgspec.Raw(b"null")
    refused: _Refusal | None = None


class _Item(msgspec.Struct):
    """One of the replies to a batch."""

    transfer_id: UUID


class ReceiptChecker:
    """`note` each receipt, call `begin` once, then `take` each block of the log in order, then `finish`."""

    def __init__(
        self,
        findings: Findings,
        scratch: Scratch,
        accounts: Records[CheckedAccount],
        transfers: Records[CheckedTransfer],
        held_max: int,
    ) -> None:
        self.count = 0
        self._findings = findings
        self._scratch = scratch
        self._known: tuple[Records[CheckedAccount], Records[CheckedTransfer]] = (accounts, transfers)
        self._rows_at_once = min(held_max, ROWS_AT_ONCE)
        self._replies: list[tuple[int, bytes, str, int]] = []
        self._refusals: list[tuple[int, bytes, str, bytes, str]] = []
        self._has_tables = False

    def note(self, command: bytes, outcome: bytes, position: int, recorded_at: datetime) -> None:
        """Remember a receipt: its command and outcome as they are stored, the position that its reply named."""
        self.count += 1
        ((name, content),) = msgspec.json.decode(command, type=dict[str, msgspec.Raw]).items()
        kept = msgspec.json.decode(outcome, type=_Outcome)
        recorded = _microseconds(recorded_at)
        if name == PostBatch.__name__ and kept.refused is None:
            streams = _ids_of_batch(kept.reply)
        else:
            found = _id_in(content, IDS.get(name))
            streams = [] if found is None else [found]
        for stream in streams:
            if kept.refused is None:
                self._replies.append((position, stream.bytes, name, recorded))
            elif name in BEGINNINGS:
                self._refusals.append((position, stream.bytes, name, bytes(content), kept.refused.code))
        if len(self._replies) + len(self._refusals) >= self._rows_at_once:
            self._write()

    def begin(self) -> None:
        """All receipts were noted; the log is read from now on."""
        if self._replies or self._refusals or self._has_tables:
            self._write()
            self._scratch.file.executescript(_INDEXES)

    def _write(self) -> None:
        file = self._scratch.file
        if not self._has_tables:
            file.executescript(_TABLES)
            self._has_tables = True
        file.execute("BEGIN")
        file.executemany("INSERT INTO replies VALUES (?, ?, ?, ?)", self._replies)
        file.executemany("INSERT INTO refusals VALUES (?, ?, ?, ?, ?)", self._refusals)
        file.execute("COMMIT")
        self._replies, self._refusals = [], []

    def take(self, after: int, until: int, events: Sequence[tuple[RecordedEvent, Any]]) -> None:
        """Look at what was told of these positions. The accounts and transfers must have been taken up to here."""
        if not self._has_tables:
            return
        found = {at.position: at for at, _ in events}
        for position, stream, command, recorded in self._scratch.file.execute(
            "SELECT * FROM replies WHERE position > ? AND position <= ?", (after, until)
        ):
            stream_id = UUID(bytes=stream)
            at = found.get(position)
            if at is None or not (at.stream_id == stream_id or self._may_be(at, stream_id, command, recorded)):
                self._miss(position, stream_id, command)
        for at, event in events:
            if isinstance(event, Account.Opened | Transfer.Posted | Transfer.Held):
                self._look_for_refusals(at, event)

    def finish(self, head: int) -> None:
        """Look at what was told of positions that the log does not have."""
        if not self._has_tables:
            return
        for position, stream, command, _ in self._scratch.file.execute(
            "SELECT * FROM replies WHERE position < 1 OR position > ?", (head,)
        ):
            self._miss(position, UUID(bytes=stream), command)

    def _may_be(self, at: RecordedEvent, stream_id: UUID, command: str, recorded: int) -> bool:
        """Whether a reply may name the position of this event, though it is one of another stream.

        All transfers of an atomic batch have the position of its end; and a command that found everything done already
        has the position of the commit that it was decided in.
        """
        begun, began_at = self._beginning_of(stream_id)
        if command in ALWAYS_CHANGE or not 1 <= begun <= at.position:
            return False
        if command not in BEGINNINGS or recorded != _microseconds(began_at):
            return True
        metadata = msgspec.json.decode(at.metadata or b"{}", type=Metadata)
        return metadata.command == PostBatch.__name__ and recorded == _microseconds(at.recorded_at)

    def _beginning_of(self, stream_id: UUID) -> tuple[int, datetime]:
        for records in self._known:
            found = records.get(stream_id)
            if found is not None:
                return found.begun, found.began_at
        return 0, EPOCH

    def _miss(self, position: int, stream_id: UUID, command: str) -> None:
        begun, _ = self._beginning_of(stream_id)
        expected = f"an event of {stream_id} at position {position}" + (f"; it begins at {begun}" if begun else "")
        self._findings.add("reply_without_events", position, f"the receipt of {command}", "another event", expected)

    def _look_for_refusals(self, at: RecordedEvent, event: Account.Opened | Transfer.Posted | Transfer.Held) -> None:
        """It was refused before it was done, or refused once it was done, though not for being something else."""
        for position, command, content, code in self._scratch.file.execute(
            "SELECT position, command, content, code FROM refusals WHERE stream = ?", (at.stream_id.bytes,)
        ):
            if position < at.position or _is_same(command, content, at, event):
                subject = f"{'account' if isinstance(event, Account.Opened) else 'transfer'} {at.stream_id}"
                expected = f"nothing, as {command} was refused at position {position}: {code}"
                self._findings.add("refused_and_posted", at.position, subject, type(event).__name__, expected)


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _id_in(content: msgspec.Raw, field: str | None) -> UUID | None:
    if field is None:
        return None
    fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return msgspec.json.decode(fields[field], type=UUID) if field in fields else None


def _ids_of_batch(reply: msgspec.Raw) -> list[UUID]:
    try:
        return [each.transfer_id for each in msgspec.json.decode(reply, type=list[_Item])]
    except msgspec.ValidationError:
        return []


def _is_same(command: str, content: bytes, at: RecordedEvent, event: Any) -> bool:
    """Whether what began is what this command asked for; False where its long fields are not kept."""
    classes = {"PostTransfer": PostTransfer, "PostEntry": PostEntry, "PlaceHold": PlaceHold, "OpenAccount": OpenAccount}
    try:
        asked = msgspec.json.decode(content, type={**classes, "ReverseTransfer": ReverseTransfer}[command])
    except msgspec.ValidationError:
        return False
    if isinstance(asked, PlaceHold) != isinstance(event, Transfer.Held):
        return False
    if isinstance(asked, ReverseTransfer):
        due: dict[str, Any] = {"reverses": asked.transfer_id, "description": asked.description}
        if asked.amount is not None:
            due["amount"] = asked.amount
    else:
        names = {*asked.__struct_fields__} & {*event.__struct_fields__} - {"effective_at"}
        due = {"reverses": None, **{name: getattr(asked, name) for name in names}}
    if isinstance(asked, PostEntry):
        due["legs"] = tuple((leg.account_id, leg.direction, leg.amount) for leg in asked.legs)
    if isinstance(asked, PlaceHold):
        seconds = asked.expires_in_seconds
        due["expires_at"] = None if seconds is None else at.recorded_at + timedelta(seconds=seconds)
    if not isinstance(asked, OpenAccount) and asked.effective_at is not None:
        due["effective_at"] = asked.effective_at
    return all(_value(event, name) == value for name, value in due.items())


def _value(event: Any, name: str) -> Any:
    value = getattr(event, name, None)
    return tuple((leg.account_id, leg.direction, leg.amount) for leg in value) if name == "legs" and value else value
