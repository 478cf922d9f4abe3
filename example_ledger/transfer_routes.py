"""HTTP routes of transfers: post one or many, show one, list them; and the trial balance."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid4

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from cqrskit import (
    All,
    Condition,
    CqrskitError,
    Executor,
    Match,
    Metadata,
    Query,
    Range,
    Reader,
    Rejected,
    Runtime,
    Sort,
    Term,
)
from cqrskit.web import MinPosition, at_position, problem_statuses
from example_ledger.account_routes import effective_between, sort_of
from example_ledger.money import AMOUNT_MAX
from example_ledger.read_models import Transfers, TrialBalance, TrialBalances
from example_ledger.refusals import BatchAborted, TransferNotFound
from example_ledger.replies import (
    BatchReply,
    BatchResult,
    CurrencyTrial,
    Cursor,
    Limit,
    PostingReply,
    TransferItem,
    TransferList,
    TransferReply,
    TrialReply,
    command_reply,
)
from example_ledger.transfers import BATCH_SIZE_MAX, PostBatch, PostTransfer

__all__ = ["TRANSFER_ROUTES", "BatchBody"]

TransferSort = Literal["position", "-position", "amount", "-amount", "effective_at", "-effective_at"]
AmountBound = Annotated[int | None, QueryParameter(ge=0, le=AMOUNT_MAX)]


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /transfers/batch. `independent`: each stands alone; `atomic`: all or none."""

    mode: Literal["independent", "atomic"]
    transfers: Annotated[list[PostTransfer], msgspec.Meta(min_length=1, max_length=BATCH_SIZE_MAX)]


@post("/transfers")
async def post_transfer(data: JSONBody[PostTransfer], executor: NamedDependency[Executor]) -> Response[PostingReply]:
    """Move money. The transfer id makes a retry safe: it gives the first reply."""
    result = await executor.execute(data)
    return command_reply(PostingReply(data.transfer_id, "posted", result.position), result)


@post("/transfers/batch", status_code=200)
async def post_batch(
    data: JSONBody[BatchBody], executor: NamedDependency[Executor], runtime: NamedDependency[Runtime]
) -> Response[BatchReply]:
    """Post up to 8,192 transfers in one request; their events share a correlation id."""
    metadata = Metadata(correlation_id=uuid4().hex)
    if data.mode == "atomic":
        position, results = await _post_atomically(data.transfers, executor, metadata)
    else:
        position, results = await _post_independently(data.transfers, executor, metadata)
    if position is None:
        position = await runtime.event_store.head()
    return at_position(BatchReply(position, results), position)


async def _post_atomically(
    transfers: list[PostTransfer], executor: Executor, metadata: Metadata
) -> tuple[int | None, list[BatchResult]]:
    try:
        result = await executor.execute(PostBatch(transfers=tuple(transfers)), metadata)
    except BatchAborted as aborted:
        results = [BatchResult(each.transfer_id, "rejected", BatchAborted.code) for each in transfers]
        results[aborted.place].code = aborted.refusal.code
        return None, results
    return result.position, [BatchResult(each.transfer_id, "posted") for each in transfers]


async def _post_independently(
    transfers: list[PostTransfer], executor: Executor, metadata: Metadata
) -> tuple[int | None, list[BatchResult]]:
    position: int | None = None
    results = []
    for transfer, result in zip(transfers, await executor.execute_many(transfers, metadata), strict=True):
        if isinstance(result, Rejected):
            results.append(BatchResult(transfer.transfer_id, "rejected", result.code))
        elif isinstance(result, CqrskitError):
            raise result
        else:
            position = max(position or 0, result.position)
            results.append(BatchResult(transfer.transfer_id, "posted"))
    return position, results


@get("/transfers/{transfer_id:uuid}", opt=problem_statuses(transfer_not_found=404))
async def show_transfer(
    transfer_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
) -> TransferReply:
    """One transfer with its legs."""
    answer = await reader.get(Transfers, str(transfer_id), min_position=min_position)
    if answer.value is None:
        raise TransferNotFound(transfer_id)
    return TransferReply(**msgspec.structs.asdict(answer.value.document), as_of_position=answer.as_of_position)


@get("/transfers")
async def list_transfers(
    reader: NamedDependency[Reader],
    min_position: MinPosition,
    q: FromQuery[str | None] = None,
    account_id: FromQuery[UUID | None] = None,
    status: FromQuery[Literal["posted"] | None] = None,
    min_amount: AmountBound = None,
    max_amount: AmountBound = None,
    since: Annotated[
        datetime | None, QueryParameter(name="from", description="effective at this moment or later")
    ] = None,
    until: Annotated[datetime | None, QueryParameter(name="to", description="effective before this moment")] = None,
    sort: FromQuery[TransferSort] = "-position",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TransferList:
    """Transfers, newest first; `q` looks for words in description and reference."""
    conditions: list[Condition] = [*effective_between(since, until)]
    if q is not None:
        conditions.append(Match(("description", "reference"), q))
    if account_id is not None:
        conditions.append(Term("legs.account_id", account_id))
    if status is not None:
        conditions.append(Term("status", status))
    if min_amount is not None or max_amount is not None:
        conditions.append(Range("amount", gte=min_amount, lte=max_amount))
    query = Query(where=All(*conditions), sort=[sort_of(sort)], limit=limit, cursor=cursor)
    answer = await reader.search(Transfers, query, min_position=min_position)
    items = [msgspec.convert(row.document, TransferItem, from_attributes=True) for row in answer.value.items]
    return TransferList(items, answer.value.next, answer.as_of_position)


@get("/trial-balance")
async def show_trial_balance(reader: NamedDependency[Reader], min_position: MinPosition) -> TrialReply:
    """Debits and credits of every currency, in all and by type of account."""
    found: list[CurrencyTrial] = []
    as_of_position: int | None = None
    cursor: str | None = None
    while True:
        query = Query(sort=[Sort("currency")], limit=1_000, cursor=cursor)
        answer = await reader.search(TrialBalances, query, min_position=min_position)
        as_of_position = answer.as_of_position if as_of_position is None else as_of_position
        found += [_trial(row.document) for row in answer.value.items]
        cursor = answer.value.next
        if cursor is None:
            return TrialReply(found, as_of_position)


def _trial(document: TrialBalance) -> CurrencyTrial:
    totals = document.totals
    balanced = totals.debits == totals.credits
    return CurrencyTrial(document.currency, totals.debits, totals.credits, balanced, document.by_type)


TRANSFER_ROUTES = [post_transfer, post_batch, show_transfer, list_transfers, show_trial_balance]
