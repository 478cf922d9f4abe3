"""Events lead to commands: once each, whoever competes, and past those that fail."""

from typing import LiteralString
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import psycopg
import pytest

from cqrskit import Application, Command, DefinitionError, Reaction, RecordedEvent, Runtime, Settings, on
from cqrskit.testing import eventually
from cqrskit.testing.worker_process import WorkerProcess
from tests.integration.counting import POISON, Counter, Grow, Require, grow, require

mended: set[str] = set()


def mirror_of(counter_id: UUID) -> UUID:
    """The counter that grows with another."""
    return uuid5(NAMESPACE_OID, str(counter_id))


class Mirror(Reaction):
    """Grows a second counter by what a first one grew by, tenfold; it cannot stand the number 666."""

    begin = "start"

    @on(Counter.Grown)
    def grown(self, event: Counter.Grown, at: RecordedEvent) -> Command | None:
        if event.by >= 10_000:
            return None
        if event.by == POISON and not mended:
            raise ValueError("poison")
        return Grow(counter_id=mirror_of(at.stream_id), by=10_000 * event.by)


mirroring = Application("mirroring", aggregates=[Counter], handlers=[grow, require], reactions=[Mirror])


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


def rows(settings: Settings, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(str(settings.database_url)) as connection:
        return connection.execute(statement).fetchall()


async def value(runtime: Runtime, counter_id: UUID) -> int:
    found: int = (await runtime.executor.execute(Require(counter_id=counter_id, at_least=0))).reply
    return found


def level(settings: Settings) -> bool:
    return rows(
        settings,
        "SELECT (SELECT position FROM reactions) = (SELECT position FROM log_head)"
        " AND NOT EXISTS (SELECT FROM due_commands WHERE parked_at IS NULL)",
    ) == [(True,)]


async def test_each_event_has_its_effect_once_while_processes_compete(settings: Settings) -> None:
    counter_id = uuid4()
    async with mirroring.open(settings) as one, mirroring.open(settings), mirroring.open(settings):
        for _ in range(10):
            await one.executor.execute_many([Grow(counter_id=counter_id) for _ in range(20)])
        await eventually(lambda: level(settings), timeout_seconds=30)
        assert await value(one, mirror_of(counter_id)) == 200 * 10_000


async def test_a_checkpoint_that_is_set_back_gives_no_event_a_second_effect(settings: Settings) -> None:
    counter_id = uuid4()
    async with mirroring.open(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id))
        await eventually(lambda: level(settings))
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE reactions SET position = 0, positions = '{}'")
    async with mirroring.open(settings) as runtime:
        await eventually(lambda: level(settings))
        assert await value(runtime, mirror_of(counter_id)) == 10_000


async def test_an_event_that_fails_is_parked_and_later_ones_go_on_until_it_is_retried(settings: Settings) -> None:
    counter_id = uuid4()
    async with mirroring.open(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=POISON))
        await runtime.executor.execute(Grow(counter_id=counter_id))
        await eventually(lambda: level(settings))
        assert await value(runtime, mirror_of(counter_id)) == 10_000
        (parked,) = await runtime.due_commands.list_all(only_parked=True, count_max=9)
        assert (parked.key, parked.error) == ("reaction:mirror:2", "ValueError: poison")
        mended.add("yes")
        try:
            assert await runtime.due_commands.retry(parked.key)
            await eventually(lambda: rows(settings, "SELECT FROM due_commands") == [])
        finally:
            mended.clear()
        assert await value(runtime, mirror_of(counter_id)) == (1 + POISON) * 10_000


class Unlucky(Reaction):
    """Comes before the mirror, and cannot go on."""

    @on(Counter.Grown)
    def grown(self, event: Counter.Grown, at: RecordedEvent) -> Command | None:
        return None


async def test_a_reaction_that_cannot_go_on_does_not_keep_others_from_it(settings: Settings) -> None:
    counter_id = uuid4()
    both = Application("both", aggregates=[Counter], handlers=[grow, require], reactions=[Unlucky, Mirror])
    async with both.open(settings) as runtime:
        with psycopg.connect(str(settings.database_url)) as connection:
            connection.execute("DELETE FROM reactions WHERE name = 'unlucky'")
        await runtime.executor.execute(Grow(counter_id=counter_id))
        await eventually(lambda: level(settings))
        assert await value(runtime, mirror_of(counter_id)) == 10_000


class Quoting(Reaction):
    """Fails with what no database can store as it is."""

    @on(Counter.Grown)
    def grown(self, event: Counter.Grown, at: RecordedEvent) -> Command | None:
        raise ValueError("half \ud800 and \0 nothing")


async def test_an_error_that_quotes_what_no_text_column_takes_is_kept_all_the_same(settings: Settings) -> None:
    quoting = Application("quoting", aggregates=[Counter], handlers=[grow], reactions=[Quoting])
    async with quoting.open(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        await eventually(lambda: rows(settings, "SELECT FROM due_commands WHERE parked_at IS NOT NULL"))
        (parked,) = await runtime.due_commands.list_all(only_parked=True, count_max=9)
        assert parked.error == r"ValueError: half \ud800 and \x00 nothing"


def test_a_reaction_says_nothing_of_documents() -> None:
    for said in ({"key": lambda event, at: "a"}, {"creates": True}):
        with pytest.raises(DefinitionError, match="no `key` and no `creates`"):

            class Wrong(Reaction):
                @on(Counter.Grown, **said)
                def grown(self, event: Counter.Grown, at: RecordedEvent) -> None:
                    """Never called."""


def test_what_cannot_work_is_said_at_the_start() -> None:
    with pytest.raises(DefinitionError, match="no aggregate"):
        Application("nothing", aggregates=[], handlers=[], reactions=[Mirror])
    with pytest.raises(DefinitionError, match="two reactions"):
        Application("twice", aggregates=[Counter], handlers=[grow], reactions=[Mirror, Mirror])


async def test_each_event_has_its_effect_once_though_the_process_is_killed_again_and_again(settings: Settings) -> None:
    counter_id = uuid4()
    async with Application("feeding", aggregates=[Counter], handlers=[grow]).open(settings) as feeding:
        for _ in range(5):
            await feeding.executor.execute_many([Grow(counter_id=counter_id) for _ in range(100)])
    variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_LEASE_SECONDS": "0.3"}
    for seconds in ("0.01", "0.03", "0.1", "0.3"):
        async with WorkerProcess("tests.integration.reacting", seconds, variables=variables) as process:
            assert await process.ended() == -9
    async with mirroring.open(settings) as runtime:
        await eventually(lambda: level(settings), timeout_seconds=30)
        assert await value(runtime, mirror_of(counter_id)) == 500 * 10_000
