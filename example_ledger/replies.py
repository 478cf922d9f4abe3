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
Position = Annotated[
    int,
    msgspec.Meta(
        description="of the command's last event in the log: a query with it as `min_position` sees what was done",
        examples=[1207],
        extra_json_schema={"minimum": 0},
    ),
]
AsOf = Annotated[
    int,
    msgspec.Meta(
        description="the answer has every event up to this position", examples=[1207], extra_json_schema={"minimum": 0}
    ),
]
Next = Annotated[
    str | None, msgspec.Meta(description="the `cursor` of the next page; null at the end, otherwise more may follow")
]
MinorUnits = Annotated[int, msgspec.Meta(description="minor units", examples=[1250], extra_json_schema={"minimum": 0})]
Sum = Annotated[int, msgspec.Meta(description="minor units; may exceed 64 bits", extra_json_schema={"minimum": 0})]
Balance = Annotated[
    int, msgspec.Meta(description="minor units, on the account's normal side; negative when it is overdrawn")
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
    position: Position


class PostingReply(msgspec.Struct):
    """The reply to POST /transfers."""

    transfer_id: UUID
    status: Literal["posted"]
    position: Position


class EntryReply(msgspec.Struct):
    """The reply to POST /entries. The entry is a transfer, which has its id."""

    entry_id: UUID
    status: Literal["posted"]
    position: Position


class HoldReply(msgspec.Struct):
    """The reply to POST /holds, /holds/{id}/capture and /holds/{id}/void. The hold is a transfer, which has its id.

    `amount` is what is held or was captured, and 0 for one that was voided.
    """

    hold_id: UUID
    status: Status
    amount: int
    expires_at: datetime | None
    position: Position


class ReversalReply(msgspec.Struct):
    """The reply to POST /transfers/{id}/reverse. The reversal is a transfer, which has its id."""

    reversal_id: UUID
    transfer_id: UUID
    amount: int
    position: Position


class BatchResult(msgspec.Struct, omit_defaults=True):
    """What became of one transfer of a batch; `code` says why it was rejected, or is unsettled.

    Unsettled is what was not decided in time, or at all: nothing was changed. With the code `commit_unknown` it may
    have been posted. Either way it can be sent again with this `transfer_id`, and then is posted once.
    """

    transfer_id: UUID
    status: Literal["posted", "rejected", "unsettled"]
    code: Annotated[
        str | None,
        msgspec.Meta(description="of the refusal, or why it is unsettled; not there for one that was posted"),
    ] = None


class BatchReply(msgspec.Struct):
    """The reply to POST /transfers/batch, in the order sent."""

    position: Position
    results: list[BatchResult]


class AccountItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One account."""

    account_id: UUID
    name: str
    type: AccountType
    currency: Currency
    status: Literal["open", "frozen", "closed"]
    balance: Balance
    available: Annotated[int, msgspec.Meta(description="the balance less the holds that would reduce it")]
    debits_posted: MinorUnits
    credits_posted: MinorUnits
    debits_pending: MinorUnits
    credits_pending: MinorUnits
    overdraft_limit: Annotated[
        int | None, msgspec.Meta(description="how far available may fall below zero; null: without limit")
    ]
    metadata: dict[str, str]
    stale: Stale = False


class AccountReply(AccountItem, kw_only=True, omit_defaults=True):
    """The reply to GET /accounts/{id}."""

    as_of_position: AsOf


class AccountList(msgspec.Struct):
    """The reply to GET /accounts."""

    items: list[AccountItem]
    next: Next
    as_of_position: AsOf


class LineItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a statement."""

    position: Annotated[int, msgspec.Meta(description="of the event that moved the money")]
    transfer_id: UUID
    direction: Direction
    amount: MinorUnits
    balance: Annotated[int, msgspec.Meta(description="of the account after this movement")]
    counterparty_account_id: Annotated[
        UUID | None, msgspec.Meta(description="null where the other side of an entry has several accounts")
    ]
    description: str | None
    effective_at: datetime
    recorded_at: datetime
    stale: Stale = False


class Statement(msgspec.Struct):
    """The reply to GET /accounts/{id}/statement, newest first."""

    items: list[LineItem]
    next: Next
    as_of_position: AsOf


class TransferItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One transfer. What only holds, reversals and reversed transfers have is there only for them."""

    transfer_id: UUID
    status: TransferState
    amount: Annotated[int, msgspec.Meta(description="minor units of one side; of a hold, what is held or was captured")]
    currency: Currency
    legs: list[Leg]
    description: str | None
    reference: str | None
    metadata: dict[str, str]
    effective_at: datetime
    recorded_at: datetime
    position: Annotated[int, msgspec.Meta(description="of the event that made it")]
    reverses: Annotated[UUID | None, msgspec.Meta(description="of a reversal: the transfer that it moves back")] = None
    reversed_amount: Annotated[int, msgspec.Meta(description="how much of it was moved back")] = 0
    held_amount: Annotated[int | None, msgspec.Meta(description="of a captured hold: what was held")] = None
    expires_at: Annotated[datetime | None, msgspec.Meta(description="of a hold: when it ends")] = None
    stale: Stale = False


class TransferReply(TransferItem, kw_only=True, omit_defaults=True):
    """The reply to GET /transfers/{id}."""

    as_of_position: AsOf


class TransferList(msgspec.Struct):
    """The reply to GET /transfers."""

    items: list[TransferItem]
    next: Next
    as_of_position: AsOf


class CurrencyTrial(msgspec.Struct, omit_defaults=True):
    """The trial balance of one currency; `balanced` when both sides are equal."""

    currency: Currency
    debits: Sum
    credits: Sum
    balanced: bool
    by_type: dict[str, SideTotals]
    stale: Stale = False


class BalanceReply(msgspec.Struct, omit_defaults=True):
    """The reply to GET /accounts/{id}/balance; `at` is the request's."""

    balance: Balance
    at: str
    basis: Literal["effective", "recorded"]
    as_of_position: AsOf
    stale: Stale = False


class TrialReply(msgspec.Struct):
    """The reply to GET /trial-balance."""

    currencies: list[CurrencyTrial]
    as_of_position: AsOf
