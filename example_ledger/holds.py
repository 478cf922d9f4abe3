"""Holds: money that is set aside now, and moved or given back later."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import Command, Repository, handles, new_id
from example_ledger.accounts import Account, Metadata
from example_ledger.money import Amount, Currency
from example_ledger.movements import (
    Moment,
    check_amount,
    check_moment,
    check_room,
    find_accounts,
    move_all,
    movements_between,
)
from example_ledger.refusals import (
    ExceedsHeldAmount,
    HoldAlreadyCaptured,
    HoldAlreadyVoided,
    HoldExpired,
    HoldNotFound,
    SameAccount,
    TransferConflict,
)
from example_ledger.transfers import Description, Reference, Status, Transfer, legs_of

__all__ = [
    "EXPIRES_IN_SECONDS_MAX",
    "CaptureHold",
    "ExpireHold",
    "HoldState",
    "PlaceHold",
    "VoidHold",
    "capture_hold",
    "due_key_of",
    "expire_hold",
    "place_hold",
    "void_hold",
]

EXPIRES_IN_SECONDS_MAX = 10 * 366 * 86_400
"""Ten years."""


class PlaceHold(Command):
    """Set money aside for a transfer. The id is the hold's idempotency key, for ever, and stays the transfer's.

    Without `expires_in_seconds` it is held until it is captured or voided.
    """

    hold_id: UUID = msgspec.field(default_factory=new_id)
    debit_account_id: UUID
    credit_account_id: UUID
    amount: Amount
    currency: Currency
    expires_in_seconds: Annotated[int, msgspec.Meta(ge=1, le=EXPIRES_IN_SECONDS_MAX)] | None = None
    description: Description | None = None
    reference: Reference | None = None
    effective_at: Moment | None = None
    metadata: Metadata = {}

    def idempotency_key(self) -> str:
        """The hold's id, which is a transfer's."""
        return f"transfer:{self.hold_id}"

    def new_ids(self) -> tuple[UUID, ...]:
        """The hold's id."""
        return (self.hold_id,)

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


class CaptureHold(Command):
    """Move what is held, or a part of it; the rest is free again. Without an `amount` all of it."""

    hold_id: UUID
    amount: Amount | None = None
    effective_at: Moment | None = None

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


class VoidHold(Command):
    """Give a hold up: its money is free again."""

    hold_id: UUID


class ExpireHold(Command):
    """Give the money of a hold back once its time is over; until then, and after any end of the hold, do nothing.

    `by_itself` is the one that is stored with the hold: if it comes too early it is stored again.
    """

    hold_id: UUID
    by_itself: bool = False


class HoldState(msgspec.Struct, frozen=True):
    """The reply to the commands of a hold. `amount`: what is held, or was captured; 0 once it is given back."""

    hold_id: UUID
    status: Status
    amount: int
    expires_at: datetime | None


def due_key_of(hold_id: UUID) -> str:
    """The key of the due command that expires a hold."""
    return f"hold:{hold_id}"


@handles(PlaceHold, sees_key_conflicts=True)
def place_hold(command: PlaceHold, repository: Repository) -> HoldState:
    """Hold money as `post_transfer` would move it; it is refused for the same reasons in the same order."""
    hold_id, amount = command.hold_id, command.amount
    existing = repository.find(Transfer, hold_id)
    differing = repository.conflicting_field
    if differing is None and existing is not None:
        differing = _differing_field(existing, command)
    if existing is not None and differing is None:
        return HoldState(hold_id, "held", existing.amount, existing.expires_at)
    check_amount(amount)
    debit_account_id, credit_account_id = command.debit_account_id, command.credit_account_id
    if debit_account_id == credit_account_id:
        raise SameAccount(debit_account_id)
    debited, credited = find_accounts((debit_account_id, credit_account_id), command.currency, repository)
    if differing is not None:
        raise TransferConflict(hold_id, differing)
    check_room(movements_between(debited, credited, amount))
    debited.hold("debit", amount, hold_id)
    credited.hold("credit", amount, hold_id)
    hold = repository.create(
        Transfer.hold,
        hold_id,
        debit_account_id=debit_account_id,
        credit_account_id=credit_account_id,
        amount=amount,
        currency=command.currency,
        effective_at=command.effective_at or repository.now,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
        expires_at=_expiry_of(command, repository.now),
    )
    _schedule_expiry(hold, repository)
    return HoldState(hold_id, "held", amount, hold.expires_at)


@handles(CaptureHold)
def capture_hold(command: CaptureHold, repository: Repository) -> HoldState:
    """Move the held money. Its funds were set aside with the hold, so nothing is left to be insufficient."""
    if command.amount is not None:
        check_amount(command.amount)
    hold = _find(command.hold_id, repository)
    if hold is None:
        raise HoldNotFound(command.hold_id)
    account_ids = [leg.account_id for leg in legs_of(hold)]
    debited, credited = find_accounts(account_ids, hold.currency, repository)
    _check_held(hold, repository.now)
    amount = hold.amount if command.amount is None else command.amount
    if amount > hold.amount:
        raise ExceedsHeldAmount(hold.id, amount, hold.amount)
    _release(hold, repository)
    effective_at = command.effective_at or repository.now
    move_all(
        movements_between(debited, credited, amount),
        transfer_id=hold.id,
        effective_at=effective_at,
        description=hold.description,
    )
    hold.capture(amount, effective_at)
    _take_back_expiry(hold, repository)
    return HoldState(hold.id, hold.status, amount, hold.expires_at)


@handles(VoidHold)
def void_hold(command: VoidHold, repository: Repository) -> HoldState:
    """Release the held money, whatever else its accounts may not do now."""
    hold = _find(command.hold_id, repository)
    if hold is None:
        raise HoldNotFound(command.hold_id)
    _check_held(hold, repository.now)
    _release(hold, repository)
    hold.void()
    _take_back_expiry(hold, repository)
    return HoldState(hold.id, hold.status, 0, hold.expires_at)


@handles(ExpireHold)
def expire_hold(command: ExpireHold, repository: Repository) -> HoldState:
    """Release the held money if its time is over. However often and whenever it is sent, it happens once.

    The stored one is used up when it has run. Where the clock was set back in the meantime it runs too early, so it is
    stored again; else nobody would ever release the money.
    """
    hold = _find(command.hold_id, repository)
    if hold is None:
        raise HoldNotFound(command.hold_id)
    if hold.status == "held" and _is_over(hold, repository.now):
        _release(hold, repository)
        hold.expire()
    elif hold.status == "held" and command.by_itself:
        _schedule_expiry(hold, repository)
    amount = hold.amount if hold.status == "held" else hold.captured_amount
    return HoldState(hold.id, hold.status, amount, hold.expires_at)


def _schedule_expiry(hold: Transfer, repository: Repository) -> None:
    if hold.expires_at is not None:
        command = ExpireHold(hold_id=hold.id, by_itself=True)
        repository.schedule(command, at=hold.expires_at, key=due_key_of(hold.id))


def _take_back_expiry(hold: Transfer, repository: Repository) -> None:
    """Nobody needs to look at a hold that has ended. One who does all the same finds that there is nothing to do."""
    if hold.expires_at is not None:
        repository.unschedule(due_key_of(hold.id))


def _find(hold_id: UUID, repository: Repository) -> Transfer | None:
    found = repository.find(Transfer, hold_id)
    return found if found is not None and found.kind == "hold" else None


def _check_held(hold: Transfer, now: datetime) -> None:
    """HoldAlreadyCaptured, HoldAlreadyVoided, or HoldExpired, which does not wait for the one who expires it."""
    if hold.status == "captured":
        raise HoldAlreadyCaptured(hold.id, hold.captured_amount)
    if hold.status == "voided":
        raise HoldAlreadyVoided(hold.id)
    if hold.status == "expired" or _is_over(hold, now):
        raise HoldExpired(hold.id, hold.expires_at)


def _is_over(hold: Transfer, now: datetime) -> bool:
    return hold.expires_at is not None and now >= hold.expires_at


def _release(hold: Transfer, repository: Repository) -> None:
    for leg, account in [(leg, repository.get(Account, leg.account_id)) for leg in legs_of(hold)]:
        account.release(leg.direction, leg.amount, hold.id)


def _expiry_of(command: PlaceHold, begin: datetime) -> datetime | None:
    seconds = command.expires_in_seconds
    return None if seconds is None else begin + timedelta(seconds=seconds)


def _differing_field(existing: Transfer, command: PlaceHold) -> str | None:
    field = existing.differing_field(
        "hold",
        debit_account_id=command.debit_account_id,
        credit_account_id=command.credit_account_id,
        amount=command.amount,
        currency=command.currency,
        expires_at=_expiry_of(command, existing.created_on),
        effective_at=command.effective_at or existing.created_on,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )
    return "expires_in_seconds" if field == "expires_at" else field
