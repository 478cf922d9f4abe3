"""HTTP routes of entries and reversals: transfers that are posted otherwise than from one account to another."""

from uuid import UUID

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from cqrskit import AggregateExists, new_id
from cqrskit.web import Commands, problem_statuses, refusals
from example_ledger.entries import PostEntry
from example_ledger.money import Amount
from example_ledger.movements import Moment, check_moment
from example_ledger.refusals import (
    REFUSALS_OF_MOVEMENTS,
    AccountClosed,
    AccountFrozen,
    AmountOverflow,
    ExceedsOriginal,
    IndivisibleEntry,
    InsufficientFunds,
    InvalidAmount,
    TransferConflict,
    TransferNotFound,
    UnbalancedEntry,
)
from example_ledger.replies import EntryReply, ReversalReply, creation_reply, execute_new
from example_ledger.reversals import Reversal, ReverseTransfer
from example_ledger.transfers import Description

__all__ = ["ENTRY_ROUTES", "ReversalBody"]

OF_REVERSALS = (
    InvalidAmount,
    AccountClosed,
    AccountFrozen,
    TransferConflict,
    TransferNotFound,
    ExceedsOriginal,
    IndivisibleEntry,
    InsufficientFunds,
    AmountOverflow,
    AggregateExists,
)


class ReversalBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /transfers/{id}/reverse; without an `amount` all that is not reversed yet is."""

    reversal_id: UUID = msgspec.field(default_factory=new_id)
    amount: Amount | None = None
    description: Description | None = None
    effective_at: Moment | None = None

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


@post("/entries", opt=refusals(*REFUSALS_OF_MOVEMENTS, UnbalancedEntry))
async def post_entry(data: JSONBody[PostEntry], commands: NamedDependency[Commands]) -> Response[EntryReply]:
    """Move money between 2 to 100 accounts at once. The entry's id makes a retry safe."""
    result = await execute_new(data, data.entry_id, commands)
    return creation_reply(EntryReply(data.entry_id, "posted", result.position), result)


@post("/transfers/{transfer_id:uuid}/reverse", opt=problem_statuses(transfer_not_found=404) | refusals(*OF_REVERSALS))
async def reverse_transfer(
    transfer_id: FromPath[UUID], commands: NamedDependency[Commands], data: JSONBody[ReversalBody | None] = None
) -> Response[ReversalReply]:
    """Move a transfer's money back by another transfer, the reversal, whose id makes a retry safe."""
    data = data or ReversalBody()
    command = ReverseTransfer(
        transfer_id=transfer_id,
        reversal_id=data.reversal_id,
        amount=data.amount,
        description=data.description,
        effective_at=data.effective_at,
    )
    result = await execute_new(command, data.reversal_id, commands)
    reversal: Reversal = result.reply
    reply = ReversalReply(reversal.reversal_id, transfer_id, reversal.amount, result.position)
    return creation_reply(reply, result)


ENTRY_ROUTES = [post_entry, reverse_transfer]
