"""The model's words in the ledger's, and back: numbers are ids, seconds are moments."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast
from uuid import UUID

import msgspec

from cqrskit import Command
from example_ledger.account_commands import (
    CloseAccount,
    FreezeAccount,
    SetAccountMetadata,
    SetOverdraftLimit,
    UnfreezeAccount,
)
from example_ledger.accounts import OpenAccount
from example_ledger.entries import EntryLeg, PostEntry
from example_ledger.holds import CaptureHold, ExpireHold, PlaceHold, VoidHold
from example_ledger.money import AccountType, Direction
from example_ledger.reversals import ReverseTransfer
from example_ledger.transfers import PostBatch, PostTransfer
from tests.ledger_model.steps import (
    Batch,
    Capture,
    Close,
    Describe,
    Enter,
    Expire,
    Freeze,
    Hold,
    Open,
    Post,
    Reverse,
    SetLimit,
    Step,
    Unfreeze,
    Void,
)

__all__ = ["BEGIN", "Words"]

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""The model's moment 0: at midnight, so that a second before it is another day."""
FAR_EAST = timezone(timedelta(hours=13))
FIRST_ACCOUNT, FIRST_TRANSFER = 1_000_000, 2_000_000
FIELDS = {
    "debit_account_id": "debit",
    "credit_account_id": "credit",
    "description": "text",
    "effective_at": "effective",
    "metadata": "words",
    "expires_in_seconds": "seconds",
    "overdraft_limit": "limit",
    "account_id": "account",
    "entry_id": "transfer",
    "hold_id": "transfer",
    "reversal_id": "transfer",
    "transfers": "items",
}


class Words:
    """The ids, currencies and moments of one `run`, which no other run has."""

    def __init__(self, run: int) -> None:
        self.run = run

    def account_id(self, number: int) -> UUID:
        """The id of an account."""
        return UUID(int=(self.run << 64) + FIRST_ACCOUNT + number)

    def transfer_id(self, number: int) -> UUID:
        """The id of a transfer."""
        return UUID(int=(self.run << 64) + FIRST_TRANSFER + number)

    def number(self, found: UUID) -> int:
        """The number of an account or a transfer."""
        last = found.int & (2**64 - 1)
        return last - (FIRST_TRANSFER if last >= FIRST_TRANSFER else FIRST_ACCOUNT)

    def currency(self, name: str) -> str:
        """A currency's code."""
        return f"{name[0]}{self.run:010X}"

    def moment(self, seconds: int | None) -> datetime | None:
        """A moment."""
        return None if seconds is None else BEGIN + timedelta(seconds=seconds)

    def key(self, name: str | None) -> str | None:
        """An idempotency key of this run."""
        return None if name is None else f"{self.run:X} {name}"

    def _given(self, seconds: int | None) -> datetime | None:
        """A moment as a client would write it, now and then in another zone, where it may be another day."""
        moment = self.moment(seconds)
        return moment if moment is None or moment.second % 2 == 0 else moment.astimezone(FAR_EAST)

    def metadata(self, words: str) -> dict[str, str]:
        """Metadata of these words."""
        return {"words": words} if words else {}

    def command(self, step: Step) -> Command:
        """The command of a step."""
        match step:
            case Open():
                return OpenAccount(
                    account_id=self.account_id(step.account),
                    name=f"Account {step.account}",
                    type=cast(AccountType, step.type),
                    currency=self.currency(step.currency),
                    overdraft_limit=step.limit,
                    metadata=self.metadata(step.words),
                )
            case Freeze():
                return FreezeAccount(account_id=self.account_id(step.account))
            case Unfreeze():
                return UnfreezeAccount(account_id=self.account_id(step.account))
            case Close():
                return CloseAccount(account_id=self.account_id(step.account))
            case SetLimit():
                return SetOverdraftLimit(account_id=self.account_id(step.account), overdraft_limit=step.limit)
            case Describe():
                metadata = self.metadata(step.words)
                return SetAccountMetadata(account_id=self.account_id(step.account), metadata=metadata)
            case Batch():
                return PostBatch(transfers=tuple(self._post(each) for each in step.items))
            case _:
                return self._of_transfer(step)

    def _of_transfer(self, step: Step) -> Command:
        match step:
            case Post():
                return self._post(step)
            case Enter():
                legs = [
                    EntryLeg(self.account_id(account), cast(Direction, side), amount)
                    for account, side, amount in step.legs
                ]
                return PostEntry(
                    entry_id=self.transfer_id(step.transfer),
                    legs=tuple(legs),
                    **self._told(step),
                )
            case Hold():
                return PlaceHold(
                    hold_id=self.transfer_id(step.transfer),
                    debit_account_id=self.account_id(step.debit),
                    credit_account_id=self.account_id(step.credit),
                    amount=step.amount,
                    expires_in_seconds=step.seconds,
                    **self._told(step),
                )
            case Capture():
                hold_id = self.transfer_id(step.transfer)
                return CaptureHold(hold_id=hold_id, amount=step.amount, effective_at=self._given(step.effective))
            case Void():
                return VoidHold(hold_id=self.transfer_id(step.transfer))
            case Expire():
                return ExpireHold(hold_id=self.transfer_id(step.transfer))
            case Reverse():
                return ReverseTransfer(
                    transfer_id=self.transfer_id(step.original),
                    reversal_id=self.transfer_id(step.transfer),
                    amount=step.amount,
                    description=step.text,
                    effective_at=self._given(step.effective),
                )
        raise AssertionError(step)

    def _post(self, step: Post) -> PostTransfer:
        return PostTransfer(
            transfer_id=self.transfer_id(step.transfer),
            debit_account_id=self.account_id(step.debit),
            credit_account_id=self.account_id(step.credit),
            amount=step.amount,
            **self._told(step),
        )

    def _told(self, step: Post | Enter | Hold) -> dict[str, Any]:
        """What is told of every transfer."""
        return {
            "currency": self.currency(step.currency),
            "description": step.text,
            "reference": step.reference,
            "effective_at": self._given(step.effective),
            "metadata": self.metadata(step.words),
        }

    def reply(self, found: Any) -> Any:
        """A reply in the model's words."""
        if isinstance(found, list):
            return [self.reply(each) for each in found]
        values: dict[str, Any] = msgspec.structs.asdict(found)
        for name, value in values.items():
            if isinstance(value, UUID):
                values[name] = self.number(value)
            elif isinstance(value, datetime):
                values[name] = (value - BEGIN).total_seconds()
        return values

    def field(self, step: Step, name: str) -> str:
        """A field of a command in the model's words."""
        if name == "transfer_id":
            return "original" if isinstance(step, Reverse) else "transfer"
        return FIELDS.get(name, name)
