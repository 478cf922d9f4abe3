"""Commands that run at a time: once, in the right moment, whoever runs them and whatever dies."""

import asyncio
import json
from datetime import UTC, datetime, tzinfo
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

import cqrskit.due_commands
from cqrskit import Application, Command, CommandFailed, CommandResult, Repository, Runtime, Settings, handles
from cqrskit.due_commands import DueCommandRunner
from cqrskit.testing import eventually
from cqrskit.testing.worker_process import WorkerProcess
from tests.integration.counting import Counter, Grow, Require, TooSmall, grow
from tests.integration.reminding import CallOff, GrowLater, OnlySchedule, mended, opened, reminding


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, lease_seconds=0.3)


def rows(settings: Settings, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(str(settings.database_url)) as connection:
        return connection.execute(statement).fetchall()


def waiting(settings: Settings) -> int:
    ((count,),) = rows(settings, "SELECT count(*) FROM due_commands")
    assert isinstance(count, int)
    return count


async def value(runtime: Runtime, counter_id: UUID) -> int:
    found: int = (await runtime.executor.execute(Require(counter_id=counter_id, at_least=0))).reply
    return found


async def test_a_command_runs_at_its_time_and_not_before(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a", seconds=0.8))
        assert await value(runtime, counter_id) == 1
        await eventually(lambda: waiting(settings) == 0)
        assert await value(runtime, counter_id) == 11
    ((pause,),) = rows(settings, "SELECT extract(epoch FROM max(recorded_at) - min(recorded_at))::float8 FROM events")
    assert isinstance(pause, float)
    assert pause >= 0.8


async def test_it_is_a_part_of_the_decision_and_a_batch_mate_does_not_matter(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        results = await runtime.executor.execute_many(
            [
                GrowLater(counter_id=counter_id, name="kept", seconds=3600),
                GrowLater(counter_id=counter_id, name="refused", seconds=3600, end="refused"),
                GrowLater(counter_id=counter_id, name="broken", seconds=3600, end="broken"),
                Grow(counter_id=counter_id, end="refused"),
                Grow(counter_id=counter_id),
            ]
        )
    assert isinstance(results[0], CommandResult)
    assert isinstance(results[1], TooSmall)
    assert isinstance(results[2], CommandFailed)
    assert rows(settings, "SELECT key FROM due_commands") == [("kept",)]


async def test_a_batch_that_the_database_refuses_stores_no_due_command_of_the_culprit(settings: Settings) -> None:
    with psycopg.connect(str(settings.database_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE due_commands ADD CHECK (key <> 'culprit')")
    async with opened(settings) as runtime:
        results = await runtime.executor.execute_many(
            [GrowLater(counter_id=uuid4(), name=name, seconds=3600) for name in ("first", "culprit", "last")]
        )
    assert [isinstance(each, CommandResult) for each in results] == [True, False, True]
    assert rows(settings, "SELECT key FROM due_commands ORDER BY id") == [("first",), ("last",)]
    assert rows(settings, "SELECT count(*) FROM events") == [(4,)]


class Nowhere(tzinfo):
    """A time zone that does not say where it is, so that its times cannot be written."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


class ScheduleNowhere(Command):
    """Ask for what cannot be written."""

    counter_id: UUID


@handles(ScheduleNowhere)
def schedule_nowhere(command: ScheduleNowhere, repository: Repository) -> None:
    """Grow, and ask."""
    repository.create(Counter, command.counter_id).grow(by=1)
    due = Grow(counter_id=command.counter_id)
    repository.schedule(due, at=datetime(2030, 1, 1, tzinfo=Nowhere()), key=str(command.counter_id))


@pytest.mark.parametrize("locked", [False, True])
async def test_what_cannot_be_written_fails_alone_and_at_once(settings: Settings, locked: bool) -> None:
    application = Application("nowhere", aggregates=[Counter], handlers=[grow, schedule_nowhere])
    async with application.open(settings) as runtime:
        runtime.executor._appender.locked_batches = 1_000 if locked else 0
        commands = [ScheduleNowhere(counter_id=uuid4()), *[Grow(counter_id=uuid4()) for _ in range(5)]]
        async with asyncio.timeout(runtime.settings.command_timeout_seconds / 2):
            results = await runtime.executor.execute_many(commands)
    assert isinstance(results[0], CommandFailed)
    assert "TypeError" in str(results[0])
    assert all(isinstance(each, CommandResult) for each in results[1:])
    assert rows(settings, "SELECT count(*) FROM events") == [(10,)]


async def test_what_is_stored_under_a_key_again_takes_the_place_of_the_first(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a", seconds=3600, by=5))
        await runtime.executor.execute_many(
            [GrowLater(counter_id=counter_id, name="a", seconds=seconds, by=7) for seconds in (1800, 0)]
        )
        await eventually(lambda: waiting(settings) == 0)
        assert await value(runtime, counter_id) == 3 + 7


async def test_what_is_taken_back_does_not_run(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a", seconds=3600))
        await runtime.executor.execute(CallOff(counter_id=counter_id, name="a"))
        assert waiting(settings) == 0


async def test_a_handler_that_leaves_nothing_to_tell_by_is_told_so(settings: Settings) -> None:
    async with opened(settings) as runtime:
        with pytest.raises(CommandFailed, match="idempotency key"):
            await runtime.executor.execute(OnlySchedule(name="a"))
        await runtime.executor.execute(OnlySchedule(name="a"), key="b")


async def test_a_hundred_commands_run_once_each_while_three_processes_compete(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as one, opened(settings), opened(settings):
        await one.executor.execute_many(
            [GrowLater(counter_id=counter_id, name=str(number), seconds=0.3) for number in range(150)]
        )
        await eventually(lambda: waiting(settings) == 0, timeout_seconds=30)
        assert await value(one, counter_id) == 150 + 1500


async def test_what_was_due_while_the_service_was_down_runs_when_it_is_back(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a", seconds=3600))
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE due_commands SET run_at = now() - interval '1 day', due_at = run_at")
        connection.execute(
            "UPDATE due_commands SET content = regexp_replace(encode(content, 'escape'),"
            " '\\d{4}-\\d\\d-\\d\\dT', '2020-01-01T')::bytea"
        )
    async with opened(settings) as runtime:
        await eventually(lambda: waiting(settings) == 0)
        assert await value(runtime, counter_id) == 11


class Dies(Exception):
    """Stands for a process that is gone."""


async def test_one_whose_runner_died_before_it_removed_it_runs_again_and_takes_effect_once(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime._due_runner.stop()
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a"))
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="b", then="refuse"))

        class ForgetsToRemove(type(runtime.due_commands)):  # type: ignore[misc]
            async def remove(self, ids: object) -> None:
                raise Dies

        store = ForgetsToRemove(runtime.due_commands._pool, str(settings.database_url))
        dying = DueCommandRunner(store, runtime.executor, reminding.handlers, settings)
        with pytest.raises(Dies):
            await dying.run_due()
        assert await value(runtime, counter_id) == 12
        assert waiting(settings) == 2
        next_one = DueCommandRunner(runtime.due_commands, runtime.executor, reminding.handlers, settings)
        await eventually(next_one.run_due)
        assert waiting(settings) == 0
        assert await value(runtime, counter_id) == 12


async def test_a_refusal_is_an_outcome_and_is_logged(settings: Settings) -> None:
    with capture_logs() as lines:
        async with opened(settings) as runtime:
            await runtime.executor.execute(GrowLater(counter_id=uuid4(), name="a", then="refuse"))
            await eventually(lambda: waiting(settings) == 0)
    assert [line["key"] for line in lines if line["event"] == "due_command.refused"] == ["a"]


async def test_one_that_fails_again_and_again_is_parked_and_runs_when_it_is_retried(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cqrskit.due_commands, "FIRST_PAUSE_SECONDS", 0.01)
    counter_id = uuid4()
    async with opened(settings) as runtime:
        for name in ("a", "b"):
            await runtime.executor.execute(GrowLater(counter_id=counter_id, name=name, then="break"))
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="good"))

        async def parked() -> bool:
            return (await runtime.due_commands.status()).parked == 2

        await eventually(parked, timeout_seconds=30)
        assert await value(runtime, counter_id) == 3 + 10
        first, _ = await runtime.due_commands.list_all(only_parked=True, count_max=10)
        assert first.attempts == cqrskit.due_commands.ATTEMPTS_MAX
        assert "ZeroDivisionError" in str(first.error)
        assert await runtime.due_commands.drop("b")
        assert not await runtime.due_commands.drop("b")
        mended.add("yes")
        try:
            assert await runtime.due_commands.retry("a")
            await eventually(lambda: waiting(settings) == 0)
        finally:
            mended.clear()
        assert await value(runtime, counter_id) == 3 + 20


async def test_an_operator_lists_retries_and_drops_what_is_parked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cqrskit.due_commands, "ATTEMPTS_MAX", 1)
    async with opened(settings) as runtime:
        for name in ("a", "b"):
            await runtime.executor.execute(GrowLater(counter_id=uuid4(), name=name, then="break"))
        await eventually(
            lambda: rows(settings, "SELECT count(*) FROM due_commands WHERE parked_at IS NOT NULL") == [(2,)]
        )

    async def cqrskit_due(*arguments: str) -> tuple[int, str]:
        variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url)}
        app = ("--app", "tests.integration.reminding:reminding")
        async with WorkerProcess("cqrskit", *arguments, *app, variables=variables) as process:
            try:
                line = await process.started()
            except AssertionError:
                line = ""
            return await process.ended(), line

    assert (await cqrskit_due("status", "--check"))[0] == 1
    shown = json.loads((await cqrskit_due("status", "--json"))[1])
    assert (shown["due_commands"]["waiting"], shown["due_commands"]["parked"], shown["reactions"]) == (0, 2, [])
    code, listed = await cqrskit_due("due", "list", "--parked", "--json")
    assert (code, [each["key"] for each in json.loads(listed)]) == (0, ["a", "b"])
    assert await cqrskit_due("due", "retry", "a") == (0, "a will be tried again within a second or so")
    assert await cqrskit_due("due", "drop", "b", "--yes") == (0, "b is given up")
    assert await cqrskit_due("due", "drop", "b", "--yes") == (2, "")
    assert rows(settings, "SELECT key, attempts, parked_at FROM due_commands") == [("a", 0, None)]


async def test_an_error_that_quotes_what_no_text_column_takes_is_kept_all_the_same(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await runtime._due_runner.stop()
        await runtime.executor.execute(GrowLater(counter_id=uuid4(), name="a"))
        (claimed,) = await runtime.due_commands.claim(datetime.now(UTC), 9, ["GrowDue"], seconds=30)
        quoting = "half \ud800 and \0 nothing"
        await runtime.due_commands.put_off(claimed, attempts=1, run_at=claimed.due_at, error=quoting)
        ((kept,),) = rows(settings, "SELECT error FROM due_commands")
        await runtime.due_commands.park(claimed, attempts=1, error=quoting)
        assert rows(settings, "SELECT error FROM due_commands WHERE parked_at IS NOT NULL") == [(kept,)]
        assert kept == r"half \ud800 and \x00 nothing"


async def test_a_process_that_takes_no_more_commands_claims_none_that_are_due(settings: Settings) -> None:
    async with opened(settings) as runtime:
        runtime.executor.refuse_new()
        looking = runtime._due_runner._task
        await eventually(lambda: looking is not None and looking.done())
        async with opened(settings) as other:
            await other._due_runner.stop()
            await other.executor.execute(GrowLater(counter_id=uuid4(), name="a"))
    assert rows(settings, "SELECT attempts, error, leased_until FROM due_commands") == [(0, None, None)]


async def test_a_stop_finishes_what_is_running(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute_many(
            [GrowLater(counter_id=counter_id, name=str(number)) for number in range(50)]
        )
        await asyncio.sleep(0)
    grown = rows(settings, "SELECT count(*) FROM events WHERE type = 'Counter.Grown'")
    assert grown == [(50 + 50 - waiting(settings),)]
    assert rows(settings, "SELECT count(*) FROM due_commands WHERE leased_until IS NOT NULL") == [(0,)]


async def test_it_works_behind_a_pooler(pgbouncer_dsn: str) -> None:
    settings = Settings(database_url=pgbouncer_dsn)
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a"))

        async def grown() -> bool:
            return await value(runtime, counter_id) == 11

        await eventually(grown)


async def test_no_client_can_take_the_key_under_which_a_due_command_runs(settings: Settings) -> None:
    """Ids count up, so that anybody could guess the next one."""
    counter_id = uuid4()
    async with opened(settings) as runtime:
        for number in range(1, 4):
            await runtime.executor.execute(Grow(counter_id=uuid4()), key=f"due:{number}")
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a", seconds=0.1))
        await eventually(lambda: waiting(settings) == 0)
        assert await value(runtime, counter_id) == 11
