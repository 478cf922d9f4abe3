"""What moved on each account on each effective day, and the balance as of a moment, which is their sum.

A day has no closing balance of its own: an entry that is dated back would change that of every later day, and here it
touches one document.
"""

from datetime import UTC, date, datetime, time
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import All, Indexed, Projection, Query, Range, Reader, RecordedEvent, Sort, Summary, Term, Values, on
from example_ledger.accounts import Account, MoneyMoved
from example_ledger.money import AccountType, balance_of
from example_ledger.read_models import StatementLines

__all__ = ["BalanceAt", "DailyTotal", "DailyTotals", "balance_as_effective", "balance_as_recorded"]


class DailyTotal(msgspec.Struct, frozen=True):
    """What moved on one account with an effective moment on one day, in UTC."""

    account_id: UUID
    day: Annotated[date, Indexed(within="account_id")]
    debits: int
    credits: int
    count: int


def _day_of(event: MoneyMoved) -> date:
    return event.effective_at.astimezone(UTC).date()


def _total_id(event: MoneyMoved, at: RecordedEvent) -> str:
    return f"{at.stream_key}:{_day_of(event)}"


class DailyTotals(Projection):
    """One document for each account and effective day, by both."""

    document = DailyTotal

    @on(Account.Debited, key=_total_id)
    def debited(self, total: DailyTotal | None, event: MoneyMoved, at: RecordedEvent) -> DailyTotal:
        """Add to the day's debits."""
        return _added(total, event, at, debit=event.amount)

    @on(Account.Credited, key=_total_id)
    def credited(self, total: DailyTotal | None, event: MoneyMoved, at: RecordedEvent) -> DailyTotal:
        """Add to the day's credits."""
        return _added(total, event, at, credit=event.amount)


def _added(
    total: DailyTotal | None, event: MoneyMoved, at: RecordedEvent, *, debit: int = 0, credit: int = 0
) -> DailyTotal:
    if total is None:
        return DailyTotal(at.stream_id, _day_of(event), debit, credit, 1)
    return msgspec.structs.replace(
        total, debits=total.debits + debit, credits=total.credits + credit, count=total.count + 1
    )


class BalanceAt(msgspec.Struct, frozen=True):
    """A balance, and up to which position everything is in it. `stale`: an event could not be folded."""

    balance: int
    as_of_position: int
    stale: bool


async def balance_as_effective(
    reader: Reader, account_id: UUID, account_type: AccountType, at: date | datetime, min_position: int | None
) -> BalanceAt:
    """What the account has by all that is effective at `at`, whenever it was recorded; a date: at the day's end.

    The sum of the days up to it; of a moment's own day that of the lines up to the moment.
    """
    account = Term("account_id", account_id)
    days = Range("day", lt=at.astimezone(UTC).date()) if isinstance(at, datetime) else Range("day", lte=at)
    summary = Summary(where=All(account, days), of=["debits", "credits"])
    answer = await reader.summarize(DailyTotals, summary, min_position=min_position)
    figures = answer.value.items[0].figures if answer.value.items else {}
    debits, credits_ = (int(figures[name].sum) if name in figures else 0 for name in ("debits", "credits"))
    position, stale = answer.as_of_position, answer.stale
    if isinstance(at, datetime):
        begin = datetime.combine(at.astimezone(UTC).date(), time(), UTC)
        summary = Summary(
            where=All(account, Range("effective_at", gte=begin, lte=at)), of=["amount"], by=Values("direction")
        )
        lines = await reader.summarize(StatementLines, summary, min_position=min_position)
        moved = {group.key: int(group.figures["amount"].sum) for group in lines.value.items}
        debits, credits_ = debits + moved.get("debit", 0), credits_ + moved.get("credit", 0)
        position, stale = min(position, lines.as_of_position), stale or lines.stale
    return BalanceAt(balance_of(account_type, debits, credits_), position, stale)


async def balance_as_recorded(
    reader: Reader, account_id: UUID, at: date | datetime, min_position: int | None
) -> BalanceAt:
    """What the account's statement showed at `at`: the balance of the last line that was recorded by then."""
    end = at if isinstance(at, datetime) else datetime.combine(at, time.max, UTC)
    where = All(Term("account_id", account_id), Range("recorded_at", lte=end))
    query = Query(where=where, sort=[Sort("position", descending=True)], limit=1)
    answer = await reader.search(StatementLines, query, min_position=min_position)
    balance = answer.value.items[0].document.balance if answer.value.items else 0
    return BalanceAt(balance, answer.as_of_position, answer.stale)
