"""The balance as of a date or a moment, on both bases and both read stores, beside a plain sum."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from example_ledger.daily_totals import DailyTotals
from tests.acceptance.api import LedgerClient, transfer

FIRST = datetime(2026, 3, 1, tzinfo=UTC)


async def balance(ledger: LedgerClient, account_id: str, at: object, basis: str = "effective") -> int:
    text = at.isoformat() if isinstance(at, date) else str(at)
    reply: dict[str, Any] = await ledger.get(f"/accounts/{account_id}/balance", {"at": text, "basis": basis})
    assert (reply["at"], reply["basis"], set(reply)) == (text, basis, {"balance", "at", "basis", "as_of_position"})
    return int(reply["balance"])


async def test_a_balance_as_of_a_date_counts_what_is_effective_by_then(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    await ledger.post("/transfers", transfer(bank, ann, 100, effective_at="2026-03-02T00:00:00Z"))
    await ledger.post("/transfers", transfer(ann, bank, 30, effective_at="2026-03-03T23:59:59.999999Z"))
    back_dated = transfer(bank, ann, 7, effective_at="2026-03-01T12:00:00+14:00")  # that is the last day of February
    await ledger.post("/transfers", back_dated)
    days = ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02", "2026-03-03"]
    assert [await balance(ledger, ann, day) for day in days] == [0, 7, 7, 107, 77]
    assert [await balance(ledger, bank, day) for day in days] == [0, 7, 7, 107, 77]
    assert await balance(ledger, ann, "2026-03-03T23:59:59Z") == 107


async def test_a_back_dated_entry_touches_the_document_of_one_day(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    for day in range(1, 6):
        await ledger.post("/transfers", transfer(bank, ann, 10, effective_at=f"2026-03-0{day}T09:00:00Z"))
    before = await totals(ledger, ann)
    await ledger.post("/transfers", transfer(bank, ann, 5, effective_at="2026-03-02T08:00:00Z"))
    after = await totals(ledger, ann)
    assert {day for day in after if after[day] != before.get(day)} == {date(2026, 3, 2)}
    assert after[date(2026, 3, 2)][1:] == (0, 15, 2)


async def totals(ledger: LedgerClient, account_id: str) -> dict[date, tuple[int, int, int, int]]:
    """Version, debits, credits and count of each day."""
    await ledger.get(f"/accounts/{account_id}/balance", {"at": "2026-03-05"})
    index = await ledger.runtime.reader.index(DailyTotals)
    return {
        row.document.day: (row.version, row.document.debits, row.document.credits, row.document.count)
        async for row in ledger.runtime.read_store.scan(index)
        if str(row.document.account_id) == account_id
    }


async def test_the_recorded_basis_is_what_the_statement_showed(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    before = datetime.now(UTC)
    await ledger.post("/transfers", transfer(bank, ann, 100, effective_at="2026-03-02T00:00:00Z"))
    between = datetime.now(UTC)
    await ledger.post("/transfers", transfer(bank, ann, 11, effective_at="2026-03-01T00:00:00Z"))
    assert await balance(ledger, ann, before, "recorded") == 0
    assert await balance(ledger, ann, between, "recorded") == 100
    assert await balance(ledger, ann, datetime.now(UTC).date(), "recorded") == 111
    assert await balance(ledger, ann, "2026-03-02", "recorded") == 0


async def test_balances_are_the_sum_of_what_is_effective_by_then_at_any_moment(ledger: LedgerClient) -> None:
    """Many transfers at random moments, some on the edges of days; every balance equals the plain sum."""
    randomness = random.Random(5)
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    edges = [timedelta(0), timedelta(microseconds=1), timedelta(days=1) - timedelta(microseconds=1)]
    moved: list[tuple[datetime, int]] = []
    transfers = []
    for _ in range(60):
        of_day = randomness.choice([*edges, timedelta(seconds=randomness.randrange(86_400))])
        moment = FIRST + timedelta(days=randomness.randrange(6)) + of_day
        amount = randomness.randint(1, 9)
        sides = (bank, ann) if randomness.random() < 0.6 else (ann, bank)
        moved.append((moment, amount if sides[1] == ann else -amount))
        transfers.append(transfer(*sides, amount, effective_at=moment.isoformat()))
    await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": transfers}, expect=200)
    for day in range(-1, 7):
        end = FIRST + timedelta(days=day + 1)
        assert await balance(ledger, ann, (FIRST + timedelta(days=day)).date()) == sum(a for at, a in moved if at < end)
    for moment, _ in randomness.sample(moved, 10):
        assert await balance(ledger, ann, moment) == sum(amount for at, amount in moved if at <= moment)


async def test_an_account_that_is_not_there_is_404_and_a_moment_that_is_none_400(ledger: LedgerClient) -> None:
    ann = await ledger.open("Ann")
    assert (await ledger.get(f"/accounts/{uuid4()}/balance", {"at": "2026-03-01"}, expect=404))["code"] == (
        "account_not_found"
    )
    for at in ("", "today", "2026-02-30", "2026-03-01T10:00:00", "1969-12-31", "2262-01-01T00:00:00Z"):
        problem = await ledger.get(f"/accounts/{ann}/balance", {"at": at}, expect=400)
        assert "at" in str(problem), problem
    await ledger.get(f"/accounts/{ann}/balance", expect=400)
    await ledger.get(f"/accounts/{ann}/balance", {"at": "2026-03-01", "basis": "other"}, expect=400)


@pytest.mark.parametrize("at", ["2026-03-01", "2026-03-01T00:00:00Z"])
async def test_an_account_without_movements_has_nothing(ledger: LedgerClient, at: str) -> None:
    assert await balance(ledger, await ledger.open("Ann"), at) == 0
