"""The read model of transfers: what each one moves, and what has become of it."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from cqrskit import Indexed, Projection, RecordedEvent, Text, Unindexed, on
from example_ledger.money import Currency, Leg
from example_ledger.transfers import Transfer, legs_of

__all__ = ["TransferDocument", "TransferState", "Transfers"]

TransferState = Literal["posted", "held", "captured", "voided", "expired", "partially_reversed", "reversed"]


class TransferDocument(msgspec.Struct, frozen=True):
    """One transfer and what has become of it.

    Once a hold is captured, `amount` and `legs` say what has moved, and `held_amount` what was held before.
    """

    transfer_id: UUID
    status: TransferState
    amount: Annotated[int, Indexed()]
    currency: Currency
    legs: list[Leg]
    description: Annotated[str | None, Text()]
    reference: Annotated[str | None, Text(keyword=True)]
    metadata: dict[str, str]
    effective_at: Annotated[datetime, Indexed()]
    recorded_at: datetime
    position: Annotated[int, Indexed()]
    reverses: UUID | None
    reversed_amount: Annotated[int, Unindexed()]
    held_amount: Annotated[int | None, Unindexed()]
    expires_at: datetime | None


class Transfers(Projection):
    """All transfers, by transfer id."""

    document = TransferDocument

    @on(Transfer.Posted, creates=True)
    def posted(self, transfer: None, event: Transfer.Posted, at: RecordedEvent) -> TransferDocument:
        """The money has moved."""
        return _begun("posted", event, at, reverses=event.reverses)

    @on(Transfer.Held, creates=True)
    def held(self, transfer: None, event: Transfer.Held, at: RecordedEvent) -> TransferDocument:
        """The money is set aside."""
        return _begun("held", event, at, held_amount=event.amount, expires_at=event.expires_at)

    @on(Transfer.Captured)
    def captured(self, transfer: TransferDocument, event: Transfer.Captured, at: RecordedEvent) -> TransferDocument:
        """The held money has moved, or a part of it."""
        legs = [msgspec.structs.replace(leg, amount=event.amount) for leg in transfer.legs]
        return msgspec.structs.replace(
            transfer, status="captured", amount=event.amount, legs=legs, effective_at=event.effective_at
        )

    @on(Transfer.Voided)
    def voided(self, transfer: TransferDocument, event: Transfer.Voided, at: RecordedEvent) -> TransferDocument:
        """The hold was given up."""
        return msgspec.structs.replace(transfer, status="voided")

    @on(Transfer.Expired)
    def expired(self, transfer: TransferDocument, event: Transfer.Expired, at: RecordedEvent) -> TransferDocument:
        """The hold's time was over."""
        return msgspec.structs.replace(transfer, status="expired")

    @on(Transfer.Reversed)
    def reversed(self, transfer: TransferDocument, event: Transfer.Reversed, at: RecordedEvent) -> TransferDocument:
        """So much more was moved back."""
        reversed_amount = transfer.reversed_amount + event.amount
        status: TransferState = "reversed" if reversed_amount >= transfer.amount else "partially_reversed"
        return msgspec.structs.replace(transfer, status=status, reversed_amount=reversed_amount)


def _begun(
    status: TransferState,
    event: Transfer.Posted | Transfer.Held,
    at: RecordedEvent,
    *,
    reverses: UUID | None = None,
    held_amount: int | None = None,
    expires_at: datetime | None = None,
) -> TransferDocument:
    return TransferDocument(
        transfer_id=at.stream_id,
        status=status,
        amount=event.amount,
        currency=event.currency,
        legs=list(legs_of(event)),
        description=event.description,
        reference=event.reference,
        metadata=event.metadata,
        effective_at=event.effective_at,
        recorded_at=at.recorded_at,
        position=at.position,
        reverses=reverses,
        reversed_amount=0,
        held_amount=held_amount,
        expires_at=expires_at,
    )
