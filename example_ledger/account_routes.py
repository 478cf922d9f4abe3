"""HTTP routes of accounts: open one, show it, list them, its statement."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from cqrskit import AggregateExists, All, Command, Match, Query, Range, Reader, Sort, Term
from cqrskit.web import Commands, MinPosition, command_reply, problem_statuses, refusals
from example_ledger.account_commands import (
    CloseAccount,
    FreezeAccount,
    SetAccountMetadata,
    SetOverdraftLimit,
    UnfreezeAccount,
)
from example_ledger.accounts import Metadata, OpenAccount, OverdraftLimit
from example_ledger.money import AccountStatus, AccountType, Currency
from example_ledger.read_models import Accounts, StatementLines
from example_ledger.refusals import AccountClosed, AccountNotEmpty, AccountNotFound, LimitBelowUse
from example_ledger.replies import (
    AccountItem,
    AccountList,
    AccountReply,
    Cursor,
    Limit,
    LineItem,
    OpeningReply,
    Since,
    Statement,
    Until,
    creation_reply,
    execute_new,
    item_of,
)

__all__ = ["ACCOUNT_ROUTES", "SORT", "LimitBody", "MetadataBody", "effective_between", "sort_of"]

KNOWN_ACCOUNT = problem_statuses(account_not_found=404) | refusals(AccountNotFound)
OPEN_ACCOUNT = KNOWN_ACCOUNT | refusals(AccountNotFound, AccountClosed)

SORT = "with `-` before it: largest or latest first"
AccountSort = Literal["name", "-name", "balance", "-balance", "opened_at", "-opened_at"]


@post("/accounts", opt=refusals(AggregateExists))
async def open_account(data: JSONBody[OpenAccount], commands: NamedDependency[Commands]) -> Response[OpeningReply]:
    """Open an account. The same request again gives the first reply."""
    result = await execute_new(data, data.account_id, commands)
    return creation_reply(OpeningReply(data.account_id, result.position), result)


@get("/accounts/{account_id:uuid}", opt=KNOWN_ACCOUNT)
async def show_account(
    account_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
) -> AccountReply:
    """One account with its counters, balance and what is available."""
    answer = await reader.get(Accounts, str(account_id), min_position=min_position)
    if answer.value is None:
        raise AccountNotFound(account_id)
    item = msgspec.structs.asdict(answer.value.document)
    item.pop("metadata_text")
    item.pop("opened_at")
    return AccountReply(**item, stale=answer.stale, as_of_position=answer.as_of_position)


@get("/accounts")
async def list_accounts(
    reader: NamedDependency[Reader],
    min_position: MinPosition,
    q: Annotated[str | None, QueryParameter(description="words of name and metadata")] = None,
    type: FromQuery[AccountType | None] = None,
    currency: FromQuery[Currency | None] = None,
    status: FromQuery[AccountStatus | None] = None,
    sort: Annotated[AccountSort, QueryParameter(description=SORT)] = "name",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AccountList:
    """Accounts, by name unless told otherwise."""
    conditions = [Term(field, value) for field, value in _given(type=type, currency=currency, status=status)]
    where = All(*conditions) if q is None else All(*conditions, Match(("name", "metadata_text"), q))
    query = Query(where=where, sort=[sort_of(sort)], limit=limit, cursor=cursor)
    answer = await reader.search(Accounts, query, min_position=min_position)
    items = [item_of(row, AccountItem) for row in answer.value.items]
    return AccountList(items, answer.value.next, answer.as_of_position)


def _given(**values: str | None) -> list[tuple[str, str]]:
    return [(name, value) for name, value in values.items() if value is not None]


def sort_of(name: str) -> Sort:
    """``-balance`` is balance, largest first."""
    return Sort(name.removeprefix("-"), descending=name.startswith("-"))


@get("/accounts/{account_id:uuid}/statement", opt=KNOWN_ACCOUNT)
async def show_statement(
    account_id: FromPath[UUID],
    reader: NamedDependency[Reader],
    min_position: MinPosition,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Statement:
    """One account's movements, newest first, each with the balance after it."""
    where = All(Term("account_id", account_id), *effective_between(since, until))
    query = Query(where=where, sort=[Sort("position", descending=True)], limit=limit, cursor=cursor)
    answer = await reader.search(StatementLines, query, min_position=min_position)
    if not answer.value.items:
        account = await reader.get(Accounts, str(account_id), min_position=min_position)
        if account.value is None:
            raise AccountNotFound(account_id)
    items = [item_of(row, LineItem) for row in answer.value.items]
    return Statement(items, answer.value.next, answer.as_of_position)


def effective_between(since: datetime | None, until: datetime | None) -> list[Range]:
    """The condition of a span of effective time: from its beginning, up to but without its end."""
    if since is None and until is None:
        return []
    return [Range("effective_at", gte=since, lt=until)]


class LimitBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /accounts/{id}/overdraft-limit; null: without limit."""

    overdraft_limit: OverdraftLimit | None


class MetadataBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /accounts/{id}/metadata."""

    metadata: Metadata


@post("/accounts/{account_id:uuid}/freeze", status_code=200, opt=OPEN_ACCOUNT)
async def freeze_account(account_id: FromPath[UUID], commands: NamedDependency[Commands]) -> Response[OpeningReply]:
    """Let no money in or out. A frozen account stays as it is."""
    return await _changed(FreezeAccount(account_id=account_id), account_id, commands)


@post("/accounts/{account_id:uuid}/unfreeze", status_code=200, opt=OPEN_ACCOUNT)
async def unfreeze_account(account_id: FromPath[UUID], commands: NamedDependency[Commands]) -> Response[OpeningReply]:
    """Let a frozen account take movements again. An open account stays as it is."""
    return await _changed(UnfreezeAccount(account_id=account_id), account_id, commands)


@post(
    "/accounts/{account_id:uuid}/close", status_code=200, opt=KNOWN_ACCOUNT | refusals(AccountNotFound, AccountNotEmpty)
)
async def close_account(account_id: FromPath[UUID], commands: NamedDependency[Commands]) -> Response[OpeningReply]:
    """End an empty account for good. A closed account stays as it is."""
    return await _changed(CloseAccount(account_id=account_id), account_id, commands)


@put(
    "/accounts/{account_id:uuid}/overdraft-limit",
    opt=KNOWN_ACCOUNT | refusals(AccountNotFound, AccountClosed, LimitBelowUse),
)
async def set_overdraft_limit(
    account_id: FromPath[UUID], data: JSONBody[LimitBody], commands: NamedDependency[Commands]
) -> Response[OpeningReply]:
    """How far the account may be overdrawn from now on; not less than it is already."""
    command = SetOverdraftLimit(account_id=account_id, overdraft_limit=data.overdraft_limit)
    return await _changed(command, account_id, commands)


@put("/accounts/{account_id:uuid}/metadata", opt=KNOWN_ACCOUNT)
async def set_account_metadata(
    account_id: FromPath[UUID], data: JSONBody[MetadataBody], commands: NamedDependency[Commands]
) -> Response[OpeningReply]:
    """Put this in the place of the account's metadata."""
    return await _changed(SetAccountMetadata(account_id=account_id, metadata=data.metadata), account_id, commands)


async def _changed(command: Command, account_id: UUID, commands: Commands) -> Response[OpeningReply]:
    result = await commands.execute(command)
    return command_reply(OpeningReply(account_id, result.position), result)


ACCOUNT_ROUTES = [
    open_account,
    show_account,
    list_accounts,
    show_statement,
    freeze_account,
    unfreeze_account,
    close_account,
    set_overdraft_limit,
    set_account_metadata,
]
