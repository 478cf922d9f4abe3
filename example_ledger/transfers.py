"""Transfers: one command is one atomic decision over a transfer and its accounts."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import msgspec

from cqrskit import Aggregate, Command, Rejected, Repository, handles, new_id
from example_ledger.accounts import WITHOUT_NUL, WITHOUT_NUL_IN_WORDS, Metadata
from example_ledger.money import Amount, Currency, Leg, StoredCurrency
from example_ledger.movements import (
    Moment,
    check_amount,
    check_moment,
    check_room,
    find_accounts,
    move_all,
    movements_between,
)
from example_ledger.refusals import BatchAborted, SameAccount, TransferConflict

__all__ = [
    "BATCH_SIZE_MAX",
    "Description",
    "Kind",
    "PostBatch",
    "PostTransfer",
    "Posting",
    "Reference",
    "Status",
    "Transfer",
    "legs_of",
    "post_batch",
    "post_transfer",
]

BATCH_SIZE_MAX = 8_192

Description = Annotated[
    str, msgspec.Meta(max_length=1_000, pattern=WITHOUT_NUL, examples=["rent for May"], extra=WITHOUT_NUL_IN_WORDS)
]
Reference = Annotated[
    str, msgspec.Meta(max_length=200, pattern=WITHOUT_NUL, examples=["invoice 4711"], extra=WITHOUT_NUL_IN_WORDS)
]
Status = Literal["posted", "held", "captured", "voided", "expired"]
Kind = Literal["transfer", "entry", "hold", "reversal"]


class Transfer(Aggregate):
    """One movement of money between accounts: posted at once, or held first and then captured or released."""

    captured_amount = 0
    reversed_amount = 0

    class Posted(Aggregate.Created, omit_defaults=True):
        """The money has moved. `amount` is that of one side.

        What few transfers have costs the others nothing, since it is stored only where it is there: an entry has `legs`
        in place of two accounts, a reversal has the id of the transfer that it `reverses`.
        """

        debit_account_id: UUID | None = None
        credit_account_id: UUID | None = None
        amount: int
        currency: StoredCurrency
        effective_at: datetime
        description: str | None
        reference: str | None
        metadata: Metadata
        legs: tuple[Leg, ...] = ()
        reverses: UUID | None = None

        def apply(self, aggregate: "Transfer") -> None:
            """Take over what few transfers have."""
            if self.legs:
                aggregate.legs = self.legs
            if self.reverses is not None:
                aggregate.reverses = self.reverses

    class Held(Aggregate.Created):
        """The money is set aside on one account, and expected on the other."""

        debit_account_id: UUID
        credit_account_id: UUID
        amount: int
        currency: StoredCurrency
        effective_at: datetime
        description: str | None
        reference: str | None
        metadata: Metadata
        expires_at: datetime | None

        def apply(self, aggregate: "Transfer") -> None:
            """Nothing is posted yet."""
            aggregate.status = "held"
            aggregate.expires_at = self.expires_at

    class Captured(Aggregate.Event):
        """The held money has moved, all of it or the `amount` only; what was held beyond it is free again."""

        amount: int
        effective_at: datetime

        def apply(self, aggregate: "Transfer") -> None:
            """The end of the hold."""
            aggregate.status = "captured"
            aggregate.captured_amount = self.amount

    class Voided(Aggregate.Event):
        """The hold was given up, its money is free again."""

        def apply(self, aggregate: "Transfer") -> None:
            """The end of the hold."""
            aggregate.status = "voided"

    class Expired(Aggregate.Event):
        """The time of the hold was over, its money is free again."""

        def apply(self, aggregate: "Transfer") -> None:
            """The end of the hold."""
            aggregate.status = "expired"

    class Reversed(Aggregate.Event):
        """Another transfer, the reversal, has moved this `amount` back."""

        reversal_id: UUID
        amount: int

        def apply(self, aggregate: "Transfer") -> None:
            """Less can be reversed from now on."""
            aggregate.reversed_amount += self.amount

    def __init__(
        self,
        amount: int,
        currency: Currency,
        effective_at: datetime,
        description: str | None,
        reference: str | None,
        metadata: Metadata,
        debit_account_id: UUID | None = None,
        credit_account_id: UUID | None = None,
    ) -> None:
        self.status: Status = "posted"
        self.debit_account_id = debit_account_id
        self.credit_account_id = credit_account_id
        self.amount = amount
        self.currency = currency
        self.effective_at = effective_at
        self.description = description
        self.reference = reference
        self.metadata = metadata
        self.legs: tuple[Leg, ...] = ()
        self.reverses: UUID | None = None
        self.expires_at: datetime | None = None

    @classmethod
    def post(
        cls,
        *,
        amount: int,
        currency: Currency,
        effective_at: datetime,
        description: str | None,
        reference: str | None,
        metadata: Metadata,
        debit_account_id: UUID | None = None,
        credit_account_id: UUID | None = None,
        legs: tuple[Leg, ...] = (),
        reverses: UUID | None = None,
    ) -> Self:
        """A transfer whose money has moved: between the two accounts, or as the legs say."""
        return cls._create(
            cls.Posted,
            debit_account_id=debit_account_id,
            credit_account_id=credit_account_id,
            amount=amount,
            currency=currency,
            effective_at=effective_at,
            description=description,
            reference=reference,
            metadata=metadata,
            legs=legs,
            reverses=reverses,
        )

    @classmethod
    def hold(
        cls,
        *,
        debit_account_id: UUID,
        credit_account_id: UUID,
        amount: int,
        currency: Currency,
        effective_at: datetime,
        description: str | None,
        reference: str | None,
        metadata: Metadata,
        expires_at: datetime | None,
    ) -> Self:
        """A transfer whose money is held; it can be captured before `expires_at`, if there is such a moment."""
        return cls._create(
            cls.Held,
            debit_account_id=debit_account_id,
            credit_account_id=credit_account_id,
            amount=amount,
            currency=currency,
            effective_at=effective_at,
            description=description,
            reference=reference,
            metadata=metadata,
            expires_at=expires_at,
        )

    @property
    def kind(self) -> Kind:
        """As what it began."""
        if self.status != "posted":
            return "hold"
        if self.reverses is not None:
            return "reversal"
        return "entry" if self.legs else "transfer"

    @property
    def posted_amount(self) -> int:
        """How much has moved: nothing unless it is posted or captured."""
        return self.amount if self.status == "posted" else self.captured_amount

    def capture(self, amount: int, effective_at: datetime) -> None:
        """The hold has become a posting."""
        self.trigger_event(self.Captured, amount=amount, effective_at=effective_at)

    def void(self) -> None:
        """The hold is given up."""
        self.trigger_event(self.Voided)

    def expire(self) -> None:
        """The hold's time is over."""
        self.trigger_event(self.Expired)

    def reverse(self, amount: int, reversal_id: UUID) -> None:
        """Another transfer has moved so much back."""
        self.trigger_event(self.Reversed, reversal_id=reversal_id, amount=amount)

    def differing_field(self, kind: Kind, **content: object) -> str | None:
        """The first field in which a command is another transfer than this one; None for a retry of it."""
        if self.kind != kind:
            return "command"
        return next((field for field, value in content.items() if getattr(self, field) != value), None)


def legs_of(transfer: Transfer | Transfer.Posted | Transfer.Held) -> tuple[Leg, ...]:
    """The legs of a transfer, those of one between two accounts too."""
    debited, credited = transfer.debit_account_id, transfer.credit_account_id
    if debited is None or credited is None:
        return () if isinstance(transfer, Transfer.Held) else transfer.legs
    return Leg(debited, "debit", transfer.amount), Leg(credited, "credit", transfer.amount)


class PostTransfer(Command):
    """Move money at once. The id is the transfer's idempotency key, for ever."""

    transfer_id: UUID = msgspec.field(default_factory=new_id)
    debit_account_id: UUID
    credit_account_id: UUID
    amount: Amount
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
        check_moment(self.effective_at)


class Posting(msgspec.Struct, frozen=True):
    """The reply to `PostTransfer`."""

    transfer_id: UUID


class PostBatch(Command):
    """Post all of these transfers, in order, or none of them."""

    transfers: Annotated[tuple[PostTransfer, ...], msgspec.Meta(min_length=1, max_length=BATCH_SIZE_MAX)]

    def new_ids(self) -> tuple[UUID, ...]:
        """The ids of all transfers."""
        return tuple(each.transfer_id for each in self.transfers)

    def contained_commands(self) -> tuple[PostTransfer, ...]:
        """The transfers: under its id each has one outcome, posted alone or in here."""
        return self.transfers


@handles(PostTransfer, sees_key_conflicts=True)
def post_transfer(command: PostTransfer, repository: Repository) -> Posting:
    """Decide one transfer; see `example_ledger.refusals` for the order of what it is refused for.

    A retry gets the first reply from its receipt. Where receipts are kept for a while only, a later one finds the
    transfer itself, and looks at nothing else, so that the position of its reply is the first reply's:
    `Transfer.Posted` is the last event of a posting for this reason. (Once the transfer is reversed, it is that of the
    last reversal.)
    """
    transfer_id = command.transfer_id
    existing = repository.find(Transfer, transfer_id)
    differing = repository.conflicting_field
    if differing is None and existing is not None:
        differing = _differing_field(existing, command)
    if existing is not None and differing is None:
        return Posting(transfer_id)
    amount = command.amount
    check_amount(amount)
    debit_account_id, credit_account_id = command.debit_account_id, command.credit_account_id
    if debit_account_id == credit_account_id:
        raise SameAccount(debit_account_id)
    debited, credited = find_accounts((debit_account_id, credit_account_id), command.currency, repository)
    if differing is not None:
        raise TransferConflict(transfer_id, differing)
    movements = movements_between(debited, credited, amount)
    check_room(movements)
    effective_at = command.effective_at or repository.now
    move_all(movements, transfer_id=transfer_id, effective_at=effective_at, description=command.description)
    repository.create(
        Transfer.post,
        transfer_id,
        debit_account_id=debit_account_id,
        credit_account_id=credit_account_id,
        amount=amount,
        currency=command.currency,
        effective_at=effective_at,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )
    return Posting(transfer_id)


def _differing_field(existing: Transfer, command: PostTransfer) -> str | None:
    return existing.differing_field(
        "transfer",
        debit_account_id=command.debit_account_id,
        credit_account_id=command.credit_account_id,
        amount=command.amount,
        currency=command.currency,
        effective_at=command.effective_at or existing.created_on,
        description=command.description,
        reference=command.reference,
        metadata=command.metadata,
    )


@handles(PostBatch)
def post_batch(command: PostBatch, repository: Repository) -> list[Posting]:
    """Post all transfers, each seeing those before it; the first refusal is raised as BatchAborted.

    One that was refused before, under its id, is refused again; one that was posted before stays posted.
    """
    postings = []
    for place, transfer in enumerate(command.transfers):
        try:
            postings.append(repository.decide(transfer))
        except Rejected as refusal:
            raise BatchAborted(place, refusal) from refusal
    return postings
