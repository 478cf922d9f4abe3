"""HTTP routes of transfers: post one or many, show one, list them; and the trial balance."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from cqrskit import (
    All,
    CommandResult,
    CommitUnknown,
    Condition,
    CqrskitError,
    IdempotencyConflict,
    Match,
    Query,
    Range,
    Reader,
    Rejected,
    Runtime,
    ServerUnavailable,
    Sort,
    Stored,
    Term,
)
from cqrskit.web import Commands, MinPosition, command_reply, problem_code, problem_statuses, refusals
from example_ledger.account_routes import SORT, effective_between, sort_of
from example_ledger.money import AMOUNT_MAX
from example_ledger.read_models import TrialBalance, TrialBalances
from example_ledger.refusals import REFUSALS_OF_MOVEMENTS, BatchAborted, TransferConflict, TransferNotFound
from example_ledger.replies import (
    BatchReply,
    BatchResult,
    CurrencyTrial,
    Cursor,
    Limit,
    PostingReply,
    Since,
    TransferItem,
    TransferList,
    TransferReply,
    TrialReply,
    Until,
    creation_reply,
    execute_new,
    item_of,
)
from example_ledger.transfer_documents import Transfers, TransferState
from example_ledger.transfers import BATCH_SIZE_MAX, PostBatch, PostTransfer

__all__ = ["TRANSFER_ROUTES", "BatchBody"]

TransferSort = Literal["position", "-position", "amount", "-amount", "effective_at", "-effective_at"]
AmountBound = Annotated[
    int | None, QueryParameter(ge=0, le=AMOUNT_MAX, description="minor units, this amount included")
]


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /transfers/batch. `independent`: each stands alone; `atomic`: all or none."""

    mode: Literal["independent", "atomic"]
    transfers: Annotated[list[PostTransfer], msgspec.Meta(min_length=1, max_length=BATCH_SIZE_MAX)]


@post("/transfers", opt=refusals(*REFUSALS_OF_MOVEMENTS))
async def post_transfer(data: JSONBody[PostTransfer], commands: NamedDependency[Commands]) -> Response[PostingReply]:
    """Move money. The transfer id makes a retry safe: it gives the first reply. So does an Idempotency-Key."""
    result = await execute_new(data, data.transfer_id, commands)
    return creation_reply(PostingReply(data.transfer_id, "posted", result.position), result)


@post("/transfers/batch", status_code=200, opt=refusals())
async def post_batch(
    data: JSONBody[BatchBody], commands: NamedDependency[Commands], runtime: NamedDependency[Runtime]
) -> Response[BatchReply]:
    """Post up to 8,192 transfers in one request; their events share the request's correlation id.

    An Idempotency-Key is the atomic batch's as a whole. In an independent one each transfer stands under its own id,
    and beside it under a key made from the request's and from its place.

    Once anything may have been posted, the reply is 200 and names every transfer, also those of which it cannot say yet
    what became of them (`unsettled`): their ids may have been made here, and are what a retry needs.
    """
    if data.mode == "atomic":
        outcome, results = await _post_atomically(data.transfers, commands)
    else:
        outcome, results = await _post_independently(data.transfers, commands)
    position = outcome.position or await _head_if_known(runtime)
    return command_reply(BatchReply(position, results), msgspec.structs.replace(outcome, position=position))


async def _head_if_known(runtime: Runtime) -> int:
    """Where the log stands; 0 if it cannot be asked: the ids of what may have been posted must be told all the same."""
    try:
        return await runtime.event_store.head()
    except ServerUnavailable:
        return 0


async def _post_atomically(
    transfers: list[PostTransfer], commands: Commands
) -> tuple[CommandResult, list[BatchResult]]:
    try:
        result = await commands.execute(PostBatch(transfers=tuple(transfers)))
    except BatchAborted as aborted:
        results = [BatchResult(each.transfer_id, "rejected", BatchAborted.code) for each in transfers]
        results[int(str(aborted.details["place"]))].code = str(aborted.details["code"])
        return CommandResult(None, aborted.position or 0, appended=False, replayed=aborted.replayed), results
    except CommitUnknown as unknown:
        return CommandResult(None, 0, appended=True), [_unsettled(each, unknown) for each in transfers]
    # Whatever it posted, it appended: so this is exact where the receipt of a key is gone, or there was no key.
    outcome = msgspec.structs.replace(result, replayed=not result.appended)
    return outcome, [BatchResult(each.transfer_id, "posted") for each in transfers]


async def _post_independently(
    transfers: list[PostTransfer], commands: Commands
) -> tuple[CommandResult, list[BatchResult]]:
    """The results, and what they come to: the last position of all, a replay if each is one.

    Raises the first error if each was given up and nothing was changed.
    """
    position = 0
    replayed = True
    results = []
    found = await commands.execute_many(transfers)
    if isinstance(found[0], CqrskitError) and not any(map(_may_have_changed_something, found)):
        raise found[0]
    for transfer, result in zip(transfers, found, strict=True):
        if isinstance(result, Rejected):
            key = commands.sent_key_for(transfer.transfer_id) if isinstance(result, TransferConflict) else None
            code = result.code if key is None else IdempotencyConflict.code
            results.append(BatchResult(transfer.transfer_id, "rejected", code))
            replayed = replayed and result.replayed
        elif isinstance(result, CqrskitError):
            results.append(_unsettled(transfer, result))
            replayed = False
            continue
        else:
            results.append(BatchResult(transfer.transfer_id, "posted"))
            replayed = replayed and not result.appended
        position = max(position, result.position or 0)
    return CommandResult(None, position, appended=not replayed, replayed=replayed), results


def _may_have_changed_something(result: CommandResult | CqrskitError) -> bool:
    """Whether it was decided, or perhaps was: of a refusal its id has an outcome from now on."""
    return isinstance(result, CommandResult | Rejected | CommitUnknown)


def _unsettled(transfer: PostTransfer, error: CqrskitError) -> BatchResult:
    return BatchResult(transfer.transfer_id, "unsettled", problem_code(error))


@get("/transfers/{transfer_id:uuid}", opt=problem_statuses(transfer_not_found=404) | refusals(TransferNotFound))
async def show_transfer(
    transfer_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
) -> TransferReply:
    """One transfer with its legs."""
    answer = await reader.get(Transfers, str(transfer_id), min_position=min_position)
    if answer.value is None:
        raise TransferNotFound(transfer_id)
    item = msgspec.structs.asdict(answer.value.document)
    return TransferReply(**item, stale=answer.stale, as_of_position=answer.as_of_position)


@get("/transfers")
async def list_transfers(
    reader: NamedDependency[Reader],
    min_position: MinPosition,
    q: Annotated[str | None, QueryParameter(description="words of description and reference")] = None,
    account_id: Annotated[UUID | None, QueryParameter(description="on either side")] = None,
    status: FromQuery[TransferState | None] = None,
    min_amount: AmountBound = None,
    max_amount: AmountBound = None,
    since: Since = None,
    until: Until = None,
    sort: Annotated[TransferSort, QueryParameter(description=SORT)] = "-position",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TransferList:
    """Transfers, newest first unless told otherwise; entries, holds and reversals are transfers too."""
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
    items = [item_of(row, TransferItem) for row in answer.value.items]
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
        found += [_trial(row) for row in answer.value.items]
        cursor = answer.value.next
        if cursor is None:
            return TrialReply(found, as_of_position)


def _trial(row: Stored) -> CurrencyTrial:
    document: TrialBalance = row.document
    totals = document.totals
    balanced = totals.debits == totals.credits
    return CurrencyTrial(document.currency, totals.debits, totals.credits, balanced, document.by_type, row.stale)


TRANSFER_ROUTES = [post_transfer, post_batch, show_transfer, list_transfers, show_trial_balance]
