"""Receipts that are older than they are to be kept go, and the others stay."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from cqrskit import Rejected, Settings
from cqrskit.retention import CHUNK_SIZE
from cqrskit.testing import eventually
from example_ledger.accounts import OpenAccount
from example_ledger.application import ledger
from example_ledger.transfers import PostTransfer
from tests.integration.counting import Grow, opened


def record(dsn: str, count: int, *, days_old: int) -> None:
    """Keep so many receipts of that age."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO command_receipts SELECT %(days)s || ' ' || n, '{}', '{}', 1, %(at)s"
            " FROM generate_series(1, %(count)s) AS n",
            {"days": days_old, "at": datetime.now(UTC) - timedelta(days=days_old), "count": count},
        )


def kept(dsn: str) -> int:
    """How many receipts there are."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM command_receipts").fetchone()
    assert row is not None
    return int(row[0])


async def test_receipts_older_than_the_setting_are_deleted_at_the_start_and_the_others_kept(postgres_dsn: str) -> None:
    record(postgres_dsn, 2 * CHUNK_SIZE + 10, days_old=31)
    record(postgres_dsn, 50, days_old=29)
    with capture_logs() as lines:
        async with opened(Settings(database_url=postgres_dsn, receipts_kept_days=30)) as runtime:
            await runtime.executor.execute(Grow(counter_id=uuid4()), key="new")
            await eventually(lambda: kept(postgres_dsn) == 51)
            await eventually(lambda: [line for line in lines if line["event"] == "receipts.pruned"])
    (line,) = [line for line in lines if line["event"] == "receipts.pruned"]
    assert line["receipts"] == 2 * CHUNK_SIZE + 10


async def test_without_the_setting_receipts_are_kept_for_ever(postgres_dsn: str) -> None:
    record(postgres_dsn, 10, days_old=10_000)
    async with opened(Settings(database_url=postgres_dsn)) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()), key="new")
        assert runtime.receipt_pruner is None
    assert kept(postgres_dsn) == 11


async def test_a_failure_to_delete_is_logged_and_harms_no_command(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$"
        )
        connection.execute("CREATE TRIGGER refuse BEFORE DELETE ON command_receipts EXECUTE FUNCTION refuse()")
    record(postgres_dsn, 10, days_old=31)
    with capture_logs() as lines:
        async with opened(Settings(database_url=postgres_dsn, receipts_kept_days=30)) as runtime:
            await eventually(lambda: [line for line in lines if line["event"] == "receipts.failed"])
            assert (await runtime.executor.execute(Grow(counter_id=uuid4()), key="new")).reply == 1
    assert kept(postgres_dsn) == 11


async def test_two_processes_delete_side_by_side_and_nobody_waits_for_rows_that_another_deletes(
    postgres_dsn: str,
) -> None:
    record(postgres_dsn, 10, days_old=31)
    settings = Settings(database_url=postgres_dsn)
    async with opened(settings) as runtime:
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("DELETE FROM command_receipts WHERE key = '31 1'")
            async with asyncio.timeout(20):
                assert await runtime.event_store.prune_receipts(datetime.now(UTC), 100) == 9
            connection.rollback()
    assert kept(postgres_dsn) == 1


async def test_the_refusal_of_another_content_does_not_become_that_of_an_id_whose_receipt_was_deleted(
    postgres_dsn: str,
) -> None:
    one, two, transfer_id = (uuid4() for _ in range(3))
    async with ledger.open(Settings(database_url=postgres_dsn)) as runtime:
        for each in (one, two):
            await runtime.executor.execute(
                OpenAccount(account_id=each, name="a", type="asset", currency="EUR", overdraft_limit=None)
            )
        first, other = (
            PostTransfer(
                transfer_id=transfer_id, debit_account_id=one, credit_account_id=two, amount=amount, currency="EUR"
            )
            for amount in (5, 6)
        )
        await runtime.executor.execute(first)
        with pytest.raises(Rejected, match="another"):
            await runtime.executor.execute(other, key="k")
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("DELETE FROM command_receipts WHERE key LIKE 'transfer:%'")
        with pytest.raises(Rejected) as caught:
            await runtime.executor.execute(other, key="k")
        assert (caught.value.code, caught.value.replayed) == ("transfer_conflict", True)
        assert (await runtime.executor.execute(first)).reply.transfer_id == transfer_id
