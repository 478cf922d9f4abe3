"""Proving transfers: each one moved, held and released on its accounts exactly what it says, and no hold ends twice."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent
from example_ledger.money import Leg, opposite_of
from example_ledger.transfers import Transfer, legs_of

__all__ = ["Changes", "TransferChecker"]

Found = Callable[[int, RecordedEvent, str], None]


class Changes(msgspec.Struct):
    """What the account events of one transfer have changed since its last own event, in their order."""

    moved: list[Leg] = []
    held: list[Leg] = []
    released: list[Leg] = []
    currencies: set[str] = set()


class _Transfer(msgspec.Struct, gc=False):
    """What is remembered of a transfer: little, since a log may have many millions. `mirror`: its legs turned round."""

    posted: int
    reversed: int
    mirror: int


class _Hold(msgspec.Struct):
    """A hold that is not resolved yet."""

    legs: list[Leg]
    expires_at: datetime | None


class TransferChecker:
    """Takes each event of a transfer with the changes before it; `found` is told of what is wrong."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._known: dict[UUID, _Transfer] = {}
        self._holds: dict[UUID, _Hold] = {}
        self._announced: dict[UUID, tuple[UUID, int]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def take(self, at: RecordedEvent, event: Any, changes: Changes) -> None:
        """Look at the next event of a transfer."""
        if isinstance(event, Transfer.Posted):
            self._take_posting(at, event, changes)
        elif isinstance(event, Transfer.Held):
            self._take_hold(at, event, changes)
        elif isinstance(event, Transfer.Captured):
            self._take_capture(at, event, changes)
        elif isinstance(event, Transfer.Voided | Transfer.Expired):
            self._take_release(at, event, changes)
        elif isinstance(event, Transfer.Reversed):
            self._take_reversal(at, event, changes)

    def finish(self) -> list[str]:
        """The log has ended: sentences on reversals that were announced and never posted."""
        return [
            f"transfer {original} was reversed by {each}, which is missing"
            for each, (original, _) in self._announced.items()
        ]

    def _take_posting(self, at: RecordedEvent, event: Transfer.Posted, changes: Changes) -> None:
        legs = list(legs_of(event))
        self._begin(at, event, legs)
        self._expect(at, changes, event.currency, moved=legs)
        self._known[at.stream_id] = _Transfer(event.amount, 0, _mirror_of(legs))
        announced = self._announced.pop(at.stream_id, None)
        if announced != (None if event.reverses is None else (event.reverses, event.amount)):
            self._found(7, at, f"transfer {at.stream_id} reverses {event.reverses}, announced was {announced}")
        original = None if event.reverses is None else self._known.get(event.reverses)
        if original is not None and _digest_of(legs) != original.mirror:
            self._found(7, at, f"transfer {at.stream_id} has other legs than those of {event.reverses} turned round")

    def _take_hold(self, at: RecordedEvent, event: Transfer.Held, changes: Changes) -> None:
        legs = list(legs_of(event))
        self._begin(at, event, legs)
        self._expect(at, changes, event.currency, held=legs)
        self._known[at.stream_id] = _Transfer(0, 0, _mirror_of(legs))
        self._holds[at.stream_id] = _Hold(legs, event.expires_at)

    def _begin(self, at: RecordedEvent, event: Transfer.Posted | Transfer.Held, legs: list[Leg]) -> None:
        if at.stream_id in self._known:
            self._found(6, at, f"transfer {at.stream_id} was posted before")
        sides = [sum(leg.amount for leg in legs if leg.direction == side) for side in ("debit", "credit")]
        if sides != [event.amount, event.amount]:
            self._found(1, at, f"the sides of transfer {at.stream_id} are {sides}, its amount is {event.amount}")

    def _take_capture(self, at: RecordedEvent, event: Transfer.Captured, changes: Changes) -> None:
        hold = self._resolve(at)
        if hold is None:
            return
        moved = [msgspec.structs.replace(leg, amount=event.amount) for leg in hold.legs]
        self._expect(at, changes, None, released=hold.legs, moved=moved)
        if event.amount > hold.legs[0].amount:
            self._found(5, at, f"{event.amount} of hold {at.stream_id} was captured, it held {hold.legs[0].amount}")
        if hold.expires_at is not None and at.recorded_at >= hold.expires_at:
            self._found(5, at, f"hold {at.stream_id} was captured after {hold.expires_at}, when it expired")
        self._known[at.stream_id].posted = event.amount

    def _take_release(self, at: RecordedEvent, event: Transfer.Voided | Transfer.Expired, changes: Changes) -> None:
        hold = self._resolve(at)
        if hold is None:
            return
        self._expect(at, changes, None, released=hold.legs)
        over = hold.expires_at is not None and at.recorded_at >= hold.expires_at
        if over != isinstance(event, Transfer.Expired):
            self._found(5, at, f"hold {at.stream_id} became {type(event).__name__}, it expires at {hold.expires_at}")

    def _resolve(self, at: RecordedEvent) -> _Hold | None:
        hold = self._holds.pop(at.stream_id, None)
        if hold is None:
            self._found(5, at, f"{at.stream_id} is no hold, or was resolved before")
        return hold

    def _take_reversal(self, at: RecordedEvent, event: Transfer.Reversed, changes: Changes) -> None:
        self._expect(at, changes, None)
        self._announced[event.reversal_id] = (at.stream_id, event.amount)
        original = self._known.get(at.stream_id)
        if original is None:
            self._found(7, at, f"transfer {at.stream_id} is reversed and was never posted")
            return
        original.reversed += event.amount
        if event.amount < 1 or original.reversed > original.posted:
            self._found(
                7, at, f"{original.reversed} of transfer {at.stream_id} is reversed, it moved {original.posted}"
            )

    def _expect(
        self,
        at: RecordedEvent,
        changes: Changes,
        currency: str | None,
        *,
        moved: list[Leg] | None = None,
        held: list[Leg] | None = None,
        released: list[Leg] | None = None,
    ) -> None:
        """The accounts changed as the transfer says; where the event has a currency, in that one."""
        for name, legs in (("moved", moved or []), ("held", held or []), ("released", released or [])):
            found = getattr(changes, name)
            if found != legs:
                self._found(1, at, f"{name} by transfer {at.stream_id}: {found}, {legs} is due")
        if len(changes.currencies) > 1 or (currency is not None and changes.currencies != {currency}):
            self._found(1, at, f"transfer {at.stream_id} is in {currency}, its accounts in {changes.currencies}")


def _digest_of(legs: list[Leg]) -> int:
    """A number that tells legs apart, whatever their order; two of them have the same one with any amount.

    It is a hash of bytes, since sums and tuples of small numbers collide.
    """
    parts = sorted(
        f"{leg.account_id.hex} {leg.direction} {leg.amount if len(legs) > 2 else 'any'}".encode() for leg in legs
    )
    return hash(b" ".join(parts))


def _mirror_of(legs: list[Leg]) -> int:
    return _digest_of([Leg(leg.account_id, opposite_of(leg.direction), leg.amount) for leg in legs])
