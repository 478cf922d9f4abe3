"""A small bank: the application that the tests of the web and of the command line put to work."""

import asyncio
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Litestar, Response, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody

from cqrskit import (
    Aggregate,
    Application,
    Command,
    Projection,
    Query,
    Reader,
    RecordedEvent,
    Rejected,
    Repository,
    Settings,
    event,
    handles,
    new_id,
    on,
)
from cqrskit.web import Commands, CqrskitPlugin, MinPosition, command_reply, problem_statuses

Amount = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class AccountClosed(Rejected):
    """The account takes no money any more."""

    code = "account_closed"


class OverLimit(Rejected):
    """More than the bank takes at once."""

    code = "over_limit"


class Account(Aggregate):
    """An account that money can be put into."""

    class Opened(Aggregate.Created):
        """It exists."""

        owner: str

    class Credited(Aggregate.Event):
        """Money came."""

        amount: int

    @event(Opened)
    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.balance = 0

    @event(Credited)
    def credit(self, amount: int) -> None:
        """Take money."""
        self.balance += amount


class Open(Command):
    """Open an account."""

    account_id: UUID
    owner: str


class Credit(Command):
    """Put money into an account."""

    account_id: UUID
    amount: Amount


@handles(Open)
def open_account(command: Open, repository: Repository) -> None:
    """Open an account whose id is free."""
    repository.create(Account, command.account_id, owner=command.owner)


@handles(Credit)
def credit_account(command: Credit, repository: Repository) -> int:
    """Refuse large amounts, and fail at 666 to show what an unexpected error looks like."""
    account = repository.get(Account, command.account_id)
    if command.amount > 1_000_000:
        raise OverLimit("at most 1000000 at once", limit=1_000_000)
    if command.amount == 13:
        raise AccountClosed("the account is closed", account_id=str(command.account_id))
    if command.amount == 666:
        raise ZeroDivisionError("secret of the house")
    account.credit(command.amount)
    return account.balance


class Balance(msgspec.Struct, frozen=True):
    """What an account has."""

    owner: str
    amount: int


class Balances(Projection):
    """Every account's balance."""

    document = Balance

    @on(Account.Opened, creates=True)
    def opened(self, balance: None, event: Account.Opened, at: RecordedEvent) -> Balance:
        """Begin with nothing."""
        return Balance(owner=event.owner, amount=0)

    @on(Account.Credited)
    def credited(self, balance: Balance, event: Account.Credited, at: RecordedEvent) -> Balance:
        """Add it up."""
        return msgspec.structs.replace(balance, amount=balance.amount + event.amount)


class OpenBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /accounts."""

    owner: Annotated[str, msgspec.Meta(min_length=1)]
    account_id: UUID | None = None


class CreditBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /accounts/{id}/credit."""

    amount: Amount


class Done(msgspec.Struct):
    """The reply to a command."""

    account_id: UUID
    position: int


class BalanceReply(msgspec.Struct):
    """The reply to a question about one account."""

    owner: str
    amount: int
    as_of_position: int


class ListReply(msgspec.Struct):
    """The reply to a question about all accounts."""

    items: list[str]
    as_of_position: int


@post("/accounts")
async def open_route(data: JSONBody[OpenBody], commands: NamedDependency[Commands]) -> Response[Done]:
    """Open an account."""
    account_id = data.account_id or new_id()
    result = await commands.execute(Open(account_id=account_id, owner=data.owner))
    return command_reply(Done(account_id, result.position), result)


@post("/accounts/{account_id:uuid}/credit", status_code=200, opt=problem_statuses(over_limit=413))
async def credit_route(
    account_id: FromPath[UUID], data: JSONBody[CreditBody], commands: NamedDependency[Commands]
) -> Response[Done]:
    """Credit an account."""
    result = await commands.execute(Credit(account_id=account_id, amount=data.amount))
    return command_reply(Done(account_id, result.position), result)


@get("/accounts/{account_id:uuid}")
async def show_route(
    account_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
) -> BalanceReply:
    """Show an account."""
    answer = await reader.get(Balances, str(account_id), min_position=min_position)
    if answer.value is None:
        raise NotFoundException(f"there is no account {account_id}")
    balance = answer.value.document
    return BalanceReply(balance.owner, balance.amount, answer.as_of_position)


@get("/accounts")
async def list_route(
    reader: NamedDependency[Reader], min_position: MinPosition, limit: FromQuery[int] = 50
) -> ListReply:
    """List accounts."""
    answer = await reader.search(Balances, Query(limit=limit), min_position=min_position)
    return ListReply([row.id for row in answer.value.items], answer.as_of_position)


begun: list[str] = []


@get("/slow/begun")
async def begun_route() -> int:
    """How many slow requests have begun."""
    return len(begun)


@get("/slow")
async def slow_route() -> dict[str, bool]:
    """Take a second, to be in flight when the server stops."""
    begun.append("slow")
    await asyncio.sleep(1)
    return {"finished": True}


@get("/broken")
async def broken_route() -> None:
    """Fail in a way that nobody planned."""
    raise ZeroDivisionError("secret of the house")


bank = Application("bank", aggregates=[Account], handlers=[open_account, credit_account], projections=[Balances])
ROUTES = [open_route, credit_route, show_route, list_route, slow_route, begun_route, broken_route]


def create_app(settings: Settings | None = None) -> Litestar:
    """The bank's Litestar app; without settings, those of the environment."""
    return Litestar(ROUTES, plugins=[CqrskitPlugin(bank, settings, statuses={"account_closed": 409})])


NOT_AN_APPLICATION = 42
