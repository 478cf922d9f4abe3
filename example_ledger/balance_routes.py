"""HTTP route of balances as of a moment."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.params import FromPath, QueryParameter

from cqrskit import Reader
from cqrskit.web import MinPosition, problem_statuses, refusals
from example_ledger.daily_totals import balance_as_effective, balance_as_recorded
from example_ledger.movements import EFFECTIVE_MAX, EFFECTIVE_MIN, YEARS
from example_ledger.read_models import Accounts
from example_ledger.refusals import AccountNotFound
from example_ledger.replies import BalanceReply

__all__ = ["BALANCE_ROUTES"]

DATE_LENGTH = len("2026-01-31")
At = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"anyOf": [{"format": "date"}, {"format": "date-time"}], "pattern": YEARS}),
    QueryParameter(description="a date, 2026-01-31, which means its end in UTC, or a moment, 2026-01-31T12:00:00Z"),
]


@get("/accounts/{account_id:uuid}/balance", opt=problem_statuses(account_not_found=404) | refusals(AccountNotFound))
async def show_balance(
    account_id: FromPath[UUID],
    reader: NamedDependency[Reader],
    min_position: MinPosition,
    at: At,
    basis: Annotated[
        Literal["effective", "recorded"], QueryParameter(description="which of the two times of a movement counts")
    ] = "effective",
) -> BalanceReply:
    """What an account had at a moment: by what is effective then, or by what had been recorded by then."""
    moment = _moment_of(at)
    account = await reader.get(Accounts, str(account_id), min_position=min_position)
    if account.value is None:
        raise AccountNotFound(account_id)
    if basis == "effective":
        found = await balance_as_effective(reader, account_id, account.value.document.type, moment, min_position)
    else:
        found = await balance_as_recorded(reader, account_id, moment, min_position)
    return BalanceReply(found.balance, at, basis, found.as_of_position, stale=found.stale)


def _moment_of(text: str) -> date | datetime:
    try:
        if len(text) == DATE_LENGTH:
            day: date = msgspec.convert(text, date)
            if EFFECTIVE_MIN.date() <= day <= EFFECTIVE_MAX.date():
                return day
        else:
            moment: datetime = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
            if EFFECTIVE_MIN <= moment <= EFFECTIVE_MAX:
                return moment
    except msgspec.ValidationError as error:
        raise _unusable(f"{error}: a date like 2026-01-31, or a moment like 2026-01-31T12:00:00Z") from error
    raise _unusable(f"must be from {EFFECTIVE_MIN:%Y-%m-%d} to {EFFECTIVE_MAX:%Y-%m-%d}")


def _unusable(message: str) -> ValidationException:
    return ValidationException(extra=[{"key": "at", "source": "query", "message": message}])


BALANCE_ROUTES = [show_balance]
