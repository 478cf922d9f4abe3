"""The write path on a real Postgres: batches, failures that stay alone, conflicts, and stopping."""

import asyncio
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest

from cqrskit import (
    AggregateNotFound,
    Busy,
    Command,
    CommandFailed,
    CommandResult,
    Rejected,
    Settings,
    ShuttingDown,
)
from cqrskit.errors import UnknownCommand
from cqrskit.testing import eventually
from tests.integration.counting import Forget, Grow, Move, Require, TooSmall, opened, runs


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


def rows(dsn: str, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()


def assert_dense(dsn: str) -> None:
    ((highest, count, head),) = rows(
        dsn, "SELECT coalesce(max(position), 0), count(*), (SELECT position FROM log_head) FROM events"
    )
    assert highest == count == head
    gaps = rows(dsn, "SELECT stream_id FROM events GROUP BY stream_id HAVING max(stream_version) <> count(*)")
    assert gaps == []


async def test_a_command_is_durable_when_its_reply_comes_and_the_reply_names_its_position(settings: Settings) -> None:
    async with opened(settings) as runtime:
        counter_id = uuid4()
        first = await runtime.executor.execute(Grow(counter_id=counter_id, by=5))
        assert (first.reply, first.position, first.appended) == (5, 2, True)
        assert rows(str(settings.database_url), "SELECT type FROM events ORDER BY position") == [
            ("Counter.Started",),
            ("Counter.Grown",),
        ]
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        looked = await runtime.executor.execute(Require(counter_id=counter_id, at_least=5))
        assert (looked.reply, looked.position, looked.appended) == (5, 2, False)


async def test_two_fail_alone_among_five_hundred_that_share_their_transactions(settings: Settings) -> None:
    counter_id = uuid4()
    commands = [Grow(counter_id=counter_id) for _ in range(500)]
    commands[100] = Grow(counter_id=counter_id, by=1_000, end="refused")
    commands[300] = Grow(counter_id=counter_id, by=1_000, end="broken")
    async with opened(settings) as runtime:
        results = await runtime.executor.execute_many(commands)
    assert isinstance(results[100], TooSmall)
    assert isinstance(results[300], CommandFailed)
    assert "ZeroDivisionError" in str(results[300])
    good = [result.reply for result in results if isinstance(result, CommandResult)]
    assert good == list(range(1, 499))
    assert_dense(str(settings.database_url))
    assert rows(str(settings.database_url), "SELECT count(*) FROM events") == [(499,)]


async def test_a_command_that_changed_one_aggregate_and_was_refused_by_the_other_changed_none(
    settings: Settings,
) -> None:
    async with opened(settings) as runtime:
        source_id = uuid4()
        await runtime.executor.execute(Grow(counter_id=source_id, by=10))
        with pytest.raises(AggregateNotFound):
            await runtime.executor.execute(Move(source_id=source_id, target_id=uuid4(), by=4))
        assert (await runtime.executor.execute(Require(counter_id=source_id, at_least=10))).reply == 10
        assert await runtime.event_store.head() == 2


async def test_commands_that_wait_share_transactions(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await asyncio.gather(*(runtime.executor.execute(Grow(counter_id=uuid4())) for _ in range(200)))
    ((transactions,),) = rows(str(settings.database_url), "SELECT count(DISTINCT xmin::text) FROM events")
    assert int(str(transactions)) < 20


async def test_a_refusal_rests_on_what_others_wrote_and_not_on_a_stale_memory(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as ours, opened(settings) as others:
        await ours.executor.execute(Grow(counter_id=counter_id, by=1))
        await others.executor.execute(Grow(counter_id=counter_id, by=9))
        looked = await ours.executor.execute(Require(counter_id=counter_id, at_least=10))
        assert (looked.reply, looked.position) == (10, 3)
        await others.executor.execute(Grow(counter_id=counter_id, by=-9))
        with pytest.raises(TooSmall, match="1 is less than 10"):
            await ours.executor.execute(Require(counter_id=counter_id, at_least=10))


async def test_a_refusal_in_a_batch_that_appends_rests_on_what_others_wrote_too(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as ours, opened(settings) as others:
        await ours.executor.execute(Grow(counter_id=counter_id, by=1))
        await others.executor.execute(Grow(counter_id=counter_id, by=9))
        commands = [Grow(counter_id=uuid4()), Require(counter_id=counter_id, at_least=10), Grow(counter_id=uuid4())]
        results = await ours.executor.execute_many(commands)
        assert [getattr(result, "reply", result) for result in results] == [1, 10, 1]
    assert_dense(str(settings.database_url))


async def test_processes_that_fight_for_one_aggregate_lose_nothing_and_decide_at_most_twice(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as one, opened(settings) as two:
        await one.executor.execute(Grow(counter_id=counter_id, by=1))
        await two.executor.execute(Require(counter_id=counter_id, at_least=1))
        runs.clear()
        commands = [Grow(counter_id=counter_id, by=1_000_000 + number) for number in range(300)]
        results = await asyncio.gather(
            *((one, two)[number % 2].executor.execute(command) for number, command in enumerate(commands))
        )
    expected = 1 + sum(command.by for command in commands)
    assert max(result.reply for result in results) == expected
    assert len({result.reply for result in results}) == 300
    assert_dense(str(settings.database_url))
    assert max(runs.values()) <= 4, "two decisions, each of which may stop once at a miss"


async def test_what_the_database_refuses_fails_alone(settings: Settings) -> None:
    rows_before = "ALTER TABLE events ADD CONSTRAINT no_13 CHECK (data <> '{\"by\":13}'::bytea)"
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute(rows_before)
    ids = [uuid4() for _ in range(64)]
    async with opened(settings) as runtime:
        commands = [Grow(counter_id=each, by=13 if number == 40 else 1) for number, each in enumerate(ids)]
        results = await runtime.executor.execute_many(commands)
        failed = [number for number, result in enumerate(results) if not isinstance(result, CommandResult)]
        assert failed == [40]
        assert isinstance(results[40], CommandFailed)
        with pytest.raises(AggregateNotFound):
            await runtime.executor.execute(Require(counter_id=ids[40], at_least=0))
        assert (await runtime.executor.execute(Grow(counter_id=ids[41]))).reply == 2
    assert_dense(str(settings.database_url))


async def test_an_aggregate_made_beside_the_repository_is_an_error_and_not_lost(settings: Settings) -> None:
    async with opened(settings) as runtime:
        with pytest.raises(CommandFailed, match=r"repository\.create"):
            await runtime.executor.execute(Forget())


async def test_a_full_queue_says_so_at_once_and_takes_nothing(postgres_dsn: str) -> None:
    async with opened(Settings(database_url=postgres_dsn, queue_length_max=10)) as runtime:
        with pytest.raises(Busy):
            await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(11)])
        assert await runtime.event_store.head() == 0
        await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(10)])
        assert await runtime.event_store.head() == 20


async def test_stopping_finishes_what_was_accepted_and_refuses_what_comes_later(settings: Settings) -> None:
    async with opened(settings) as runtime:
        accepted = [asyncio.create_task(runtime.executor.execute(Grow(counter_id=uuid4()))) for _ in range(300)]
        executor = runtime.executor
        await eventually(lambda: executor.queue_length == 300 or accepted[0].done())
    results = await asyncio.gather(*accepted)
    assert len(results) == 300
    assert rows(str(settings.database_url), "SELECT count(*) FROM events") == [(600,)]
    with pytest.raises(ShuttingDown):
        await executor.execute(Grow(counter_id=uuid4()))


async def test_a_command_without_a_handler_is_told_before_anything_is_accepted(settings: Settings) -> None:
    class Unhandled(Command):
        pass

    async with opened(settings) as runtime:
        with pytest.raises(UnknownCommand, match="Unhandled"):
            await runtime.executor.execute_many([Grow(counter_id=uuid4()), Unhandled()])
        assert await runtime.event_store.head() == 0


async def test_a_lost_connection_fails_one_batch_and_the_next_one_goes_through(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id))
        rows(
            str(settings.database_url),
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        acknowledged = 1
        for _ in range(10):
            result = (await runtime.executor.execute_many([Grow(counter_id=counter_id)]))[0]
            acknowledged += isinstance(result, CommandResult)
            assert not isinstance(result, Rejected)
        assert acknowledged >= 9
        looked = await runtime.executor.execute(Require(counter_id=counter_id, at_least=acknowledged))
        assert looked.reply == acknowledged
    assert_dense(str(settings.database_url))
