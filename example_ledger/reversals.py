"""Reversals: a transfer is never undone, another one moves its money back, all of it or a part."""

from uuid import UUID

import msgspec

from cqrskit import Command, Repository, handles, new_id
from example_ledger.money import Leg, opposite_of
from example_ledger.movements import Moment, Movement, check_amount, check_moment, check_room, find_accounts, move_all
from example_ledger.refusals import ExceedsOriginal, IndivisibleEntry, TransferConflict, TransferNotFound
from example_ledger.transfers import Description, Transfer, legs_of

__all__ = ["Reversal", "ReverseTransfer", "reverse_transfer"]


class ReverseTransfer(Command):
    """Move the money of a posted or captured transfer back. Without an `amount`, all that is not reversed yet.

    The reversal is a transfer of its own; its id is its idempotency key, for ever. An entry of more than two legs is
    reversed as a whole.
    """

    transfer_id: UUID
    reversal_id: UUID = msgspec.field(default_factory=new_id)
    amount: int | None = None
    description: Description | None = None
    effective_at: Moment | None = None

    def idempotency_key(self) -> str:
        """The reversal's id, which is a transfer's."""
        return f"transfer:{self.reversal_id}"

    def new_ids(self) -> tuple[UUID, ...]:
        """The reversal's id."""
        return (self.reversal_id,)

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


class Reversal(msgspec.Struct, frozen=True):
    """The reply to `ReverseTransfer`: how much was moved back."""

    reversal_id: UUID
    amount: int


@handles(ReverseTransfer, sees_key_conflicts=True)
def reverse_transfer(command: ReverseTransfer, repository: Repository) -> Reversal:
    """Decide one reversal; `Transfer.Posted` is its last event, as it is that of every posting."""
    reversal_id = command.reversal_id
    existing = repository.find(Transfer, reversal_id)
    differing = repository.conflicting_field
    if differing is None and existing is not None:
        differing = _differing_field(existing, command)
    if existing is not None and differing is None:
        return Reversal(reversal_id, existing.amount)
    if command.amount is not None:
        check_amount(command.amount)
    original = repository.find(Transfer, command.transfer_id)
    accounts = []
    if original is not None:
        account_ids = [leg.account_id for leg in reversed(legs_of(original))]
        accounts = find_accounts(account_ids, original.currency, repository)
    if differing is not None:
        raise TransferConflict(reversal_id, differing)
    if original is None:
        raise TransferNotFound(command.transfer_id)
    amount = _amount_of(command, original)
    legs = _reversed(legs_of(original), amount)
    movements: list[Movement] = [
        (leg.direction, account, leg.amount) for leg, account in zip(legs, accounts, strict=True)
    ]
    check_room(movements)
    _post(command, original, legs, movements, amount, repository)
    return Reversal(reversal_id, amount)


def _amount_of(command: ReverseTransfer, original: Transfer) -> int:
    remaining = original.posted_amount - original.reversed_amount
    amount = remaining if command.amount is None else command.amount
    if remaining == 0 or amount > remaining:
        raise ExceedsOriginal(original.id, command.amount, remaining)
    if amount < original.posted_amount and len(legs_of(original)) > 2:
        raise IndivisibleEntry(original.id, amount)
    return amount


def _reversed(legs: tuple[Leg, ...], amount: int) -> tuple[Leg, ...]:
    """The legs turned round, the last one first; two of them move the `amount`, more than two what they moved."""
    return tuple(
        Leg(leg.account_id, opposite_of(leg.direction), amount if len(legs) == 2 else leg.amount)
        for leg in reversed(legs)
    )


def _post(
    command: ReverseTransfer,
    original: Transfer,
    legs: tuple[Leg, ...],
    movements: list[Movement],
    amount: int,
    repository: Repository,
) -> None:
    effective_at = command.effective_at or repository.now
    move_all(movements, transfer_id=command.reversal_id, effective_at=effective_at, description=command.description)
    original.reverse(amount, command.reversal_id)
    simple = not original.legs
    repository.create(
        Transfer.post,
        command.reversal_id,
        debit_account_id=original.credit_account_id,
        credit_account_id=original.debit_account_id,
        legs=() if simple else legs,
        amount=amount,
        currency=original.currency,
        effective_at=effective_at,
        description=command.description,
        reference=None,
        metadata={},
        reverses=original.id,
    )


def _differing_field(existing: Transfer, command: ReverseTransfer) -> str | None:
    field = existing.differing_field(
        "reversal",
        reverses=command.transfer_id,
        amount=existing.amount if command.amount is None else command.amount,
        description=command.description,
        effective_at=command.effective_at or existing.created_on,
    )
    return "transfer_id" if field == "reverses" else field
