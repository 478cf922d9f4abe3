"""``ledger check`` on a real log: good ones pass, and what was damaged in any table is found."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from cqrskit import CommandResult, Runtime, Settings
from cqrskit.testing import eventually
from example_ledger.account_commands import FreezeAccount, SetOverdraftLimit
from example_ledger.accounts import OpenAccount
from example_ledger.application import ledger
from example_ledger.checking import CheckReport, check_books
from example_ledger.findings import CASES_KEPT_MAX, KINDS
from example_ledger.holds import CaptureHold, PlaceHold, VoidHold
from example_ledger.reversals import ReverseTransfer
from example_ledger.transfers import PostBatch
from tests.integration.running_processes import ledger as run_ledger
from tests.unit.damaged_logs import DAMAGES, Damage, Log, renumbered
from tests.unit.test_ledger_holds import ANN, BANK, SHOP, TAX, entry, opened, transfer

FUNDING, PAYMENT, REFUSED, CAPTURED, VOIDED, WAITING, REVERSAL, ENTRY, FIRST, SECOND = (
    UUID(int=number) for number in range(200, 210)
)
ONE_OF_EACH_KIND = {each.kind: each for each in reversed(DAMAGES)}


def write_log(dsn: str, log: Log) -> None:
    """Put events into the table as they are."""
    with psycopg.connect(dsn) as connection:
        connection.cursor().executemany(
            "INSERT INTO events (position, stream_id, stream_version, type, data, metadata, recorded_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (at.position, at.stream_id, at.stream_version, at.type, at.data, at.metadata, at.recorded_at)
                for at in log
            ],
        )
        connection.execute("UPDATE log_head SET position = %s", (log[-1].position,))


def damage(dsn: str, statement: str, *values: object) -> None:
    """Change what the database refuses to change: its superuser can have it look away."""
    with psycopg.connect(dsn) as connection:
        connection.execute("ALTER TABLE events DISABLE TRIGGER events_are_never_changed")
        changed = connection.execute(statement.encode(), values)
        assert changed.rowcount > 0, "the damage changes nothing"
        connection.execute("ALTER TABLE events ENABLE TRIGGER events_are_never_changed")


async def checked(dsn: str, *, now: datetime | None = None) -> CheckReport:
    """What the check says of a log that nobody writes to."""
    async with ledger.open(Settings(database_url=dsn), executor=False) as runtime:
        return await check_books(runtime, documents=False, now=lambda: now or datetime.now(UTC))


@asynccontextmanager
async def at_work(dsn: str, *, projecting: bool = False) -> AsyncIterator[Runtime]:
    """The ledger after one command of every kind, some of them with a key of their callers."""
    projections = [each.name for each in ledger.projections] if projecting else []
    async with ledger.open(Settings(database_url=dsn), projections=projections) as runtime:
        execute = runtime.executor.execute
        for account_id, kind in ((BANK, "asset"), (ANN, "liability"), (SHOP, "liability"), (TAX, "liability")):
            limit = None if kind == "asset" else 0
            await execute(
                OpenAccount(account_id=account_id, name="a", type=kind, currency="EUR", overdraft_limit=limit)  # type: ignore[arg-type]
            )
        funding = transfer(1_000, transfer_id=FUNDING, debit_account_id=BANK, credit_account_id=ANN)
        await execute(funding, key="funding")
        await execute(transfer(10, transfer_id=PAYMENT))
        (refused,) = await runtime.executor.execute_many([transfer(100_000, transfer_id=REFUSED)])
        assert isinstance(refused, Exception)
        for hold_id in (CAPTURED, VOIDED, WAITING):
            await execute(holding(hold_id))
        await execute(CaptureHold(hold_id=CAPTURED, amount=15), key="capture")
        await execute(VoidHold(hold_id=VOIDED), key="void")
        await execute(ReverseTransfer(transfer_id=PAYMENT, reversal_id=REVERSAL, amount=4))
        await execute(entry((ANN, "debit", 60), (SHOP, "credit", 50), (TAX, "credit", 10), entry_id=ENTRY))
        batch = PostBatch(transfers=(transfer(1, transfer_id=FIRST), transfer(2, transfer_id=SECOND)))
        await execute(batch, key="batch")
        await execute(SetOverdraftLimit(account_id=ANN, overdraft_limit=5), key="limit")
        await execute(FreezeAccount(account_id=TAX), key="freeze")
        await execute(FreezeAccount(account_id=TAX), key="freeze again")
        await execute(transfer(10, transfer_id=PAYMENT), key="a retry")
        yield runtime


def holding(hold_id: UUID) -> PlaceHold:
    """20 of Ann's for the shop, for an hour."""
    content = {"debit_account_id": ANN, "credit_account_id": SHOP, "currency": "EUR", "expires_in_seconds": 3_600}
    return PlaceHold(hold_id=hold_id, amount=20, **content)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ONE_OF_EACH_KIND.values(), ids=ONE_OF_EACH_KIND)
async def test_what_was_damaged_in_the_log_is_found(postgres_dsn: str, case: Damage) -> None:
    write_log(postgres_dsn, case.damage(case.story().log))
    report = await checked(postgres_dsn)
    assert {case.kind, *case.also} <= report.counts.keys()
    invariant, _ = KINDS[case.kind]
    assert invariant in {each.invariant for each in report.violations}


async def test_what_the_ledger_writes_is_in_order_with_all_its_receipts(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn) as runtime:
        report = await check_books(runtime, documents=False)
        with psycopg.connect(postgres_dsn) as connection:
            receipts = connection.execute("SELECT count(*) FROM command_receipts").fetchone()
        assert (report.counts, report.violations) == ({}, [])
        assert (report.accounts, report.transfers, (report.receipts,)) == (4, 9, receipts)
        assert report.events == await runtime.event_store.head()


OUTCOME = "UPDATE command_receipts SET outcome = %s WHERE key = %s"
POSITION = "UPDATE command_receipts SET position = position + %s WHERE key = %s"
REFUSED_NOW = b'{"refused":{"code":"insufficient_funds","message":"no","details":{}}}'
ACCEPTED_NOW = f'{{"reply":{{"transfer_id":"{REFUSED}"}}}}'.encode()


@pytest.mark.parametrize(
    ("kind", "statements"),
    [
        ("reply_without_events", [(POSITION, 1, f"transfer:{PAYMENT}")]),
        ("reply_without_events", [(POSITION, -1, f"transfer:{PAYMENT}")]),
        ("reply_without_events", [(POSITION, 1_000, "funding")]),
        ("reply_without_events", [(POSITION, -1_000, "funding")]),
        ("reply_without_events", [(POSITION, -1, f"transfer:{ENTRY}")]),
        ("reply_without_events", [(POSITION, 1, f"transfer:{REVERSAL}")]),
        ("reply_without_events", [(POSITION, 1, f"account:{ANN}")]),
        ("reply_without_events", [(POSITION, 1, f"transfer:{CAPTURED}")]),
        ("reply_without_events", [(POSITION, -1, "capture")]),
        ("reply_without_events", [(POSITION, 1, "void")]),
        ("reply_without_events", [(POSITION, -6, "batch")]),
        ("reply_without_events", [(OUTCOME, ACCEPTED_NOW, f"transfer:{REFUSED}")]),
        ("refused_and_posted", [(OUTCOME, REFUSED_NOW, f"transfer:{PAYMENT}")]),
        ("refused_and_posted", [(OUTCOME, REFUSED_NOW, f"transfer:{VOIDED}")]),
        ("refused_and_posted", [(OUTCOME, REFUSED_NOW, f"transfer:{REVERSAL}")]),
        ("refused_and_posted", [(OUTCOME, REFUSED_NOW, f"transfer:{ENTRY}")]),
        (
            "refused_and_posted",
            [(OUTCOME, REFUSED_NOW, "funding"), (POSITION, -1, "funding")],
        ),
    ],
)
async def test_a_receipt_that_is_not_what_the_log_says_is_found(
    postgres_dsn: str, kind: str, statements: list[tuple[Any, ...]]
) -> None:
    async with at_work(postgres_dsn):
        pass
    for statement, *values in statements:
        damage(postgres_dsn, statement, *values)
    report = await checked(postgres_dsn)
    assert report.counts.keys() == {kind}
    assert sum(report.counts.values()) == (2 if "batch" in statements[0] else 1)


async def test_a_receipt_whose_events_are_gone_is_found(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn) as runtime:
        last = (await runtime.executor.execute(transfer(1, transfer_id=UUID(int=999)))).position
    damage(postgres_dsn, "DELETE FROM events WHERE position > %s", last - 3)
    damage(postgres_dsn, "UPDATE log_head SET position = %s", last - 3)
    assert (await checked(postgres_dsn)).counts == {"reply_without_events": 1}


async def test_a_later_use_of_an_id_for_something_else_is_no_violation(postgres_dsn: str) -> None:
    """Receipts may be kept for a while only. Then a refusal of other content comes under the id of what is there."""
    async with at_work(postgres_dsn) as runtime:
        damage(postgres_dsn, "DELETE FROM command_receipts WHERE key = %s", f"transfer:{PAYMENT}")
        (other,) = await runtime.executor.execute_many([transfer(11, transfer_id=PAYMENT)])
        assert getattr(other, "code", None) == "transfer_conflict"
        damage(postgres_dsn, "DELETE FROM command_receipts WHERE key = %s", f"transfer:{PAYMENT}")
        (again,) = await runtime.executor.execute_many([transfer(10, transfer_id=PAYMENT)])
        assert isinstance(again, CommandResult)
        assert not again.appended
        (invalid,) = await runtime.executor.execute_many([transfer(0, transfer_id=REFUSED)])
        assert isinstance(invalid, Exception)
        assert (await check_books(runtime, documents=False)).counts == {}


async def test_a_hold_that_nothing_will_expire_is_found_once_it_is_overdue(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn) as runtime:
        end = datetime.now(UTC) + timedelta(hours=1)

        async def found(seconds_after_the_end: float) -> dict[str, int]:
            moment = end + timedelta(seconds=seconds_after_the_end)
            return (await check_books(runtime, documents=False, now=lambda: moment)).counts

        assert await found(600) == {}, "its due command is there"
        damage(postgres_dsn, "DELETE FROM due_commands WHERE key = %s", f"hold:{WAITING}")
        assert await found(-600) == {}
        assert await found(600) == {"hold_overdue": 1}
        await runtime.executor.execute(VoidHold(hold_id=WAITING))
        assert await found(600) == {}


async def test_what_was_changed_in_the_log_is_found_there_and_in_the_documents(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn, projecting=True) as runtime:
        head = await runtime.event_store.head()

        async def level() -> bool:
            return all(each.visible_position >= head for each in await runtime.status(count_documents=False))

        await eventually(level, timeout_seconds=30)
        report = await check_books(runtime)
        assert report.counts == {}
        assert (report.documents["accounts"], report.documents["transfers"]) == (4, 9)
        damage(
            postgres_dsn,
            "UPDATE events SET data = replace(data::text, %s, %s)::bytea "
            "WHERE type = 'Transfer.Posted' AND stream_id = %s",
            b'"amount":10,'.hex(),
            b'"amount":90,'.hex(),
            PAYMENT,
        )
        report = await check_books(runtime)
        assert {"legs_differ", "document_differs"} <= report.counts.keys()
        (found,) = [each for each in report.violations if each.kind == "legs_differ"][:1]
        assert (found.subject, found.position) == (f"transfer {PAYMENT}", 10)
        assert "debit 90 on" in found.expected


async def test_others_may_write_while_the_books_are_checked(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn) as runtime:
        stop = asyncio.Event()

        async def write() -> int:
            written = 0
            while not stop.is_set():
                holds = [holding(UUID(int=10_000 + written + number)) for number in range(10)]
                ends = [VoidHold(hold_id=each.hold_id) for each in holds]
                payments = [transfer(1, transfer_id=UUID(int=20_000 + written + number)) for number in range(10)]
                back = [ReverseTransfer(transfer_id=each.transfer_id, amount=1) for each in payments]
                await runtime.executor.execute_many([*holds, *payments, *ends, *back])
                written += 10
            return written

        writing = asyncio.create_task(write())
        reports = [await check_books(runtime, documents=False) for _ in range(5)]
        stop.set()
        assert await writing > 0
        assert reports[-1].events > reports[0].events, "nothing was written meanwhile"
        assert [each.counts for each in reports] == [{}] * 5


def broken_many_times() -> Log:
    """A log in which an account was never opened that takes part in thirty transfers."""
    story = opened()
    for number in range(30):
        story.when(transfer(1, transfer_id=UUID(int=1_000 + number)))
    return renumbered([each for each in story.log if each.stream_id != SHOP or each.type != "Account.Opened"])


async def test_the_command_counts_what_is_often_wrong_and_says_where_and_what_is_due(postgres_dsn: str) -> None:
    write_log(postgres_dsn, broken_many_times())
    variables = {"CQRSKIT_DATABASE_URL": postgres_dsn}

    shown = await run_ledger("check", "--log-only", variables=variables)
    assert shown.code == 1
    lines = shown.err.splitlines()
    (begin,) = [number for number, line in enumerate(lines) if line.startswith("invariant 8, account_unknown: 30")]
    assert lines[begin].endswith(f"of which these are the first {CASES_KEPT_MAX}")
    assert re.fullmatch(rf"  at position \d+, account {SHOP}: .+; due: Account.Opened first", lines[begin + 1])
    assert sum("Account.Opened first" in line for line in lines) == CASES_KEPT_MAX
    assert "\x1b[" not in shown.err, "a bar is for terminals"

    report = json.loads((await run_ledger("check", "--log-only", "--json", variables=variables)).out)
    assert report["counts"]["account_unknown"] == 30
    (first, *_) = [each for each in report["violations"] if each["kind"] == "account_unknown"]
    assert (first["invariant"], first["subject"], first["expected"]) == (8, f"account {SHOP}", "Account.Opened first")


async def test_the_command_is_content_with_good_books(postgres_dsn: str) -> None:
    async with at_work(postgres_dsn):
        pass
    shown = await run_ledger("check", "--log-only", variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "the books are in order")
    assert re.match(r"\d+ events, 4 accounts, 9 transfers, \d+ receipts", shown.out)
