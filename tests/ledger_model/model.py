"""The rules of the ledger in plain Python: what each command is answered, and what the accounts then have.

It is written from the ledger's documentation and knows nothing of the code that it is a model of. Commands are decided
one after another. Positions count the events that the documentation names for each command.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from tests.ledger_model.books import AMOUNT_MAX, ModelAccount, ModelLine, ModelTransfer, Outcome, Refused
from tests.ledger_model.steps import (
    Batch,
    Capture,
    Close,
    Describe,
    Enter,
    Expire,
    Freeze,
    Hold,
    Leg,
    Open,
    Post,
    Reverse,
    SetLimit,
    Step,
    Unfreeze,
    Void,
    differing_fields,
    turned,
)

__all__ = ["LedgerModel", "own_key"]

S = TypeVar("S", bound=Step)
Begin = Post | Enter | Hold


class LedgerModel:
    """All accounts, transfers and lines, what retries are answered, and the time.

    Without `remembering` it is a ledger that keeps no outcomes, which knows a retry by what it has made.
    """

    def __init__(self, *, remembering: bool, head: int = 0) -> None:
        self.now = 0
        self.head = head
        self.accounts: dict[int, ModelAccount] = {}
        self.transfers: dict[int, ModelTransfer] = {}
        self.lines: list[ModelLine] = []
        self.remembering = remembering
        self.memory: dict[str, tuple[Step, Outcome]] = {}

    def decide(self, step: Step, key: str | None = None) -> Outcome:
        """What the command is answered; `key` is an Idempotency-Key."""
        own = own_key(step)
        keys = [each for each in (own, key) if each is not None and self.remembering]
        known = {each: self.memory[each] for each in keys if each in self.memory}
        first = next((outcome for content, outcome in known.values() if content == step), None)
        others = {each: content for each, (content, _) in known.items() if content != step}
        if others and (first is None or own not in others):
            fields = differing_fields(next(iter(others.values())), step)
            if own not in others:
                return Outcome(code="idempotency_conflict", about={"field": fields})
            keys = [each for each in keys if each not in known]
            outcome = first = self._outcome(partial(self._conflict, step, fields), lasting=bool(keys))
        elif first is None:
            outcome = first = self._outcome(lambda: self._run(step), lasting=bool(keys))
        else:
            outcome = msgspec.structs.replace(first, appended=False, replayed=True)
        for each in keys:
            self.memory.setdefault(each, (step, first))
        return outcome

    def pass_time(self, seconds: int, *, expiring: bool) -> None:
        """Some time later; with `expiring` the ledger has looked after its holds."""
        self.now += seconds
        for number, each in self.transfers.items():
            if expiring and each.state == "held" and self._is_over(each):
                self._expire(Expire(number))

    def _outcome(self, decide: Callable[[], Any], *, lasting: bool) -> Outcome:
        before = self.head
        try:
            reply = decide()
        except Refused as refused:
            return Outcome(code=refused.code, about=refused.about, lasting=lasting)
        appended = self.head > before
        return Outcome(reply, position=self.head if appended else None, appended=appended, lasting=lasting)

    def _run(self, step: Step) -> Any:
        methods: dict[type[Step], Callable[[Any], Any]] = {
            Open: self._open,
            Freeze: self._freeze,
            Unfreeze: self._unfreeze,
            Close: self._close,
            SetLimit: self._set_limit,
            Describe: self._describe,
            Post: self._post,
            Enter: self._enter,
            Hold: self._hold,
            Capture: self._capture,
            Void: self._void,
            Expire: self._expire,
            Reverse: self._reverse,
            Batch: self._post_all,
        }
        return methods[type(step)](step)

    # --- accounts

    def _open(self, step: Open) -> Any:
        existing = self.accounts.get(step.account)
        if existing is None:
            self.accounts[step.account] = ModelAccount(step, step.limit, step.words, self.now)
            self.head += 1
        elif existing.opening != step:
            raise Refused("already_exists")
        return {"account_id": step.account}

    def _freeze(self, step: Freeze) -> Any:
        return self._change(self._not_closed(step.account), "status", "frozen")

    def _unfreeze(self, step: Unfreeze) -> Any:
        return self._change(self._not_closed(step.account), "status", "open")

    def _close(self, step: Close) -> Any:
        account = self._account(step.account)
        if account.status != "closed" and (account.balance or any(account.pending.values())):
            raise Refused("account_not_empty")
        return self._change(account, "status", "closed")

    def _set_limit(self, step: SetLimit) -> Any:
        account = self._not_closed(step.account)
        if step.limit is not None and step.limit != account.limit and account.available < -step.limit:
            raise Refused("limit_below_use")
        return self._change(account, "limit", step.limit)

    def _describe(self, step: Describe) -> Any:
        return self._change(self._account(step.account), "words", step.words)

    def _account(self, number: int) -> ModelAccount:
        if number not in self.accounts:
            raise Refused("account_not_found")
        return self.accounts[number]

    def _not_closed(self, number: int) -> ModelAccount:
        account = self._account(number)
        if account.status == "closed":
            raise Refused("account_closed")
        return account

    def _change(self, account: ModelAccount, name: str, value: Any) -> Any:
        if getattr(account, name) != value:
            setattr(account, name, value)
            self.head += 1
        return {"account_id": account.opening.account}

    # --- what begins a transfer

    def _post(self, step: Post) -> Any:
        if not self._is_retry(step):
            self._check_begin(step)
            self._begin(step.transfer, step, _legs(step), step.currency, step.effective, step.text)
        return {"transfer_id": step.transfer}

    def _enter(self, step: Enter) -> Any:
        if not self._is_retry(step):
            self._check_begin(step)
            self._begin(step.transfer, step, _legs(step), step.currency, step.effective, step.text)
        return {"entry_id": step.transfer}

    def _hold(self, step: Hold) -> Any:
        if not self._is_retry(step):
            self._check_begin(step)
            for account, side, amount in _legs(step):
                self.accounts[account].pending[side] += amount
            hold = self._new(step, _legs(step), step.currency, step.effective, events=3)
            hold.state = "held"
            hold.expires_at = None if step.seconds is None else self.now + step.seconds
            self.transfers[step.transfer] = hold
        return self._hold_reply(step.transfer, "held", step.amount)

    def _begin(
        self, number: int, step: Step, legs: list[Leg], currency: str, effective: int | None, text: str | None
    ) -> None:
        """A transfer whose money moves at once; a reversal is noted on its original too."""
        events = len(legs) + (2 if isinstance(step, Reverse) else 1)
        posted = self._new(step, legs, currency, effective, events)
        posted.moved = posted.amount
        self.transfers[number] = posted
        self._move(number, legs, posted.effective, text, posted.after)

    def _new(self, step: Step, legs: list[Leg], currency: str, effective: int | None, events: int) -> ModelTransfer:
        after = self.head
        self.head += events
        amount = sum(amount for _, side, amount in legs if side == "debit")
        moment = self.now if effective is None else effective
        return ModelTransfer(step, legs, amount, currency, moment, self.now, after, self.head)

    def _move(self, number: int, legs: list[Leg], effective: int, text: str | None, after: int) -> None:
        for account, side, amount in legs:
            self.accounts[account].posted[side] += amount
            others = {other for other, its_side, _ in legs if its_side != side}
            counterparty = others.pop() if len(others) == 1 else None
            balance = self.accounts[account].balance
            line = ModelLine(
                account, number, side, amount, balance, counterparty, text, effective, self.now, after, self.head
            )
            self.lines.append(line)

    def _is_retry(self, step: Begin) -> bool:
        return step.transfer in self.transfers and self.transfers[step.transfer].content == step

    def _check_begin(self, step: Begin) -> None:
        self._check_parties(step)
        existing = self.transfers.get(step.transfer)
        if existing is not None:
            raise Refused("transfer_conflict", field=differing_fields(existing.content, step))
        self._check_room(_legs(step))

    def _conflict(self, step: Step, fields: set[str]) -> None:
        """The number belongs to another content, and some refusals come before that one."""
        if isinstance(step, Open):
            raise Refused("already_exists")
        if isinstance(step, Reverse):
            self._check_reversed_parties(step)
        elif isinstance(step, Post | Enter | Hold):
            self._check_parties(step)
        raise Refused("transfer_conflict", field=fields)

    def _check_parties(self, step: Begin) -> None:
        legs = _legs(step)
        debits = sum(amount for _, side, amount in legs if side == "debit")
        credits_ = sum(amount for _, side, amount in legs if side == "credit")
        if not all(1 <= amount <= AMOUNT_MAX for _, _, amount in legs):
            raise Refused("invalid_amount")
        if debits != credits_:
            raise Refused("unbalanced_entry")
        if debits > AMOUNT_MAX:
            raise Refused("invalid_amount")
        if {a for a, side, _ in legs if side == "debit"} & {a for a, side, _ in legs if side == "credit"}:
            raise Refused("same_account")
        if any(account not in self.accounts for account, _, _ in legs):
            raise Refused("account_not_found")
        if any(self.accounts[account].opening.currency != step.currency for account, _, _ in legs):
            raise Refused("currency_mismatch")
        self._check_status(legs)

    def _check_status(self, legs: list[Leg]) -> None:
        for status in ("closed", "frozen"):
            if any(self.accounts[account].status == status for account, _, _ in legs):
                raise Refused(f"account_{status}")

    def _check_room(self, legs: list[Leg]) -> None:
        sums: dict[tuple[int, str], int] = {}
        for account, side, amount in legs:
            sums[account, side] = sums.get((account, side), 0) + amount
        if any(self.accounts[account].lacks(side, amount) for (account, side), amount in sums.items()):
            raise Refused("insufficient_funds")
        if any(self.accounts[account].overflows(side, amount) for (account, side), amount in sums.items()):
            raise Refused("amount_overflow")

    # --- what ends a hold

    def _capture(self, step: Capture) -> Any:
        if step.amount is not None and not 1 <= step.amount <= AMOUNT_MAX:
            raise Refused("invalid_amount")
        hold = self._held(step.transfer)
        self._check_status(hold.legs)
        self._check_held(hold)
        captured = hold.amount if step.amount is None else step.amount
        if captured > hold.amount:
            raise Refused("exceeds_held_amount")
        after = self.head
        self.head += 5
        self._release(hold, "captured")
        hold.moved = captured
        hold.effective = self.now if step.effective is None else step.effective
        assert isinstance(hold.content, Hold)
        self._move(step.transfer, hold.moved_legs, hold.effective, hold.content.text, after)
        return self._hold_reply(step.transfer, "captured", captured)

    def _void(self, step: Void) -> Any:
        hold = self._held(step.transfer)
        self._check_held(hold)
        self.head += 3
        self._release(hold, "voided")
        return self._hold_reply(step.transfer, "voided", 0)

    def _expire(self, step: Expire) -> Any:
        hold = self._held(step.transfer)
        if hold.state == "held" and self._is_over(hold):
            self.head += 3
            self._release(hold, "expired")
        return self._hold_reply(step.transfer, hold.state, hold.amount if hold.state == "held" else hold.moved)

    def _held(self, number: int) -> ModelTransfer:
        found = self.transfers.get(number)
        if found is None or not isinstance(found.content, Hold):
            raise Refused("hold_not_found")
        return found

    def _check_held(self, hold: ModelTransfer) -> None:
        if hold.state in ("captured", "voided"):
            raise Refused(f"hold_already_{hold.state}")
        if hold.state == "expired" or self._is_over(hold):
            raise Refused("hold_expired")

    def _is_over(self, hold: ModelTransfer) -> bool:
        return hold.expires_at is not None and self.now >= hold.expires_at

    def _release(self, hold: ModelTransfer, state: str) -> None:
        for account, side, amount in hold.legs:
            self.accounts[account].pending[side] -= amount
        hold.state = state

    def _hold_reply(self, number: int, status: str, amount: int) -> Any:
        expires_at = self.transfers[number].expires_at
        return {"hold_id": number, "status": status, "amount": amount, "expires_at": expires_at}

    # --- reversals

    def _reverse(self, step: Reverse) -> Any:
        existing = self.transfers.get(step.transfer)
        if existing is not None and not self.remembering:
            amount = step.amount or existing.amount
            if msgspec.structs.replace(step, amount=amount) == _with_amount(existing):
                return {"reversal_id": step.transfer, "amount": existing.amount}
        self._check_reversed_parties(step)
        if existing is not None:
            raise Refused("transfer_conflict", field=differing_fields(existing.content, step))
        original = self.transfers.get(step.original)
        if original is None:
            raise Refused("transfer_not_found")
        left = original.moved - original.reversed
        amount = left if step.amount is None else step.amount
        if left == 0 or amount > left:
            raise Refused("exceeds_original", remaining=left)
        if len(original.legs) > 2 and amount != original.moved:
            raise Refused("indivisible_entry")
        divided = len(original.legs) == 2
        legs = [(account, turned(side), amount if divided else each) for account, side, each in original.legs[::-1]]
        self._check_room(legs)
        original.reversed += amount
        self._begin(step.transfer, step, legs, original.currency, step.effective, step.text)
        return {"reversal_id": step.transfer, "amount": amount}

    def _check_reversed_parties(self, step: Reverse) -> None:
        if step.amount is not None and not 1 <= step.amount <= AMOUNT_MAX:
            raise Refused("invalid_amount")
        original = self.transfers.get(step.original)
        if original is not None:
            self._check_status(original.legs)

    # --- all or none

    def _post_all(self, step: Batch) -> Any:
        before = (copy.deepcopy(self.accounts), dict(self.transfers), len(self.lines), self.head, dict(self.memory))
        replies = []
        for place, item in enumerate(step.items):
            outcome = self.decide(item)
            if outcome.code is not None:
                self.accounts, self.transfers, lines, self.head, self.memory = before
                del self.lines[lines:]
                raise Refused("batch_aborted", place=place, code=outcome.code)
            replies.append(outcome.reply)
        self._remember_place(step, before[-1])
        return replies

    def _remember_place(self, batch: Batch, before: dict[str, Any]) -> None:
        """A retry of one of its transfers is answered with the batch's position."""
        for key in {f"transfer:{each.transfer}" for each in batch.items} - before.keys():
            if key in self.memory:
                step, outcome = self.memory[key]
                self.memory[key] = (step, msgspec.structs.replace(outcome, position=self.head))


def own_key(step: Step) -> str | None:
    """By what a command is known for ever."""
    if isinstance(step, Post | Enter | Hold | Reverse):
        return f"transfer:{step.transfer}"
    return f"account:{step.account}" if isinstance(step, Open) else None


def _legs(step: Begin) -> list[Leg]:
    if isinstance(step, Enter):
        return list(step.legs)
    return [(step.debit, "debit", step.amount), (step.credit, "credit", step.amount)]


def _with_amount(existing: ModelTransfer) -> Step:
    """What the reversal would be, had its amount been told."""
    content = existing.content
    return msgspec.structs.replace(content, amount=existing.amount) if isinstance(content, Reverse) else content
