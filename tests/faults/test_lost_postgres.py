"""Postgres is restarted, killed, cut off and stalled while 32 callers write: the log tells what they were told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from cqrskit import Settings
from cqrskit.testing import ClientMessage, CuttableWire, RestartablePostgres, commits, eventually, every, says
from cqrskit.testing.wire import Delivery
from example_ledger.application import ledger
from tests.faults.checking import assert_log_tells_what_callers_were_told
from tests.faults.load import Load, load_on, opened_accounts

CUTS = 50
WAIT_SECONDS = 30.0


@asynccontextmanager
async def at_work(dsn: str, url: str | None = None, *, command_timeout_seconds: float = 30.0) -> AsyncIterator[Load]:
    """The load on an executor that reaches the database by way of `url`; in the end the log is checked."""
    settings = Settings(
        database_url=url or dsn,
        connect_timeout_seconds=5,
        batch_size_max=8,
        command_timeout_seconds=command_timeout_seconds,
    )
    async with ledger.open(settings) as runtime:
        load = load_on(runtime.executor, await opened_accounts(runtime.executor, count=40))
        await load.fund()
        async with load.running():
            yield load
    assert load.answers["refused"] > 10
    await assert_log_tells_what_callers_were_told(dsn, load.told)


async def progress(load: Load, count: int = 100) -> None:
    """Wait until `count` more commands have been settled."""
    goal = load.settled + count
    await eventually(lambda: load.settled >= goal, timeout_seconds=WAIT_SECONDS)


async def test_the_log_tells_what_callers_were_told_though_postgres_is_restarted(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    async with at_work(restartable_postgres_dsn) as load:
        for mode in ("fast", "immediate", "fast", "immediate"):
            await progress(load)
            await asyncio.to_thread(restartable_postgres.restart, mode)
        await progress(load)


async def test_the_log_tells_what_callers_were_told_though_all_of_postgres_is_killed(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    async with at_work(restartable_postgres_dsn) as load:
        for _ in range(2):
            await progress(load)
            restartable_postgres.kill()
            await asyncio.to_thread(restartable_postgres.start_again)
        await progress(load)


@pytest.mark.parametrize("how", ["killed", "terminated"])
async def test_the_log_tells_what_callers_were_told_though_the_writers_backend_is(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str, how: str
) -> None:
    server, dsn = restartable_postgres, restartable_postgres_dsn
    async with at_work(dsn) as load:
        for _ in range(2 if how == "killed" else 8):
            await progress(load)
            process = await _writer(server, dsn)
            if how == "killed":
                server.kill_backend(process)
                await _gone(process)
                await asyncio.to_thread(server.start_again)
            else:
                await asyncio.to_thread(server.terminate_backend, process)
        await progress(load)


async def _writer(server: RestartablePostgres, dsn: str) -> int:
    """The process that is appending at this moment."""

    async def writing() -> list[int]:
        return await asyncio.to_thread(server.writers, dsn)

    return (await eventually(writing, timeout_seconds=WAIT_SECONDS))[0]


async def _gone(process: int) -> None:
    """Wait until a process has ended."""
    await eventually(lambda: not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("delivery", ["delivered", "lost", "late"])
async def test_the_log_tells_what_callers_were_told_though_the_connection_is_cut_at_the_commit(
    postgres_dsn: str, delivery: Delivery
) -> None:
    async with CuttableWire(postgres_dsn) as wire, at_work(postgres_dsn, wire.url) as load:
        await progress(load)
        cut = wire.cut_at(every(5, makes_durable), delivery, times=CUTS, late_seconds=0.1)
        await eventually(lambda: cut.spent, timeout_seconds=WAIT_SECONDS)
        await progress(load)


def makes_durable(message: ClientMessage) -> bool:
    """Whether this is a message with which the executor makes a batch durable: its one statement, or a COMMIT."""
    return commits(message) or appends(message)


appends = says("INSERT INTO command_receipts")


async def test_the_log_tells_what_callers_were_told_though_the_wire_breaks_anywhere(postgres_dsn: str) -> None:
    async with CuttableWire(postgres_dsn) as wire, at_work(postgres_dsn, wire.url) as load:
        for count in range(30_000, 130_000, 9_001):
            wire.cut_after_bytes(count)
            await wire.drop_connections()
            await progress(load, 20)
        wire.cut_after_bytes(None)
        await wire.drop_connections()
        await progress(load)


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout"])
async def test_a_time_out_of_the_database_changes_nothing_and_passes(postgres_dsn: str, name: str) -> None:
    async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        database, setting = sql.Identifier(connection.info.dbname), sql.Identifier(name)
        await connection.execute(sql.SQL("ALTER DATABASE {} SET {} = '300ms'").format(database, setting))
        async with at_work(postgres_dsn) as load:
            for _ in range(2):
                await progress(load)
                await _stall(connection, load)
            await progress(load)
    messages = {attempt.answer.message for told in load.told for attempt in told.attempts if attempt.answer}
    assert any("timeout" in message for message in messages), messages


async def _stall(connection: AsyncConnection[TupleRow], load: Load) -> None:
    """Hold the log's head in another session, until callers have been told that nothing was changed."""
    unchanged = load.answers["unchanged"]
    async with connection.transaction():
        await connection.execute("SELECT position FROM log_head FOR UPDATE")
        await eventually(lambda: load.answers["unchanged"] > unchanged, timeout_seconds=WAIT_SECONDS)
