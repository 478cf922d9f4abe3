"""Snapshots and the cache of aggregates on a real Postgres: quick to load, never trusted beyond their shape."""

import asyncio
from typing import ClassVar, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from cqrskit import Aggregate, Application, Command, CommandFailed, Repository, Settings, event, handles
from cqrskit.event_store import Found
from cqrskit.testing import eventually


class Log(Aggregate):
    """Keeps what it was told."""

    lines: list[str]
    length: int

    class Begun(Aggregate.Created):
        """It is there."""

    class Written(Aggregate.Event):
        """It has a line more."""

        line: str

    @event(Begun)
    def __init__(self) -> None:
        self.lines = []
        self.length = 0

    @event(Written)
    def write(self, line: str) -> None:
        """Keep the last ten lines."""
        self.lines = [*self.lines[-9:], line]
        self.length += 1


class Write(Command):
    """Write a line."""

    log_id: UUID
    line: str
    fail: bool = False


@handles(Write)
def write(command: Write, repository: Repository) -> int:
    """Write it, and fail afterwards as told."""
    log = repository.find(Log, command.log_id) or repository.create(Log, command.log_id)
    log.write(line=command.line)
    if command.fail:
        raise ZeroDivisionError
    return log.length


logs = Application("logs", aggregates=[Log], handlers=[write])


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, snapshot_every_events=10)


def rows(settings: Settings, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(str(settings.database_url)) as connection:
        return connection.execute(statement).fetchall()


async def fill(settings: Settings, log_id: UUID, count: int) -> None:
    async with logs.open(settings) as runtime:
        await runtime.executor.execute_many([Write(log_id=log_id, line=f"line {number}") for number in range(count)])


async def test_a_stream_loads_from_its_snapshot_and_the_events_after_it(settings: Settings) -> None:
    log_id = uuid4()
    await fill(settings, log_id, 34)  # 35 events
    ((kept, position),) = rows(settings, "SELECT stream_version, position FROM snapshots")
    version = int(str(kept))
    assert (30 <= version <= 35, version) == (True, position), "of the batch in which the stream reached 30 events"
    async with logs.open(settings) as runtime:
        found = await runtime.event_store.load({log_id: 0}, [], logs.snapshots.shapes)
        assert len(found.snapshots) == 1
        assert [row.stream_version for row in found.events] == list(range(version + 1, 36))
        result = await runtime.executor.execute(Write(log_id=log_id, line="last"))
        assert (result.reply, result.position) == (35, 36)


async def test_a_stop_waits_for_the_snapshot_that_is_being_saved(settings: Settings) -> None:
    log_id = uuid4()
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO snapshots%'"
    async with (
        logs.open(settings) as runtime,
        await psycopg.AsyncConnection.connect(str(settings.database_url)) as other,
    ):
        await other.execute("LOCK TABLE snapshots IN SHARE MODE")
        await runtime.executor.execute_many([Write(log_id=log_id, line="a line") for _ in range(30)])
        await eventually(lambda: rows(settings, waiting))
        stopping = asyncio.create_task(runtime.executor.stop())
        done, _ = await asyncio.wait([stopping], timeout=0.5)
        assert not done
        await other.rollback()
        await stopping
    assert rows(settings, "SELECT stream_id FROM snapshots") == [(log_id,)]


async def test_a_stop_does_not_wait_for_a_snapshot_for_ever(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrskit.snapshots.FINISH_TIMEOUT_SECONDS", 0.1)
    log_id = uuid4()
    async with await psycopg.AsyncConnection.connect(str(settings.database_url)) as other:
        with capture_logs() as lines:
            async with logs.open(settings) as runtime:
                await other.execute("LOCK TABLE snapshots IN SHARE MODE")
                await runtime.executor.execute_many([Write(log_id=log_id, line="a line") for _ in range(30)])
        assert [line["snapshots"] for line in lines if line["event"] == "snapshots.not_saved"] == [1]


async def test_what_comes_of_a_snapshot_equals_what_comes_of_all_events(settings: Settings) -> None:
    log_id = uuid4()
    await fill(settings, log_id, 57)
    repositories = []
    async with logs.open(settings) as runtime:
        for shapes in (logs.snapshots.shapes, []):
            repository = Repository(logs.registry, logs.snapshots, size_max=10, bytes_max=10**9)
            found = await runtime.event_store.load({log_id: 0}, [], shapes)
            assert bool(found.snapshots) == bool(shapes)
            repository.learn({log_id: 0}, found, 58)
            repositories.append(repository)
    with_snapshot, without = (repository.get(Log, log_id) for repository in repositories)
    for name in ("id", "version", "created_on", "modified_on", "lines", "length"):
        assert getattr(with_snapshot, name) == getattr(without, name), name
    assert repositories[0].position_of(log_id) == repositories[1].position_of(log_id) == 58


async def test_a_snapshot_of_another_shape_is_ignored_and_replaced(settings: Settings) -> None:
    log_id = uuid4()
    await fill(settings, log_id, 25)

    class Other(Log):
        snapshot_version: ClassVar[int] = 2

    assert set(Application("other", aggregates=[Other], handlers=[]).snapshots.shapes).isdisjoint(logs.snapshots.shapes)
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE snapshots SET shape = 'another', state = '{\"length\": 1000}'")
    async with logs.open(settings) as runtime:
        assert (await runtime.executor.execute(Write(log_id=log_id, line="x"))).reply == 26
        for _ in range(10):
            await runtime.executor.execute(Write(log_id=log_id, line="x"))
        await eventually(lambda: rows(settings, "SELECT shape FROM snapshots") == [(logs.snapshots.shapes[0],)])


async def test_a_snapshot_never_holds_what_was_not_committed(settings: Settings) -> None:
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute('ALTER TABLE events ADD CONSTRAINT no_x CHECK (data <> \'{"line":"x"}\'::bytea)')
    refused_id = uuid4()
    await fill(settings, refused_id, 8)  # 9 events: the next one makes a snapshot due, and is refused
    async with logs.open(settings) as runtime:
        with pytest.raises(CommandFailed):
            await runtime.executor.execute(Write(log_id=refused_id, line="x"))
    assert rows(settings, "SELECT count(*) FROM snapshots") == [(0,)]
    log_id = uuid4()
    async with logs.open(settings) as runtime:
        for _ in range(30):
            good = Write(log_id=log_id, line="good")
            commands = [good, Write(log_id=log_id, line="x"), good, Write(log_id=log_id, line="bad", fail=True)]
            await asyncio.gather(*(runtime.executor.execute_many([each]) for each in commands))
    assert rows(settings, "SELECT count(*) FROM events") == [(9 + 61,)]
    async with logs.open(settings) as runtime:
        found = await runtime.event_store.load({log_id: 0}, [], logs.snapshots.shapes)
        repository = Repository(logs.registry, logs.snapshots, size_max=10, bytes_max=10**9)
        repository.learn({log_id: 0}, found, 70)
        assert len(found.snapshots) == 1
        assert (repository.get(Log, log_id).length, repository.get(Log, log_id).version) == (60, 61)


@pytest.mark.parametrize("limit", [{"cached_aggregates_max": 5}, {"cached_aggregates_max_bytes": 20_000}])
async def test_the_cache_stays_within_its_limits_and_loses_nothing(postgres_dsn: str, limit: dict[str, int]) -> None:
    ids = [uuid4() for _ in range(40)]
    async with logs.open(Settings(database_url=postgres_dsn, batch_size_max=16, **limit)) as runtime:  # type: ignore[arg-type]
        repository = runtime.executor._repository
        for round_number in range(1, 6):
            results = await runtime.executor.execute_many([Write(log_id=each, line="y" * 100) for each in ids])
            assert [getattr(result, "reply", result) for result in results] == [round_number] * 40
        assert 0 < len(repository) <= limit.get("cached_aggregates_max", 40)
        assert repository.weight_bytes <= limit.get("cached_aggregates_max_bytes", 10**9)


async def test_a_stale_aggregate_is_brought_forward_by_its_newer_events_only(settings: Settings) -> None:
    log_id = uuid4()
    async with logs.open(settings) as ours, logs.open(settings) as others:
        await ours.executor.execute(Write(log_id=log_id, line="a"))
        for _ in range(3):
            await others.executor.execute(Write(log_id=log_id, line="b"))
        loaded = ours.executor._repository.known(log_id)
        assert loaded is not None
        before = loaded.aggregate
        found = await ours.event_store.load({log_id: 2}, [], logs.snapshots.shapes)
        assert [row.stream_version for row in found.events] == [3, 4, 5]
        ours.executor._repository.learn({log_id: 2}, Found(found.events, [], []), 5)
        assert loaded.aggregate is before
        assert (await ours.executor.execute(Write(log_id=log_id, line="c"))).reply == 5


async def test_thousands_of_streams_load_in_one_query(settings: Settings) -> None:
    ids = [uuid4() for _ in range(5_000)]
    async with logs.open(settings) as runtime:
        await runtime.executor.execute_many([Write(log_id=each, line="a") for each in ids])
        found = await runtime.event_store.load(dict.fromkeys(ids, 0), [], [])
        assert len(found.events) == 10_000
        assert {row.stream_id for row in found.events} == set(ids)


class Odd(Aggregate):
    """Its annotations do not tell the truth."""

    pair: list[int]

    class Begun(Aggregate.Created):
        """It is there."""

    class Kept(Aggregate.Event):
        """It keeps a number, in a way that its annotation does not say."""

        number: int

    @event(Begun)
    def __init__(self) -> None:
        self.pair = []

    @event(Kept)
    def keep(self, number: int) -> None:
        """Keep it as a tuple, which comes back as a list."""
        self.pair = (number, number)  # type: ignore[assignment]


class Keep(Command):
    """Keep a number."""

    odd_id: UUID
    number: int


@handles(Keep)
def keep(command: Keep, repository: Repository) -> object:
    """Keep it, and reply with what there is."""
    odd = repository.find(Odd, command.odd_id) or repository.create(Odd, command.odd_id)
    odd.keep(number=command.number)
    return odd.pair


async def test_no_snapshot_is_kept_of_what_would_come_back_as_something_else(settings: Settings) -> None:
    odd_id = uuid4()
    odds = Application("odds", aggregates=[Odd], handlers=[keep])
    for _ in range(2):
        async with odds.open(settings) as runtime:
            for number in range(15):
                assert (await runtime.executor.execute(Keep(odd_id=odd_id, number=number))).reply == (number, number)
    assert rows(settings, "SELECT count(*) FROM snapshots") == [(0,)]
