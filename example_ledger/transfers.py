"""Transfers: one command is one atomic decision over a transfer and its two accounts."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import Aggregate, Command, Rejected, Repository, event, handles, new_id
from example_ledger.accounts import WITHOUT_NUL, Account, Metadata
from example_ledger.money import AMOUNT_MAX, Currency, Direction
from example_ledger.refusals import (
    AccountNotFound,
    BatchAborted,
    CurrencyMismatch,
    InvalidAmount,
    SameAccount,
    TransferConflict,
)

__all__ = [
    "BATCH_SIZE_MAX",
    "EFFECTIVE_MAX",
    "EFFECTIVE_MIN",
    "Description",
    "PostBatch",
    "PostTransfer",
    "Posting",
    "Reference",
    "Transfer",
    "post_batch",
    "post_transfer",
]

BATCH_SIZE_MAX = 8_192
EFFECTIVE_MIN = datetime(1970, 1, 1, tzinfo=UTC)
EFFECTIVE_MAX = datetime(2261, 12, 31, tzinfo=UTC)
"""Read models search moments from 1970 to 2261."""

Description = Annotated[str, msgspec.Meta(max_length=1_000, pattern=WITHOUT_NUL)]
Reference = Annotated[str, msgspec.Meta(max_length=200, pattern=WITHOUT_NUL)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Transfer(Aggregate):
    """One movement of money, from the account that is debited to the one that is credited."""

    class Posted(Aggregate.Created):
        """The money has moved."""

        debit_account_id: UUID
        credit_account_id: UUID
        amount: int
        currency: Currency
        effective_at: datetime
        description: str | None
        reference: str | None
        metadata: Metadata

    @event(Posted)
    def __init__(
        self,
        debit_account_id: UUID,
        credit_account_id: UUID,
        amount: int,
        currency: Currency,
        effective_at: datetime,
        description: str | None,
        reference: str | None,
        metadata: Metadata,
    ) -> None:
        self.debit_account_id = debit_account_id
        self.credit_account_id = credit_account_id
        self.amount = amount
        self.currency = currency
        self.effective_at = effective_at
        self.description = description
        self.reference = reference
        self.metadata = metadata

    def differing_field(self, command: "PostTransfer") -> str | None:
        """The first field in which a command is another transfer than this one; None for a retry of it."""
        for field in ("debit_account_id", "credit_account_id", "amount", "currency"):
            if getattr(self, field) != getattr(command, field):
                return field
        if self.effective_at != (command.effective_at or self.created_on):
            return "effective_at"
        for field in ("description", "reference", "metadata"):
            if getattr(self, field) != getattr(command, field):
                return field
        return None


class PostTransfer(Command):
    """Move money at once. The id is the transfer's idempotency key, for ever."""

    transfer_id: UUID = msgspec.field(default_factory=new_id)
    debit_account_id: UUID
    credit_account_id: UUID
    amount: int
    currency: Currency
    description: Description | None = None
    reference: Reference | None = None
    effective_at: Moment | None = None
    metadata: Metadata = {}

    def idempotency_key(self) -> str:
        """The transfer's id."""
        return f"transfer:{self.transfer_id}"

    def new_ids(self) -> tuple[UUID, ...]:
        """The transfer's id."""
        return (self.transfer_id,)

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        if self.effective_at is not None and not EFFECTIVE_MIN <= self.effective_at <= EFFECTIVE_MAX:
            raise ValueError(f"effective_at must be from {EFFECTIVE_MIN:%Y-%m-%d} to {EFFECTIVE_MAX:%Y-%m-%d}")


class Posting(msgspec.Struct, frozen=True):
    """The reply to `PostTransfer`."""

    transfer_id: UUID


class PostBatch(Command):
    """Post all of these transfers, in order, or none of them."""

    transfers: Annotated[tuple[PostTransfer, ...], msgspec.Meta(min_length=1, max_length=BATCH_SIZE_MAX)]

    def new_ids(self) -> tuple[UUID, ...]:
        """The ids of all transfers."""
        return tuple(each.transfer_id for each in self.transfers)


@handles(PostTransfer, sees_key_conflicts=True)
def post_transfer(command: PostTransfer, repository: Repository) -> Posting:
    """Decide one transfer; see `example_ledger.refusals` for the order of what it is refused for.

    A retry gets the first reply from its receipt. Where receipts are kept for a while only, a later one finds the
    transfer itself, and looks at nothing else, so that the position of its reply is the first reply's:
    `Transfer.Posted` is the last event of a posting for this reason.
    """
    transfer_id = command.transfer_id
    existing = repository.find(Transfer, transfer_id)
    differing = repository.conflicting_field
    if differing is None and existing is not None:
        differing = existing.differing_field(command)
    if existing is not None and differing is None:
        return Posting(transfer_id)
    amount = command.amount
    if not 1 <= amount <= AMOUNT_MAX:
        raise InvalidAmount(amount)
    if command.debit_account_id == command.credit_account_id:
        raise SameAccount(command.debit_account_id)
    debited = _account(command.debit_account_id, repository)
    credited = _account(command.credit_account_id, repository)
    for account in (debited, credited):
        if account.currency != command.currency:
            raise CurrencyMismatch(account.id, account.currency, command.currency)
    if differing is not None:
        raise TransferConflict(transfer_id, differing)
    debited.check_funds(debit=amount)
    credited.check_funds(credit=amount)
    debited.check_counters(debit=amount)
    credited.check_counters(credit=amount)
    _post(command, debited, credited, repository)
    return Posting(transfer_id)


def _account(account_id: UUID, repository: Repository) -> Account:
    account = repository.find(Account, account_id)
    if account is None:
        raise AccountNotFound(account_id)
    return account


def _post(command: PostTransfer, debited: Account, credited: Account, repository: Repository) -> None:
    effective_at = command.effective_at or repository.now
    sides: list[tuple[Direction, Account, Account]] = [("debit", debited, credited), ("credit", credited, debited)]
    for direction, account, other in sides:
        account.move(
            direction,
            command.amount,
            transfer_id=command.transfer_id,
            counterparty=other.id,
            effective_at=effective_at,
            description=command.description,
        )
    repository.create(
        Transfer,
        command.transfer_id,
        debit_account_id=debited.id,
        credit_account_id=credited.id,
        amount=command.amount,
        currency=command.currency,
        effective_at=effective_at,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )


@handles(PostBatch)
def post_batch(command: PostBatch, repository: Repository) -> list[Posting]:
    """Post all transfers, each seeing those before it; the first refusal is raised as BatchAborted."""
    postings = []
    for place, transfer in enumerate(command.transfers):
        try:
            postings.append(post_transfer(transfer, repository))
        except Rejected as refusal:
            raise BatchAborted(place, refusal) from refusal
    return postings
