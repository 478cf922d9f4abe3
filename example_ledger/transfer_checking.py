"""Proving transfers: each one moved, held and released on its accounts exactly what it says, and no hold ends twice."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent
from example_ledger.account_checking import Changes
from example_ledger.findings import Findings
from example_ledger.money import AMOUNT_MAX, Direction, Leg, opposite_of
from example_ledger.scratch import Records, Scratch
from example_ledger.transfers import Transfer, legs_of

__all__ = ["CheckedTransfer", "OpenHold", "TransferChecker"]


class CheckedTransfer(msgspec.Struct, array_like=True, gc=False):
    """What is remembered of a transfer: little, since a log may have many millions. `mirror`: its legs turned round."""

    begun: int
    began_at: datetime
    version: int
    posted: int
    reversed: int
    mirror: int


class OpenHold(msgspec.Struct, array_like=True, gc=False):
    """A hold that is not resolved yet."""

    debit_account_id: UUID
    credit_account_id: UUID
    amount: int
    expires_at: datetime | None
    description: str | None

    def legs(self, amount: int) -> list[Leg]:
        """Its legs, with as much on each."""
        return [Leg(self.debit_account_id, "debit", amount), Leg(self.credit_account_id, "credit", amount)]


class _Announced(msgspec.Struct):
    """A reversal of which the original has told."""

    original: UUID
    reversal: UUID
    amount: int
    position: int


class TransferChecker:
    """Takes each event of a transfer with the changes on accounts that came before it."""

    def __init__(self, findings: Findings, scratch: Scratch, held_max: int) -> None:
        self.transfers = Records(scratch, "transfers", CheckedTransfer, held_max)
        self.count = 0
        self._holds = Records(scratch, "holds", OpenHold, held_max)
        self._findings = findings
        self._announced: _Announced | None = None

    def __len__(self) -> int:
        return self.count

    def take(self, at: RecordedEvent, event: Any, changes: Changes) -> None:
        """Look at the next event of a transfer."""
        announced, self._announced = self._announced, None
        if announced is not None and not (isinstance(event, Transfer.Posted) and at.stream_id == announced.reversal):
            self._miss(announced)
            announced = None
        known = self._take_version(at)
        if isinstance(event, Transfer.Posted):
            self._take_posting(at, event, changes, known, announced)
        elif isinstance(event, Transfer.Held):
            self._take_hold(at, event, changes, known)
        elif isinstance(event, Transfer.Captured):
            self._take_capture(at, event, changes, known)
        elif isinstance(event, Transfer.Voided | Transfer.Expired):
            self._take_release(at, event, changes)
        elif isinstance(event, Transfer.Reversed):
            self._take_reversal(at, event, changes, known)

    def trim(self) -> None:
        """Move what was not used for long out of memory."""
        self.transfers.trim()
        self._holds.trim()

    def finish(self) -> None:
        """The log has ended: no reversal may be left announced."""
        if self._announced is not None:
            self._miss(self._announced)

    def overdue(self, until: datetime) -> Iterator[tuple[UUID, OpenHold]]:
        """Holds that have not been resolved, though they expired before a moment."""
        for hold_id, hold in self._holds.items():
            if hold.expires_at is not None and hold.expires_at < until:
                yield hold_id, hold

    def _take_version(self, at: RecordedEvent) -> CheckedTransfer | None:
        known = self.transfers.get(at.stream_id)
        due = 1 if known is None else known.version + 1
        if at.stream_version != due:
            self._found("version_gap", at, f"version {at.stream_version}", f"version {due}")
        if known is not None:
            known.version = at.stream_version
        return known

    # --- beginnings

    def _take_posting(
        self,
        at: RecordedEvent,
        event: Transfer.Posted,
        changes: Changes,
        known: CheckedTransfer | None,
        announced: _Announced | None,
    ) -> None:
        legs = list(legs_of(event))
        self._begin(at, event, legs, known, event.amount)
        self._expect_moved(at, changes, legs, event.effective_at, event.description)
        self._expect(at, "held", changes.held, [])
        self._expect(at, "released", changes.released, [])
        self._expect_currency(at, event.currency, changes)
        told = None if announced is None else (announced.original, announced.amount)
        if told != (None if event.reverses is None else (event.reverses, event.amount)):
            expected = "no reversal" if told is None else f"{told[1]} of transfer {told[0]}, as was announced"
            found = "no reversal" if event.reverses is None else f"{event.amount} of transfer {event.reverses}"
            self._found("reversal_not_announced", at, found, expected)
        original = None if event.reverses is None else self.transfers.get(event.reverses)
        if original is not None and _digest_of(legs) != original.mirror:
            self._found("reversal_differs", at, legs, f"the legs of transfer {event.reverses} turned round")

    def _take_hold(
        self, at: RecordedEvent, event: Transfer.Held, changes: Changes, known: CheckedTransfer | None
    ) -> None:
        legs = list(legs_of(event))
        self._begin(at, event, legs, known, 0)
        self._expect(at, "moved", changes.moved, [])
        self._expect(at, "held", changes.held, legs)
        self._expect(at, "released", changes.released, [])
        self._expect_currency(at, event.currency, changes)
        self._holds[at.stream_id] = OpenHold(
            event.debit_account_id, event.credit_account_id, event.amount, event.expires_at, event.description
        )

    def _begin(
        self,
        at: RecordedEvent,
        event: Transfer.Posted | Transfer.Held,
        legs: list[Leg],
        known: CheckedTransfer | None,
        posted: int,
    ) -> None:
        if known is None:
            self.count += 1
        else:
            found, expected = f"{type(event).__name__} again", f"its one beginning, at position {known.begun}"
            self._found("transfer_begun_again", at, found, expected)
        self.transfers[at.stream_id] = CheckedTransfer(
            at.position, at.recorded_at, at.stream_version, posted, 0, _mirror_of(legs)
        )
        for amount in {event.amount, *(leg.amount for leg in legs)}:
            self._expect_amount(at, amount)
        sides: dict[Direction, int] = {"debit": 0, "credit": 0}
        accounts: dict[Direction, set[UUID]] = {"debit": set(), "credit": set()}
        for leg in legs:
            sides[leg.direction] += leg.amount
            accounts[leg.direction].add(leg.account_id)
        if not sides["debit"] == sides["credit"] == event.amount:
            self._found("unbalanced", at, f"{sides['debit']} debits, {sides['credit']} credits", event.amount)
        for account_id in accounts["debit"] & accounts["credit"]:
            self._found("same_account", at, f"account {account_id} on both sides", "on one side only")

    # --- ends of holds

    def _take_capture(
        self, at: RecordedEvent, event: Transfer.Captured, changes: Changes, known: CheckedTransfer | None
    ) -> None:
        hold = self._resolve(at, event)
        if hold is None:
            return
        self._expect_amount(at, event.amount)
        self._expect(at, "released", changes.released, hold.legs(hold.amount))
        self._expect_moved(at, changes, hold.legs(event.amount), event.effective_at, hold.description)
        self._expect(at, "held", changes.held, [])
        self._expect_currency(at, None, changes)
        if event.amount > hold.amount:
            self._found("hold_exceeded", at, f"{event.amount} captured", f"at most {hold.amount}")
        if hold.expires_at is not None and at.recorded_at >= hold.expires_at:
            self._found(
                "hold_at_wrong_time", at, f"Captured at {at.recorded_at}", f"no capture since {hold.expires_at}"
            )
        if known is not None:
            known.posted = event.amount

    def _take_release(self, at: RecordedEvent, event: Transfer.Voided | Transfer.Expired, changes: Changes) -> None:
        hold = self._resolve(at, event)
        if hold is None:
            return
        self._expect(at, "released", changes.released, hold.legs(hold.amount))
        self._expect(at, "moved", changes.moved, [])
        self._expect(at, "held", changes.held, [])
        self._expect_currency(at, None, changes)
        over = hold.expires_at is not None and at.recorded_at >= hold.expires_at
        if over != isinstance(event, Transfer.Expired):
            expected = f"{'Expired' if over else 'Voided'}, as the hold ends at {hold.expires_at}"
            self._found("hold_at_wrong_time", at, f"{type(event).__name__} at {at.recorded_at}", expected)

    def _resolve(self, at: RecordedEvent, event: object) -> OpenHold | None:
        hold = self._holds.pop(at.stream_id)
        if hold is None:
            self._found("no_open_hold", at, type(event).__name__, "a hold that is not resolved yet")
        return hold

    # --- reversals

    def _take_reversal(
        self, at: RecordedEvent, event: Transfer.Reversed, changes: Changes, original: CheckedTransfer | None
    ) -> None:
        """Its postings on accounts came before this event, and the reversal itself comes next."""
        self._expect_amount(at, event.amount)
        self._announced = _Announced(at.stream_id, event.reversal_id, event.amount, at.position)
        for kind, legs in (("moved", changes.moved), ("held", changes.held), ("released", changes.released)):
            self._expect(at, kind, legs, [])
        posted = 0 if original is None else original.posted
        reversed_ = event.amount
        if original is not None:
            reversed_ = original.reversed = original.reversed + event.amount
        if reversed_ > posted:
            self._found("original_exceeded", at, f"{reversed_} reversed", f"at most {posted}, which it had moved")

    def _miss(self, announced: _Announced) -> None:
        subject, expected = f"transfer {announced.original}", f"transfer {announced.reversal}, posted next"
        found = f"{announced.amount} reversed without it"
        self._findings.add("reversal_not_posted", announced.position, subject, found, expected)

    # --- what the accounts say

    def _expect_moved(
        self, at: RecordedEvent, changes: Changes, legs: list[Leg], effective_at: datetime, description: str | None
    ) -> None:
        """The postings are the legs, and each has the date, the text and the account on the other side that are due."""
        if changes.moved != legs:
            self._expect(at, "moved", changes.moved, legs)
            return
        counterparties = _counterparties(legs)
        for event, counterparty in zip(changes.movements, counterparties, strict=True):
            found = (event.counterparty_account_id, event.effective_at, event.description)
            expected = (counterparty, effective_at, description)
            if found != expected:
                self._found("details_differ", at, f"{found} on account {event.originator_id}", expected)

    def _expect(self, at: RecordedEvent, what: str, found: list[Leg], expected: list[Leg]) -> None:
        if found != expected:
            self._found("legs_differ", at, f"{what} {_shown(found)}", _shown(expected))

    def _expect_currency(self, at: RecordedEvent, currency: str | None, changes: Changes) -> None:
        """One currency, that of the event if it has one."""
        currencies = changes.currencies
        if len(currencies) > 1 or (currency is not None and currencies and currency not in currencies):
            self._found("currency_differs", at, f"accounts in {sorted(currencies)}", f"all in {currency or 'one'}")

    def _expect_amount(self, at: RecordedEvent, amount: int) -> None:
        if not 1 <= amount <= AMOUNT_MAX:
            self._found("invalid_amount", at, amount, f"1 to {AMOUNT_MAX}")

    def _found(self, kind: str, at: RecordedEvent, found: object, expected: object) -> None:
        self._findings.add(kind, at.position, f"transfer {at.stream_id}", found, expected)


def _shown(legs: list[Leg]) -> str:
    return ", ".join(f"{leg.direction} {leg.amount} on {leg.account_id}" for leg in legs) or "nothing"


def _counterparties(legs: list[Leg]) -> list[UUID | None]:
    """For each leg the only account on the other side; None if there are several."""
    if len(legs) == 2:
        return [legs[1].account_id, legs[0].account_id]
    sides: dict[Direction, set[UUID]] = {"debit": set(), "credit": set()}
    for leg in legs:
        sides[opposite_of(leg.direction)].add(leg.account_id)
    only = {direction: next(iter(ids)) if len(ids) == 1 else None for direction, ids in sides.items()}
    return [only[leg.direction] for leg in legs]


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
