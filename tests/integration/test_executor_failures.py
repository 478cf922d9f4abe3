"""The write path when others are in the way, when a server is, and when what is in the log cannot be read."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import psycopg
import pytest
from psycopg import sql

from cqrskit import (
    AggregateNotFound,
    CommandFailed,
    CommandResult,
    CommitUnknown,
    DeadlineExceeded,
    ServerUnavailable,
    Settings,
    ShuttingDown,
)
from cqrskit.errors import EventDecodeError
from cqrskit.event_store import Found
from cqrskit.testing import eventually
from tests.integration.counting import Grow, GrowNumbered, Label, Require, opened, runs
from tests.integration.test_executor import assert_dense, rows


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


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


async def test_a_command_that_is_decided_already_is_given_up_in_time_and_changes_nothing(settings: Settings) -> None:
    first, late, after = uuid4(), uuid4(), uuid4()
    async with opened(settings) as runtime:
        holder = await hold_the_log(settings)
        appending = asyncio.create_task(runtime.executor.execute(Grow(counter_id=first)))
        await asyncio.sleep(0)
        too_late = asyncio.create_task(runtime.executor.execute(Grow(counter_id=late), timeout_seconds=0.3))
        behind = asyncio.create_task(runtime.executor.execute(Grow(counter_id=after)))
        await eventually(lambda: runs[Grow(counter_id=late)] > 0 and runs[Grow(counter_id=after)] > 0)
        with pytest.raises(DeadlineExceeded, match="nothing was changed"):
            await too_late
        assert not appending.done(), "it did not wait for the append before it"
        await holder.close()
        assert [(await each).reply for each in (appending, behind)] == [1, 1]
        with pytest.raises(AggregateNotFound):
            await runtime.executor.execute(Require(counter_id=late, at_least=0))
    assert_dense(str(settings.database_url))


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
        locked = ours.executor._appender.locked_batches
        assert locked > 0
        for number in range(locked):
            await ours.executor.execute(Grow(counter_id=counter_id, by=10 + number))
        assert ours.executor._appender.locked_batches == 0
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


async def test_a_handler_that_changes_many_streams_which_it_does_not_name_is_loaded_in_few_queries(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [uuid5(NAMESPACE_OID, str(number)) for number in range(20)]
    async with opened(settings) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
    async with opened(settings) as runtime:
        loads = 0
        load = runtime.event_store.load

        async def counted(streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
            nonlocal loads
            loads += 1
            return await load(streams, keys, shapes)

        monkeypatch.setattr(runtime.event_store, "load", counted)
        await runtime.executor.execute(GrowNumbered(count=20))
        assert loads <= 22
        assert (await runtime.executor.execute(Require(counter_id=ids[19], at_least=2))).reply == 2
    assert_dense(str(settings.database_url))


async def test_an_error_outside_any_handler_fails_its_own_command_only(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        appending = asyncio.create_task(runtime.executor.execute_many([Grow(counter_id=counter_id)] * 200))
        commands = [Grow(counter_id=uuid4()) for _ in range(40)]
        commands[20] = Grow(counter_id="not a UUID")  # type: ignore[arg-type]
        results = await runtime.executor.execute_many(commands)
        assert [number for number, result in enumerate(results) if not isinstance(result, CommandResult)] == [20]
        assert isinstance(results[20], CommandFailed)
        assert [getattr(result, "reply", result) for result in await appending] == list(range(1, 201))
    assert_dense(str(settings.database_url))


async def test_stopping_while_the_database_is_held_leaves_nobody_without_an_answer(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, shutdown_timeout_seconds=0.3)
    for locked in (0, 3):
        async with opened(settings) as runtime:
            await runtime.executor.execute(Grow(counter_id=uuid4()))
            runtime.executor._appender.locked_batches = locked
            holder = await hold_the_log(settings)
            commands = [asyncio.create_task(runtime.executor.execute(Grow(counter_id=uuid4()))) for _ in range(100)]
            await eventually(lambda: runtime.executor.queue_length == 0)
            await runtime.executor.stop()
            await holder.close()
            results = await asyncio.wait_for(asyncio.gather(*commands, return_exceptions=True), 10)
            allowed = CommitUnknown | DeadlineExceeded | ServerUnavailable | ShuttingDown
            assert [result for result in results if not isinstance(result, allowed)] == []


async def test_a_server_that_only_reads_is_unavailable_and_fails_nothing_for_good(settings: Settings) -> None:
    dsn = str(settings.database_url)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for read_only in ("on", "off"):
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(
                    sql.Identifier(connection.info.dbname), sql.SQL(read_only)
                )
            )
            async with opened(settings) as runtime:
                results = await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(10)])
                expected = ServerUnavailable if read_only == "on" else CommandResult
                assert [type(result) for result in results] == [expected] * 10
