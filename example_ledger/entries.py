"""Entries: one movement over many accounts, such as a sale with its tax and fee."""

from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import Command, Repository, handles, new_id
from example_ledger.accounts import Metadata
from example_ledger.money import Amount, Currency, Direction, Leg
from example_ledger.movements import Moment, Movement, check_amount, check_moment, check_room, find_accounts, move_all
from example_ledger.refusals import SameAccount, TransferConflict, UnbalancedEntry
from example_ledger.transfers import Description, Reference, Transfer

__all__ = ["LEGS_MAX", "EntryLeg", "EntryPosting", "PostEntry", "post_entry"]

LEGS_MAX = 100


class EntryLeg(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One leg that is asked for."""

    account_id: UUID
    direction: Direction
    amount: Amount


class PostEntry(Command):
    """Move money between up to 100 accounts at once. The id is the entry's idempotency key, for ever.

    An account may have several legs, all of them on one side.
    """

    entry_id: UUID = msgspec.field(default_factory=new_id)
    legs: Annotated[tuple[EntryLeg, ...], msgspec.Meta(min_length=2, max_length=LEGS_MAX)]
    currency: Currency
    description: Description | None = None
    reference: Reference | None = None
    effective_at: Moment | None = None
    metadata: Metadata = {}

    def idempotency_key(self) -> str:
        """The entry's id, which is a transfer's."""
        return f"transfer:{self.entry_id}"

    def new_ids(self) -> tuple[UUID, ...]:
        """The entry's id."""
        return (self.entry_id,)

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


class EntryPosting(msgspec.Struct, frozen=True):
    """The reply to `PostEntry`."""

    entry_id: UUID


@handles(PostEntry, sees_key_conflicts=True)
def post_entry(command: PostEntry, repository: Repository) -> EntryPosting:
    """Decide one entry: it becomes a transfer with legs, and is refused for the reasons of transfers in their order."""
    entry_id = command.entry_id
    legs = tuple(Leg(each.account_id, each.direction, each.amount) for each in command.legs)
    existing = repository.find(Transfer, entry_id)
    differing = repository.conflicting_field
    if differing is None and existing is not None:
        differing = _differing_field(existing, command, legs)
    if existing is not None and differing is None:
        return EntryPosting(entry_id)
    amount = _balanced_amount(legs)
    _check_sides(legs)
    accounts = find_accounts((leg.account_id for leg in legs), command.currency, repository)
    if differing is not None:
        raise TransferConflict(entry_id, differing)
    movements: list[Movement] = [
        (leg.direction, account, leg.amount) for leg, account in zip(legs, accounts, strict=True)
    ]
    check_room(movements)
    effective_at = command.effective_at or repository.now
    move_all(movements, transfer_id=entry_id, effective_at=effective_at, description=command.description)
    repository.create(
        Transfer.post,
        entry_id,
        legs=legs,
        amount=amount,
        currency=command.currency,
        effective_at=effective_at,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )
    return EntryPosting(entry_id)


def _balanced_amount(legs: tuple[Leg, ...]) -> int:
    """The sum of one side. InvalidAmount for a leg or for the sum, UnbalancedEntry for two sums."""
    debits = credits_ = 0
    for leg in legs:
        check_amount(leg.amount)
        if leg.direction == "debit":
            debits += leg.amount
        else:
            credits_ += leg.amount
    if debits != credits_:
        raise UnbalancedEntry(debits, credits_)
    check_amount(debits)
    return debits


def _check_sides(legs: tuple[Leg, ...]) -> None:
    """SameAccount for one that is on both sides: what it would give and take at once has no single sum to check."""
    sides: dict[UUID, Direction] = {}
    for leg in legs:
        if sides.setdefault(leg.account_id, leg.direction) != leg.direction:
            raise SameAccount(leg.account_id)


def _differing_field(existing: Transfer, command: PostEntry, legs: tuple[Leg, ...]) -> str | None:
    return existing.differing_field(
        "entry",
        legs=legs,
        currency=command.currency,
        effective_at=command.effective_at or existing.created_on,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )
