"""The write path on a real Postgres: batches, failures that stay alone, conflicts, and stopping."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import (
    AggregateNotFound,
    Busy,
    Command,
    CommandFailed,
    CommandResult,
    DeadlineExceeded,
    Rejected,
    Settings,
    ShuttingDown,
)
from cqrskit.errors import EventDecodeError, UnknownCommand
from cqrskit.event_store import Found
from cqrskit.testing import eventually
from tests.integration.counting import Forget, Grow, Label, Move, Require, TooSmall, opened, runs


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


async def hold_the_log(settings: Settings) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """A session of somebody else that holds the head row until it is closed."""
    connection = await psycopg.AsyncConnection.connect(str(settings.database_url))
    await connection.execute("SELECT position FROM log_head FOR UPDATE")
    return connection


async def test_a_command_that_waits_too_long_is_given_up_and_changes_nothing(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, batch_size_max=1)
    first, second, third = uuid4(), uuid4(), uuid4()
    async with opened(settings) as runtime:
        holder = await hold_the_log(settings)
        appending = asyncio.create_task(runtime.executor.execute(Grow(counter_id=first)))
        decided = asyncio.create_task(runtime.executor.execute(Grow(counter_id=second)))
        await eventually(lambda: runs[Grow(counter_id=second)] > 0)
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            await runtime.executor.execute(Grow(counter_id=third), timeout_seconds=0.05)
        await holder.close()
        assert [(await each).reply for each in (appending, decided)] == [1, 1]
        with pytest.raises(AggregateNotFound):
            await runtime.executor.execute(Require(counter_id=third, at_least=0))
    assert rows(postgres_dsn, "SELECT count(*) FROM events") == [(4,)]


async def test_commands_are_decided_while_others_are_being_appended_and_undone_if_those_fail(
    settings: Settings,
) -> None:
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("ALTER TABLE events ADD CONSTRAINT no_13 CHECK (data <> '{\"by\":13}'::bytea)")
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id))
        holder = await hold_the_log(settings)
        refused = asyncio.create_task(runtime.executor.execute(Grow(counter_id=counter_id, by=13)))
        await asyncio.sleep(0)
        runs.clear()
        after = Grow(counter_id=counter_id, by=100)
        later = asyncio.create_task(runtime.executor.execute(after))
        await eventually(lambda: runs[after] == 1)
        assert not later.done()
        await holder.close()
        with pytest.raises(CommandFailed):
            await refused
        assert (await later).reply == 101
        assert runs[after] == 2
    assert_dense(str(settings.database_url))


async def test_while_others_write_the_same_streams_batches_are_decided_under_the_lock_and_later_not(
    settings: Settings,
) -> None:
    counter_id = uuid4()
    async with opened(settings) as ours, opened(settings) as others:
        await ours.executor.execute(Grow(counter_id=counter_id))
        await others.executor.execute(Grow(counter_id=counter_id))
        runs.clear()
        command = Grow(counter_id=counter_id, by=2)
        assert (await ours.executor.execute(command)).reply == 4
        assert runs[command] == 2, "once from memory, which was stale, and once under the lock"
        locked = ours.executor._locked_batches
        assert locked > 0
        for number in range(locked):
            await ours.executor.execute(Grow(counter_id=counter_id, by=10 + number))
        assert ours.executor._locked_batches == 0
        assert max(runs[Grow(counter_id=counter_id, by=10 + number)] for number in range(locked)) == 1
    assert_dense(str(settings.database_url))


async def test_what_cannot_be_stored_fails_alone(settings: Settings) -> None:
    counter_id = uuid4()
    broken = "\ud800"
    async with opened(settings) as runtime:
        commands = [Label(counter_id=counter_id, text=text) for text in ("a", broken, "b", "no JSON", "c")]
        keys = [None, "one", None, "two", "three"]
        results = await runtime.executor.execute_many(commands, keys=keys)
        assert [type(result) for result in results] == [
            CommandResult,
            CommandFailed,
            CommandResult,
            CommandFailed,
            CommandResult,
        ]
        results = await runtime.executor.execute_many(commands[:2])
        assert [type(result) for result in results] == [CommandResult, CommandFailed]
    assert rows(str(settings.database_url), "SELECT count(*) FROM events") == [(5,)]
    assert_dense(str(settings.database_url))


async def test_a_stream_that_cannot_be_read_fails_its_own_commands_only_and_is_never_half_an_aggregate(
    settings: Settings,
) -> None:
    poisoned, good = uuid4(), [uuid4() for _ in range(20)]
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=poisoned, by=5))
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE log_head SET position = 3")
        connection.execute(
            "INSERT INTO events VALUES (3, %s, 3, 'Counter.Grown', '{\"by\":\"many\"}', '{}', now())", (poisoned,)
        )
    async with opened(settings) as runtime:
        for reply in (1, 2):
            commands = [Grow(counter_id=each) for each in good]
            commands[7] = Grow(counter_id=poisoned)
            results = await runtime.executor.execute_many([*commands, Require(counter_id=poisoned, at_least=5)])
            assert isinstance(results[7], EventDecodeError)
            assert isinstance(results[20], EventDecodeError)
            others = results[:7] + results[8:20]
            assert [getattr(result, "reply", result) for result in others] == [reply] * 19
    assert_dense(str(settings.database_url))


async def test_old_streams_are_loaded_in_portions_and_young_ones_all_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [uuid4() for _ in range(400)]
    async with opened(settings) as runtime:
        for _ in range(24):
            await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
    portions: list[int] = []
    async with opened(settings) as runtime:
        load = runtime.event_store.load

        async def counted(streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
            portions.append(len(streams))
            return await load(streams, keys, shapes)

        monkeypatch.setattr(runtime.event_store, "load", counted)
        await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(1_000)])
        young = list(portions)
        portions.clear()
        for _ in range(6):
            runtime.executor._repository.forget_all()
            results = await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
    assert [getattr(result, "reply", result) for result in results] == [30] * 400
    assert max(young) >= 500
    assert 64 <= max(portions[-4:]) < 200
