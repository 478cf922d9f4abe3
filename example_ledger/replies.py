"""What the HTTP API answers."""

from datetime import datetime
from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
from litestar import Response
from litestar.params import QueryParameter

from cqrskit import AggregateExists, Command, CommandResult, IdempotencyConflict, Stored
from cqrskit.web import Commands, command_reply
from example_ledger.money import AccountType, Currency, Direction, Leg
from example_ledger.movements import Moment
from example_ledger.read_models import SideTotals
from example_ledger.refusals import TransferConflict
from example_ledger.transfer_documents import TransferState
from example_ledger.transfers import Status

__all__ = [
    "AccountItem",
    "AccountList",
    "AccountReply",
    "BalanceReply",
    "BatchReply",
    "BatchResult",
    "CurrencyTrial",
    "Cursor",
    "EntryReply",
    "HoldReply",
    "Limit",
    "LineItem",
    "OpeningReply",
    "PostingReply",
    "ReversalReply",
    "Since",
    "Statement",
    "TransferItem",
    "TransferList",
    "TransferReply",
    "TrialReply",
    "Until",
    "creation_reply",
    "execute_new",
    "item_of",
]

T = TypeVar("T")
Item = TypeVar("Item", "AccountItem", "LineItem", "TransferItem")

Stale = Annotated[
    bool,
    msgspec.Meta(
        description="there, and true, only if an event could not be folded into this: it is older than the rest"
    ),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="rows on this page")]
Since = Annotated[
    Moment | None,
    QueryParameter(name="from", description="effective at this moment or later"),
]
Until = Annotated[Moment | None, QueryParameter(name="to", description="effective before this moment")]
Cursor = Annotated[str | None, QueryParameter(description="the `next` of the page before")]


def creation_reply(content: T, result: CommandResult) -> Response[T]:
    """201 for something new; 200 with ``Idempotent-Replay: true`` for a retry, whose body is the first reply's.

    Where receipts are kept for a while only, a handler recognises a later retry by its id, and then appends nothing.
    """
    return command_reply(content, msgspec.structs.replace(result, replayed=not result.appended))


async def execute_new(command: Command, new_id: UUID, commands: Commands) -> CommandResult:
    """Give a command that makes something new; a refusal about an id which the sender never named speaks of the key."""
    try:
        return await commands.execute(command)
    except (TransferConflict, AggregateExists) as refusal:
        key = commands.sent_key_for(new_id)
        if key is None:
            raise
        raise IdempotencyConflict(key, str(refusal.details.get("field", "content"))) from refusal


def item_of(row: Stored, item_class: type[Item]) -> Item:
    """What a row of a search is in a reply."""
    item = msgspec.convert(row.document, item_class, from_attributes=True)
    item.stale = row.stale
    return item


class OpeningReply(msgspec.Struct):
    """The reply to POST /accounts, and to what is done with an account."""

    account_id: UUID
    position: int


class PostingReply(msgspec.Struct):
    """The reply to POST /transfers."""

    transfer_id: UUID
    status: Literal["posted"]
    position: int


class EntryReply(msgspec.Struct):
    """The reply to POST /entries. The entry is a transfer, which has its id."""

    entry_id: UUID
    status: Literal["posted"]
    position: int


class HoldReply(msgspec.Struct):
    """The reply to POST /holds, /holds/{id}/capture and /holds/{id}/void. The hold is a transfer, which has its id.

    `amount` is what is held or was captured, and 0 for one that was voided.
    """

    hold_id: UUID
    status: Status
    amount: int
    expires_at: datetime | None
    position: int


class ReversalReply(msgspec.Struct):
    """The reply to POST /transfers/{id}/reverse. The reversal is a transfer, which has its id."""

    reversal_id: UUID
    transfer_id: UUID
    amount: int
    position: int


class BatchResult(msgspec.Struct, omit_defaults=True):
    """What became of one transfer of a batch; `code` says why it was rejected."""

    transfer_id: UUID
    status: Literal["posted", "rejected"]
    code: str | None = None


class BatchReply(msgspec.Struct):
    """The reply to POST /transfers/batch, in the order sent."""

    position: int
    results: list[BatchResult]


class AccountItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One account."""

    account_id: UUID
    name: str
    type: AccountType
    currency: Currency
    status: Literal["open", "frozen", "closed"]
    balance: int
    available: int
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    overdraft_limit: int | None
    metadata: dict[str, str]
    stale: Stale = False


class AccountReply(AccountItem, kw_only=True, omit_defaults=True):
    """The reply to GET /accounts/{id}."""

    as_of_position: int


class AccountList(msgspec.Struct):
    """The reply to GET /accounts."""

    items: list[AccountItem]
    next: str | None
    as_of_position: int


class LineItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a statement."""

    position: int
    transfer_id: UUID
    direction: Direction
    amount: int
    balance: int
    counterparty_account_id: UUID | None
    description: str | None
    effective_at: datetime
    recorded_at: datetime
    stale: Stale = False


class Statement(msgspec.Struct):
    """The reply to GET /accounts/{id}/statement, newest first."""

    items: list[LineItem]
    next: str | None
    as_of_position: int


class TransferItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One transfer. What only holds, reversals and reversed transfers have is there only for them."""

    transfer_id: UUID
    status: TransferState
    amount: int
    currency: Currency
    legs: list[Leg]
    description: str | None
    reference: str | None
    metadata: dict[str, str]
    effective_at: datetime
    recorded_at: datetime
    position: int
    reverses: UUID | None = None
    reversed_amount: int = 0
    held_amount: int | None = None
    expires_at: datetime | None = None
    stale: Stale = False


class TransferReply(TransferItem, kw_only=True, omit_defaults=True):
    """The reply to GET /transfers/{id}."""

    as_of_position: int


class TransferList(msgspec.Struct):
    """The reply to GET /transfers."""

    items: list[TransferItem]
    next: str | None
    as_of_position: int


class CurrencyTrial(msgspec.Struct, omit_defaults=True):
    """The trial balance of one currency; `balanced` when both sides are equal."""

    currency: Currency
    debits: int
    credits: int
    balanced: bool
    by_type: dict[str, SideTotals]
    stale: Stale = False


class BalanceReply(msgspec.Struct, omit_defaults=True):
    """The reply to GET /accounts/{id}/balance; `at` is the request's."""

    balance: int
    at: str
    basis: Literal["effective", "recorded"]
    as_of_position: int
    stale: Stale = False


class TrialReply(msgspec.Struct):
    """The reply to GET /trial-balance."""

    currencies: list[CurrencyTrial]
    as_of_position: int
