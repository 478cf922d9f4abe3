"""Commits with due commands are lost, and Postgres dies under those who run them: each command runs once."""

import asyncio
from uuid import UUID, uuid4

import psycopg
import pytest
from msgspec.structs import replace

from cqrskit import CommitUnknown, Runtime, ServerUnavailable, Settings
from cqrskit.testing import CuttableWire, RestartablePostgres, commits, eventually, every, says
from cqrskit.testing.wire import Delivery
from tests.faults.test_lost_postgres import makes_durable
from tests.integration.counting import Require
from tests.integration.reminding import GrowLater, opened

removes = says("DELETE FROM due_commands\nWHERE id IN")
COUNT = 40
WAIT_SECONDS = 60.0


def waiting(dsn: str) -> int:
    """How many are stored, be they parked or not."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM due_commands").fetchone()
    assert row is not None
    return int(row[0])


def has_run(dsn: str) -> int:
    """How many due commands have had their effect."""
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM events WHERE convert_from(data, 'UTF8')::jsonb ->> 'by' = '10'"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


async def schedule(runtime: Runtime, counter_id: UUID, number: int, *, seconds: float = 0.0) -> None:
    """Grow by 1 now and by 10 later; a caller who is told that nothing has happened, or nothing at all, tries again."""
    name = f"{counter_id} {number}"
    while True:
        try:
            await runtime.executor.execute(GrowLater(counter_id=counter_id, name=name, seconds=seconds), key=name)
        except (ServerUnavailable, CommitUnknown):
            continue
        return


async def assert_each_has_run_once(dsn: str, runtime: Runtime, counter_id: UUID) -> None:
    """Wait until none is left; then all that was asked for has happened, and nothing twice."""
    await eventually(lambda: waiting(dsn) == 0, timeout_seconds=WAIT_SECONDS)
    found = await runtime.executor.execute(Require(counter_id=counter_id, at_least=0))
    assert (found.reply, has_run(dsn)) == (COUNT * 11, COUNT)


@pytest.mark.parametrize("delivery", ["delivered", "lost", "late"])
@pytest.mark.parametrize("where", ["stored", "stored or run", "removed"])
async def test_a_due_command_runs_once_though_the_connection_is_cut_where_it_is(
    postgres_dsn: str, delivery: Delivery, where: str
) -> None:
    """A batch with due commands is a transaction; when they run, their batches are one statement each."""
    match = {"stored": commits, "stored or run": every(4, makes_durable), "removed": removes}[where]
    settings = Settings(database_url=postgres_dsn, lease_seconds=0.5)
    counter_id = uuid4()
    async with CuttableWire(postgres_dsn) as wire, opened(replace(settings, database_url=wire.url)) as runtime:
        await schedule(runtime, counter_id, 0)
        cut = wire.cut_at(match, delivery, times=5, late_seconds=0.1)
        for begin in range(1, COUNT, 3):
            await asyncio.gather(*(schedule(runtime, counter_id, each) for each in range(begin, begin + 3)))
        await eventually(lambda: cut.spent, timeout_seconds=WAIT_SECONDS)
        await assert_each_has_run_once(postgres_dsn, runtime, counter_id)


async def test_due_commands_run_once_though_postgres_is_killed_under_those_who_run_them(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    dsn = restartable_postgres_dsn
    settings = Settings(database_url=dsn, connect_timeout_seconds=5, lease_seconds=1.0, batch_size_max=4)
    counter_id = uuid4()
    async with opened(settings) as one, opened(settings):
        for number in range(COUNT):
            await schedule(one, counter_id, number, seconds=number / 8)
        for kill in (restartable_postgres.kill, restartable_postgres.shut_down):
            before = has_run(dsn)
            await eventually(lambda before=before: has_run(dsn) > before, timeout_seconds=WAIT_SECONDS)  # type: ignore[misc]
            await asyncio.to_thread(kill)
            await asyncio.to_thread(restartable_postgres.start_again)
        await assert_each_has_run_once(dsn, one, counter_id)
