"""A commit is delayed, or a projector's way to Postgres breaks: no position is ever passed over."""

import asyncio
from uuid import uuid4

import msgspec
import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import CuttableWire, RestartablePostgres, commits, eventually, says
from cqrskit.testing.wire import Delivery
from tests.faults.counting_load import WAIT_SECONDS, CountingLoad, level
from tests.integration.counting import Grow, opened


async def test_events_whose_commit_is_late_are_never_passed_over(settings: Settings) -> None:
    """The delayed transaction has its positions already. Whoever comes after it gets later ones, and must wait."""
    shared = uuid4()
    async with CuttableWire(str(settings.database_url)) as wire:
        slow_way = msgspec.structs.replace(settings, database_url=wire.url)
        async with opened(settings, projecting=True) as quick, opened(slow_way) as slow:
            load = CountingLoad(quick)
            await slow.executor.execute(Grow(counter_id=shared))
            for _ in range(3):
                await quick.executor.execute(Grow(counter_id=shared))  # now the slow one's copy is old: it will lock
                hold = wire.hold_at(commits)
                late = asyncio.create_task(slow.executor.execute(Grow(counter_id=shared)))
                await hold.reached()
                await eventually(lambda: writers_that_wait(str(settings.database_url)) == 0)
                head = await quick.event_store.head()
                early = [asyncio.create_task(quick.executor.execute(Grow(counter_id=each))) for each in load.ids]
                await eventually(lambda: writers_that_wait(str(settings.database_url)) == 1)
                assert await quick.event_store.head() == head, "somebody else has appended before the delayed commit"
                assert not any(task.done() for task in [late, *early])
                hold.release()
                positions = [result.position for result in await asyncio.gather(late, *early)]
                assert positions[0] == min(positions)
                load.acknowledged.update(load.ids)
                load.acknowledged[shared] += 2
            load.acknowledged[shared] += 1
            await load.assert_exact()


def writers_that_wait(dsn: str) -> int:
    """How many sessions wait for a lock in this database."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("delivery", ["delivered", "lost", "late"])
async def test_documents_stay_exact_though_a_projector_loses_its_connection_at_the_checkpoint(
    settings: Settings, delivery: Delivery
) -> None:
    async with CuttableWire(str(settings.database_url)) as wire:
        through_wire = msgspec.structs.replace(settings, database_url=wire.url)
        async with opened(settings) as runtime, opened(through_wire, projecting=True):
            load = CountingLoad(runtime)
            async with load.running():
                await load.progress()
                cut = wire.cut_at(says("SET position = GREATEST"), delivery, times=4)
                await eventually(lambda: cut.spent, timeout_seconds=WAIT_SECONDS)
                await load.progress()
            await load.assert_exact()


async def test_documents_are_exact_after_postgres_was_killed_and_started_again(
    settings: Settings, restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    settings = msgspec.structs.replace(settings, database_url=restartable_postgres_dsn, connect_timeout_seconds=5)
    async with opened(settings, projecting=True) as runtime:
        load = CountingLoad(runtime)
        async with load.running():
            for stop in (restartable_postgres.kill, restartable_postgres.shut_down):
                await load.progress()
                await asyncio.to_thread(stop)
                await asyncio.to_thread(restartable_postgres.start_again)
            await load.progress()
        await level(runtime)
        await load.assert_exact()
