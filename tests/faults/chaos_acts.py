"""What the clients of the chaos test want of the ledger: each act as a request, and as the model decides it.

Accounts and transfers are named by UUIDs here, and by the same ones as numbers in the model, whose time is in
microseconds.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from tests.ledger_model import steps
from tests.ledger_model.model import LedgerModel

__all__ = [
    "Act",
    "Batch",
    "Capture",
    "ChangeStatus",
    "Enter",
    "Hold",
    "Open",
    "Post",
    "Reply",
    "Request",
    "Reverse",
    "SetLimit",
    "Void",
    "decided_on_a_copy",
    "microseconds",
]

Reply = dict[str, Any] | str
"""What a command is answered: values by name, or the code of a refusal."""

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


CHANGES = {"freeze": steps.Freeze, "unfreeze": steps.Unfreeze, "close": steps.Close}


def microseconds(moment: datetime) -> int:
    """A moment as the model counts time, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


class Request(msgspec.Struct, frozen=True):
    """A request to the API, without its address and headers."""

    method: str
    path: str
    body: dict[str, Any] | None = None


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wanted. `command` is the name that the log has for it."""

    command = ""

    def request(self) -> Request:
        """How it is asked for."""
        raise NotImplementedError

    def decide(self, model: LedgerModel) -> Reply:
        """The model's answer, which the model has taken then."""
        raise NotImplementedError

    def reply_of(self, body: dict[str, Any]) -> Reply:
        """The reply of the API in the model's words; its position is told apart."""
        return {name: _plain(name, value) for name, value in body.items() if name != "position"}

    def transfers(self) -> Iterator[UUID]:
        """Those that the decision looks at."""
        return iter(())

    def accounts(self) -> Iterator[UUID]:
        """Those that the decision looks at, beside those of its transfers."""
        return iter(())


def _plain(name: str, value: Any) -> Any:
    if name.endswith("_id"):
        return UUID(value).int
    return microseconds(datetime.fromisoformat(value)) if name == "expires_at" and value is not None else value


class Open(Act, frozen=True, kw_only=True):
    """Open an account."""

    command = "OpenAccount"
    account_id: UUID
    type: str
    currency: str = "EUR"
    overdraft_limit: int | None = 0

    def request(self) -> Request:
        """POST /accounts."""
        return Request("POST", "/accounts", {"name": "account", **msgspec.to_builtins(self)})

    def decide(self, model: LedgerModel) -> Reply:
        """As OpenAccount."""
        return _told(model, steps.Open(self.account_id.int, self.type, self.currency, self.overdraft_limit))

    def accounts(self) -> Iterator[UUID]:
        """The new one."""
        yield self.account_id


class _Begin(Act, frozen=True, kw_only=True):
    transfer_id: UUID
    currency: str = "EUR"

    def transfers(self) -> Iterator[UUID]:
        """The new one."""
        yield self.transfer_id


class Post(_Begin, frozen=True, kw_only=True):
    """Move money."""

    command = "PostTransfer"
    debit_account_id: UUID
    credit_account_id: UUID
    amount: int

    def request(self) -> Request:
        """POST /transfers."""
        return Request("POST", "/transfers", msgspec.to_builtins(self))

    def decide(self, model: LedgerModel) -> Reply:
        """As PostTransfer."""
        debit, credit = self.debit_account_id.int, self.credit_account_id.int
        step = steps.Post(self.transfer_id.int, debit, credit, self.amount, self.currency)
        return _told(model, step, status="posted")

    def accounts(self) -> Iterator[UUID]:
        """Both sides."""
        yield self.debit_account_id
        yield self.credit_account_id


class Enter(_Begin, frozen=True, kw_only=True):
    """Move money between several accounts: account, direction and amount of each leg."""

    command = "PostEntry"
    legs: tuple[tuple[UUID, str, int], ...]

    def request(self) -> Request:
        """POST /entries."""
        legs = [{"account_id": str(each), "direction": side, "amount": amount} for each, side, amount in self.legs]
        return Request("POST", "/entries", {"entry_id": str(self.transfer_id), "legs": legs, "currency": self.currency})

    def decide(self, model: LedgerModel) -> Reply:
        """As PostEntry."""
        legs = tuple((account.int, side, amount) for account, side, amount in self.legs)
        return _told(model, steps.Enter(self.transfer_id.int, legs, self.currency), status="posted")

    def accounts(self) -> Iterator[UUID]:
        """Those of all legs."""
        return (account for account, _, _ in self.legs)


class Hold(Post, frozen=True, kw_only=True):
    """Set money aside."""

    command = "PlaceHold"
    expires_in_seconds: int | None = None

    def request(self) -> Request:
        """POST /holds."""
        body = msgspec.to_builtins(self)
        body["hold_id"] = body.pop("transfer_id")
        return Request("POST", "/holds", body)

    def decide(self, model: LedgerModel) -> Reply:
        """As PlaceHold."""
        seconds = self.expires_in_seconds
        step = steps.Hold(
            self.transfer_id.int,
            self.debit_account_id.int,
            self.credit_account_id.int,
            self.amount,
            self.currency,
            None if seconds is None else seconds * 1_000_000,
        )
        return _told(model, step)


class Capture(Act, frozen=True, kw_only=True):
    """Move what is held, or a part of it."""

    command = "CaptureHold"
    hold_id: UUID
    amount: int | None = None

    def request(self) -> Request:
        """POST /holds/…/capture."""
        return Request("POST", f"/holds/{self.hold_id}/capture", {"amount": self.amount})

    def decide(self, model: LedgerModel) -> Reply:
        """As CaptureHold."""
        return _told(model, steps.Capture(self.hold_id.int, self.amount))

    def transfers(self) -> Iterator[UUID]:
        """The hold."""
        yield self.hold_id


class Void(Act, frozen=True, kw_only=True):
    """Give a hold up."""

    command = "VoidHold"
    hold_id: UUID

    def request(self) -> Request:
        """POST /holds/…/void."""
        return Request("POST", f"/holds/{self.hold_id}/void")

    def decide(self, model: LedgerModel) -> Reply:
        """As VoidHold."""
        return _told(model, steps.Void(self.hold_id.int))

    def transfers(self) -> Iterator[UUID]:
        """The hold."""
        yield self.hold_id


class Reverse(Act, frozen=True, kw_only=True):
    """Move a transfer's money back, or a part of it."""

    command = "ReverseTransfer"
    transfer_id: UUID
    reversal_id: UUID
    amount: int | None = None

    def request(self) -> Request:
        """POST /transfers/…/reverse."""
        body = {"reversal_id": str(self.reversal_id), "amount": self.amount}
        return Request("POST", f"/transfers/{self.transfer_id}/reverse", body)

    def decide(self, model: LedgerModel) -> Reply:
        """As ReverseTransfer."""
        number = self.transfer_id.int
        return _told(model, steps.Reverse(self.reversal_id.int, number, self.amount), transfer_id=number)

    def transfers(self) -> Iterator[UUID]:
        """The original and the reversal."""
        yield self.transfer_id
        yield self.reversal_id


class ChangeStatus(Act, frozen=True, kw_only=True):
    """Freeze an account, unfreeze or close it."""

    account_id: UUID
    how: Literal["freeze", "unfreeze", "close"]

    @property
    def command(self) -> str:  # type: ignore[override]
        """As the log has it."""
        return f"{self.how.capitalize()}Account"

    def request(self) -> Request:
        """POST /accounts/…/freeze, unfreeze or close."""
        return Request("POST", f"/accounts/{self.account_id}/{self.how}")

    def decide(self, model: LedgerModel) -> Reply:
        """As FreezeAccount, UnfreezeAccount, CloseAccount."""
        return _told(model, CHANGES[self.how](self.account_id.int))

    def accounts(self) -> Iterator[UUID]:
        """The account."""
        yield self.account_id


class SetLimit(Act, frozen=True, kw_only=True):
    """Let an account be overdrawn further, or less far."""

    command = "SetOverdraftLimit"
    account_id: UUID
    overdraft_limit: int | None

    def request(self) -> Request:
        """PUT /accounts/…/overdraft-limit."""
        body = {"overdraft_limit": self.overdraft_limit}
        return Request("PUT", f"/accounts/{self.account_id}/overdraft-limit", body)

    def decide(self, model: LedgerModel) -> Reply:
        """As SetOverdraftLimit."""
        return _told(model, steps.SetLimit(self.account_id.int, self.overdraft_limit))

    def accounts(self) -> Iterator[UUID]:
        """The account."""
        yield self.account_id


class Batch(Act, frozen=True, kw_only=True):
    """Post all of these or none. (An independent batch is so many acts of their own that share a request.)"""

    command = "PostBatch"
    mode: Literal["atomic", "independent"]
    items: tuple[Post, ...]

    def request(self) -> Request:
        """POST /transfers/batch."""
        return Request("POST", "/transfers/batch", {"mode": self.mode, "transfers": msgspec.to_builtins(self.items)})

    def decide(self, model: LedgerModel) -> Reply:
        """As PostBatch: tried on a copy first."""
        copy = _copy_of(model, self)
        codes: list[str] = []
        for place, item in enumerate(self.items):
            reply = item.decide(copy)
            if isinstance(reply, str):
                codes = ["batch_aborted"] * len(self.items)
                codes[place] = reply
                break
        for item in () if codes else self.items:
            item.decide(model)
        return {"results": codes or ["posted"] * len(self.items)}

    def reply_of(self, body: dict[str, Any]) -> Reply:
        """What became of each item, by its code."""
        results = body["results"]
        assert [each["transfer_id"] for each in results] == [str(each.transfer_id) for each in self.items]
        return {"results": [each.get("code", each["status"]) for each in results]}

    def transfers(self) -> Iterator[UUID]:
        """Those of all items."""
        return (item.transfer_id for item in self.items)

    def accounts(self) -> Iterator[UUID]:
        """Those of all items."""
        return (account for item in self.items for account in item.accounts())


def _told(model: LedgerModel, step: steps.Step, **more: Any) -> Reply:
    """The model's answer; the API adds `more` to what it accepts."""
    outcome = model.decide(step)
    return {**outcome.reply, **more} if outcome.code is None else outcome.code


def decided_on_a_copy(model: LedgerModel, act: Act, *, now: int) -> tuple[Reply, bool]:
    """What the model would answer at this time, and whether it would change anything."""
    before, after = _copy_of(model, act), _copy_of(model, act)
    after.now = now
    reply = act.decide(after)
    return reply, (before.accounts, before.transfers) != (after.accounts, after.transfers)


def _copy_of(model: LedgerModel, act: Act) -> LedgerModel:
    """The part of the model that an act looks at."""
    copy = LedgerModel(remembering=False)
    copy.now = model.now
    numbers = {each.int for each in act.accounts()}
    for transfer_id in act.transfers():
        transfer = model.transfers.get(transfer_id.int)
        if transfer is not None:
            copy.transfers[transfer_id.int] = msgspec.structs.replace(transfer)
            numbers.update(account for account, _, _ in transfer.legs)
    for number in numbers & model.accounts.keys():
        account = model.accounts[number]
        copy.accounts[number] = msgspec.structs.replace(
            account, posted=dict(account.posted), pending=dict(account.pending)
        )
    return copy
