"""What the clients of the chaos test wish for: random acts on few hot and many cold accounts, some of them in vain."""

import random
from collections import deque
from collections.abc import Callable
from uuid import UUID

import msgspec

from tests.faults.chaos_acts import (
    Act,
    Batch,
    Capture,
    ChangeStatus,
    Enter,
    Hold,
    Open,
    Post,
    Reverse,
    SetLimit,
    Void,
)

__all__ = ["Wishes"]

REUSED_AMOUNT = 1_000_000
"""The amount of a transfer whose id is another's: it is refused for this, or for what comes before it."""

HOT, COLD = 3, 40
FUNDS = 150
"""What an account gets at the begin: so little that many transfers are refused."""
CHANGING = 5
"""So many of the cold accounts, and a hot one, are frozen and unfrozen, and get other limits."""
KEPT = 60
"""So many of the latest holds and transfers are captured, voided and reversed."""


class Wishes:
    """All clients' common knowledge of accounts, holds and transfers, and the acts that come to mind with it."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._bank, self._dollars, self._nobody = self._id(), self._id(), self._id()
        self._hot = [self._id() for _ in range(HOT)]
        self._cold = [self._id() for _ in range(COLD)]
        self._changing = [self._hot[-1], *self._cold[:CHANGING]]
        self._spare: list[UUID] = []
        self._holds: deque[UUID] = deque(maxlen=KEPT)
        self._transfers: deque[UUID] = deque(maxlen=KEPT)
        self._kinds: dict[Callable[[], Act], int] = {
            self._post: 30,
            self._reuse: 2,
            self._enter: 9,
            self._batch: 9,
            self._hold: 16,
            self._capture: 12,
            self._void: 5,
            self._reverse: 7,
            self._freeze: 1,
            self._unfreeze: 4,
            self._limit: 2,
            self._open: 2,
            self._close: 1,
        }

    def first(self) -> list[Act]:
        """What makes the accounts and gives them money."""
        acts: list[Act] = [Open(account_id=self._bank, type="asset", overdraft_limit=None)]
        acts.append(Open(account_id=self._dollars, type="liability", currency="USD"))
        acts += [Open(account_id=each, type="liability") for each in (*self._hot, *self._cold)]
        acts += [self._posting(self._bank, each, FUNDS) for each in (*self._hot, *self._cold)]
        return acts

    def next(self) -> Act:
        """Something that a client may want now."""
        (kind,) = self._random.choices(list(self._kinds), weights=list(self._kinds.values()))
        return kind()

    def fulfilled(self, act: Act) -> None:
        """An act took effect: others may build on it. A hold that has ended is kept, so that it is ended in vain."""
        if isinstance(act, Hold):
            self._holds.append(act.transfer_id)
        elif isinstance(act, Post | Enter):
            self._transfers.append(act.transfer_id)
        elif isinstance(act, Capture):
            self._transfers.append(act.hold_id)
        elif isinstance(act, Open):
            self._spare = [*self._spare[-4:], act.account_id]

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def _account(self) -> UUID:
        """Half of all goes to the hot ones; now and then one that cannot take part."""
        if self._random.random() < 0.02:
            return self._random.choice([self._dollars, self._nobody, *self._spare])
        return self._random.choice(self._hot if self._random.random() < 0.5 else self._cold)

    def _amount(self) -> int:
        return 0 if self._random.random() < 0.02 else self._random.randrange(1, 60)

    def _posting(self, debit: UUID, credit: UUID, amount: int) -> Post:
        return Post(transfer_id=self._id(), debit_account_id=debit, credit_account_id=credit, amount=amount)

    def _post(self) -> Post:
        debit = self._bank if self._random.random() < 0.05 else self._account()
        return self._posting(debit, self._account(), self._amount())

    def _reuse(self) -> Post:
        """With the id of another transfer, and an amount that none has."""
        transfer_id = self._random.choice(self._transfers) if self._transfers else self._id()
        return msgspec.structs.replace(self._post(), transfer_id=transfer_id, amount=REUSED_AMOUNT)

    def _enter(self) -> Enter:
        """Several debits, one credit."""
        count = self._random.randrange(1, 5)
        debits = [(self._account(), "debit", self._amount()) for _ in range(count)]
        total = sum(amount for _, _, amount in debits) + (self._random.random() < 0.05)
        return Enter(transfer_id=self._id(), legs=(*debits, (self._account(), "credit", total)))

    def _batch(self) -> Batch:
        """Independent ones have more that is refused: it does not spoil the rest."""
        count = self._random.randrange(1, 9)
        if self._random.random() < 0.5:
            return Batch(mode="independent", items=tuple(self._post() for _ in range(count)))
        sides = [(self._random.choice([self._bank, *self._hot]), self._random.choice(self._cold)) for _ in range(count)]
        items = [self._posting(debit, credit, self._random.randrange(1, 20)) for debit, credit in sides]
        if self._random.random() < 0.1:
            items.append(self._posting(items[0].debit_account_id, items[0].debit_account_id, 1))
        return Batch(mode="atomic", items=tuple(items))

    def _hold(self) -> Hold:
        post = self._posting(self._account(), self._account(), self._amount())
        return Hold(
            transfer_id=post.transfer_id,
            debit_account_id=post.debit_account_id,
            credit_account_id=post.credit_account_id,
            amount=post.amount,
            expires_in_seconds=self._random.choice([None, 1, 1, 2, 3, 5, 20]),
        )

    def _some_hold(self) -> UUID:
        """Mostly a late one, which may be held still."""
        if not self._holds or self._random.random() < 0.02:
            return self._nobody
        late = list(self._holds)[-12:] if self._random.random() < 0.8 else self._holds
        return self._random.choice(late)

    def _capture(self) -> Capture:
        part = None if self._random.random() < 0.6 else self._random.randrange(0, 40)
        return Capture(hold_id=self._some_hold(), amount=part)

    def _void(self) -> Void:
        return Void(hold_id=self._some_hold())

    def _reverse(self) -> Reverse:
        original = self._random.choice(self._transfers) if self._transfers else self._nobody
        part = None if self._random.random() < 0.6 else self._random.randrange(1, 40)
        return Reverse(transfer_id=original, reversal_id=self._id(), amount=part)

    def _freeze(self) -> ChangeStatus:
        return ChangeStatus(account_id=self._random.choice(self._changing), how="freeze")

    def _unfreeze(self) -> ChangeStatus:
        return ChangeStatus(account_id=self._random.choice(self._changing), how="unfreeze")

    def _limit(self) -> SetLimit:
        limit = self._random.choice([None, 0, 50, 200])
        return SetLimit(account_id=self._random.choice(self._changing), overdraft_limit=limit)

    def _open(self) -> Open:
        return Open(account_id=self._id(), type=self._random.choice(["asset", "liability"]))

    def _close(self) -> ChangeStatus:
        return ChangeStatus(account_id=self._random.choice([self._nobody, *self._spare]), how="close")
