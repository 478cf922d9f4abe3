"""The rules of the ledger in plain Python: what each command is answered, and what the accounts then have.

It knows nothing of the code it is a model of. Accounts and transfers are named by numbers, time is a
number that only grows.
"""

from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["AMOUNT_MAX", "LedgerModel", "ModelAccount", "ModelTransfer", "Reply"]

AMOUNT_MAX = 2**63 - 1
Reply = dict[str, Any] | str
"""What a command is answered: values by name, or the code of a refusal."""
ModelLeg = tuple[int, str, int]
"""Account, side and amount."""


class ModelAccount(msgspec.Struct):
    """One account with its four counters."""

    type: str
    currency: str
    limit: int | None
    limit_at_opening: int | None
    status: str = "open"
    words: str = ""
    posted: dict[str, int] = msgspec.field(default_factory=lambda: {"debit": 0, "credit": 0})
    pending: dict[str, int] = msgspec.field(default_factory=lambda: {"debit": 0, "credit": 0})

    @property
    def adding_side(self) -> str:
        """The side that adds to the balance."""
        return "debit" if self.type in ("asset", "expense") else "credit"

    @property
    def available(self) -> int:
        """The balance without what is held back."""
        adding = self.adding_side
        taking = "credit" if adding == "debit" else "debit"
        return self.posted[adding] - self.posted[taking] - self.pending[taking]

    def lacks(self, side: str, amount: int) -> bool:
        """Whether so much on one side would bring it below its limit."""
        return side != self.adding_side and self.limit is not None and self.available - amount < -self.limit

    def overflows(self, side: str, amount: int) -> bool:
        """Whether a counter would not hold it, once all holds are captured."""
        return self.posted[side] + self.pending[side] + amount > AMOUNT_MAX


class ModelTransfer(msgspec.Struct):
    """One transfer and what has become of it. `content`: what a retry must have too."""

    content: tuple[Any, ...]
    legs: list[ModelLeg]
    amount: int
    currency: str
    state: str = "posted"
    moved: int = 0
    reversed: int = 0
    expires_at: int | None = None

    @property
    def shown_state(self) -> str:
        """The state that readers see."""
        if not self.reversed:
            return self.state
        return "reversed" if self.reversed == self.moved else "partially_reversed"


class LedgerModel:
    """All accounts and transfers, and the time."""

    def __init__(self) -> None:
        self.now = 0
        self.accounts: dict[int, ModelAccount] = {}
        self.transfers: dict[int, ModelTransfer] = {}

    def open(self, number: int, kind: str, currency: str, limit: int | None) -> Reply:
        """OpenAccount."""
        existing = self.accounts.get(number)
        if existing is None:
            self.accounts[number] = ModelAccount(kind, currency, limit, limit)
        elif (existing.type, existing.currency, existing.limit_at_opening) != (kind, currency, limit):
            return "already_exists"
        return {"account_id": number}

    def freeze(self, number: int) -> Reply:
        """FreezeAccount."""
        return self._change(number, lambda account: setattr(account, "status", "frozen"))

    def unfreeze(self, number: int) -> Reply:
        """UnfreezeAccount."""
        return self._change(number, lambda account: setattr(account, "status", "open"))

    def close(self, number: int) -> Reply:
        """CloseAccount."""
        account = self.accounts.get(number)
        if account is None:
            return "account_not_found"
        empty = account.posted["debit"] == account.posted["credit"] and not any(account.pending.values())
        if account.status != "closed" and not empty:
            return "account_not_empty"
        account.status = "closed"
        return {"account_id": number}

    def set_limit(self, number: int, limit: int | None) -> Reply:
        """SetOverdraftLimit."""
        account = self.accounts.get(number)
        changes = account is not None and account.status != "closed" and limit != account.limit
        if account is not None and changes and limit is not None and account.available < -limit:
            return "limit_below_use"
        return self._change(number, lambda account: setattr(account, "limit", limit))

    def describe(self, number: int, words: str) -> Reply:
        """SetAccountMetadata."""
        if number not in self.accounts:
            return "account_not_found"
        self.accounts[number].words = words
        return {"account_id": number}

    def _change(self, number: int, change: Callable[[ModelAccount], None]) -> Reply:
        account = self.accounts.get(number)
        if account is None:
            return "account_not_found"
        if account.status == "closed":
            return "account_closed"
        change(account)
        return {"account_id": number}

    def post(self, number: int, debit: int, credit: int, amount: int, currency: str, text: str | None) -> Reply:
        """PostTransfer."""
        content = ("post", debit, credit, amount, currency, text)
        legs = [(debit, "debit", amount), (credit, "credit", amount)]
        if not self._is_retry(number, content):
            refusal = self._refusal_of_begin(number, legs, currency)
            if refusal is not None:
                return refusal
            self._move(legs)
            self.transfers[number] = ModelTransfer(content, legs, amount, currency, moved=amount)
        return {"transfer_id": number}

    def enter(self, number: int, legs: list[ModelLeg], currency: str, text: str | None) -> Reply:
        """PostEntry."""
        content = ("enter", tuple(legs), currency, text)
        if not self._is_retry(number, content):
            refusal = self._refusal_of_begin(number, legs, currency)
            if refusal is not None:
                return refusal
            self._move(legs)
            amount = sum(amount for _, side, amount in legs if side == "debit")
            self.transfers[number] = ModelTransfer(content, legs, amount, currency, moved=amount)
        return {"entry_id": number}

    def hold(self, number: int, debit: int, credit: int, amount: int, currency: str, seconds: int | None) -> Reply:
        """PlaceHold."""
        content = ("hold", debit, credit, amount, currency, seconds)
        legs = [(debit, "debit", amount), (credit, "credit", amount)]
        if not self._is_retry(number, content):
            refusal = self._refusal_of_begin(number, legs, currency)
            if refusal is not None:
                return refusal
            for account, side, each in legs:
                self.accounts[account].pending[side] += each
            expires_at = None if seconds is None else self.now + seconds
            self.transfers[number] = ModelTransfer(content, legs, amount, currency, "held", expires_at=expires_at)
        return self._hold_reply(number, "held", amount)

    def capture(self, number: int, amount: int | None) -> Reply:
        """CaptureHold."""
        if amount is not None and not 1 <= amount <= AMOUNT_MAX:
            return "invalid_amount"
        refusal = self._refusal_of_resolution(number)
        if refusal != "hold_not_found":
            refusal = self._refusal_of_status(self.transfers[number].legs) or refusal
        if refusal is not None:
            return refusal
        hold = self.transfers[number]
        captured = hold.amount if amount is None else amount
        if captured > hold.amount:
            return "exceeds_held_amount"
        self._release(hold, "captured")
        self._move([(account, side, captured) for account, side, _ in hold.legs])
        hold.moved = captured
        return self._hold_reply(number, "captured", captured)

    def void(self, number: int) -> Reply:
        """VoidHold."""
        refusal = self._refusal_of_resolution(number)
        if refusal is not None:
            return refusal
        self._release(self.transfers[number], "voided")
        return self._hold_reply(number, "voided", 0)

    def expire(self, number: int) -> Reply:
        """ExpireHold."""
        hold = self.transfers.get(number)
        if hold is None or hold.content[0] != "hold":
            return "hold_not_found"
        if hold.state == "held" and hold.expires_at is not None and self.now >= hold.expires_at:
            self._release(hold, "expired")
        return self._hold_reply(number, hold.state, hold.amount if hold.state == "held" else hold.moved)

    def reverse(self, number: int, original_number: int, amount: int | None, text: str | None) -> Reply:
        """ReverseTransfer."""
        original, existing = self.transfers.get(original_number), self.transfers.get(number)
        again = existing is not None and existing.content == ("reverse", original_number, existing.amount, text)
        if existing is not None and again and amount in (None, existing.amount):
            return {"reversal_id": number, "amount": existing.amount}
        if amount is not None and not 1 <= amount <= AMOUNT_MAX:
            return "invalid_amount"
        refusal = None if original is None else self._refusal_of_status(original.legs)
        if refusal is not None:
            return refusal
        if existing is not None:
            return "transfer_conflict"
        if original is None:
            return "transfer_not_found"
        left = original.moved - original.reversed
        if left == 0 or (amount or 0) > left:
            return "exceeds_original"
        given_back = amount or left
        if len(original.legs) > 2 and given_back != original.moved:
            return "indivisible_entry"
        turned = {"debit": "credit", "credit": "debit"}
        legs = [
            (account, turned[side], given_back if len(original.legs) == 2 else each)
            for account, side, each in original.legs
        ]
        refusal = self._refusal_of_room(legs)
        if refusal is not None:
            return refusal
        self._move(legs)
        original.reversed += given_back
        content = ("reverse", original_number, given_back, text)
        self.transfers[number] = ModelTransfer(content, legs, given_back, original.currency, moved=given_back)
        return {"reversal_id": number, "amount": given_back}

    def _is_retry(self, number: int, content: tuple[Any, ...]) -> bool:
        return number in self.transfers and self.transfers[number].content == content

    def _refusal_of_begin(self, number: int, legs: list[ModelLeg], currency: str) -> str | None:
        """In the order of precedence."""
        debits = sum(amount for _, side, amount in legs if side == "debit")
        credits_ = sum(amount for _, side, amount in legs if side == "credit")
        if not all(1 <= amount <= AMOUNT_MAX for _, _, amount in legs):
            return "invalid_amount"
        if debits != credits_:
            return "unbalanced_entry"
        if debits > AMOUNT_MAX:
            return "invalid_amount"
        if {a for a, side, _ in legs if side == "debit"} & {a for a, side, _ in legs if side == "credit"}:
            return "same_account"
        if any(account not in self.accounts for account, _, _ in legs):
            return "account_not_found"
        if any(self.accounts[account].currency != currency for account, _, _ in legs):
            return "currency_mismatch"
        refusal = self._refusal_of_status(legs)
        if refusal is not None:
            return refusal
        if number in self.transfers:
            return "transfer_conflict"
        return self._refusal_of_room(legs)

    def _refusal_of_status(self, legs: list[ModelLeg]) -> str | None:
        for status in ("closed", "frozen"):
            if any(self.accounts[account].status == status for account, _, _ in legs):
                return f"account_{status}"
        return None

    def _refusal_of_room(self, legs: list[ModelLeg]) -> str | None:
        sums: dict[tuple[int, str], int] = {}
        for account, side, amount in legs:
            sums[account, side] = sums.get((account, side), 0) + amount
        if any(self.accounts[account].lacks(side, amount) for (account, side), amount in sums.items()):
            return "insufficient_funds"
        if any(self.accounts[account].overflows(side, amount) for (account, side), amount in sums.items()):
            return "amount_overflow"
        return None

    def _refusal_of_resolution(self, number: int) -> str | None:
        hold = self.transfers.get(number)
        if hold is None or hold.content[0] != "hold":
            return "hold_not_found"
        if hold.state in ("captured", "voided"):
            return f"hold_already_{hold.state}"
        over = hold.expires_at is not None and self.now >= hold.expires_at
        return "hold_expired" if over or hold.state == "expired" else None

    def _hold_reply(self, number: int, status: str, amount: int) -> Reply:
        expires_at = self.transfers[number].expires_at
        return {"hold_id": number, "status": status, "amount": amount, "expires_at": expires_at}

    def _move(self, legs: list[ModelLeg]) -> None:
        for account, side, amount in legs:
            self.accounts[account].posted[side] += amount

    def _release(self, hold: ModelTransfer, state: str) -> None:
        for account, side, amount in hold.legs:
            self.accounts[account].pending[side] -= amount
        hold.state = state
