"""Behind a PgBouncer in transaction mode, as Debian ships it, the whole application works with no tuning."""

import asyncio
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from cqrskit import ConfigurationError, Query, Settings, Term
from cqrskit.postgres.connections import connect, is_pooled
from cqrskit.postgres.migrate import applied_and_pending, migrate
from cqrskit.testing import PgBouncer, PostgresServer, assert_projection_exact, eventually
from tests.integration.counting import Count, Counts, Grow, opened
from tests.integration.running_processes import cqrskit
from tests.integration.school import School


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, pgbouncer_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(
        database_url=pgbouncer_dsn, elasticsearch_url=url, index_prefix=index_prefix, wait_timeout_seconds=60
    )


async def test_commands_projections_and_waiting_readers_work_in_two_processes_worth_of_connections(
    settings: Settings,
) -> None:
    ids = [uuid4() for _ in range(7)]
    async with opened(settings, projecting=True) as one, opened(settings) as two:
        for number in range(10):
            commands = [Grow(counter_id=ids[place % 7], by=number) for place in range(60)]
            both = await asyncio.gather(one.executor.execute_many(commands), two.executor.execute_many(commands))
            assert not [result for results in both for result in results if isinstance(result, Exception)]
        last = await two.executor.execute(Grow(counter_id=ids[0]))
        answer = await two.reader.get(Counts, str(ids[0]), min_position=last.position)
        assert answer.value is not None
        assert isinstance(answer.value.document, Count)
        where = Term("value", answer.value.document.value)
        page = await two.reader.search(Counts, Query(where=where), min_position=last.position)
        assert str(ids[0]) in [row.id for row in page.value.items]
        await assert_projection_exact(one, Counts)


async def test_a_projector_in_a_process_of_its_own_follows_by_polling(pgbouncer_dsn: str, tmp_path: Path) -> None:
    async with opened(Settings(database_url=pgbouncer_dsn)) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(100)])
        variables = {"CQRSKIT_DATABASE_URL": pgbouncer_dsn, "CQRSKIT_LOG_LEVEL": "info"}
        application = "tests.integration.counting:counting"
        finished = await cqrskit("project", "--app", application, "--until-level", variables=variables)
        assert finished.code == 0, finished.err
        assert "listener.polls" in finished.err
        await assert_projection_exact(runtime, Counts)


def test_migrations_run_through_it(pgbouncer: PgBouncer, postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database(migrated=False)
    try:
        migrate(pgbouncer.url_of(url))
        assert applied_and_pending(url)[1] == []
    finally:
        postgres_server.drop_database(url)


def test_the_recorder_saves_reads_and_follows_through_it(pgbouncer_dsn: str) -> None:
    with School({"PERSISTENCE_MODULE": "cqrskit.postgres.recorder", "POSTGRES_URL": pgbouncer_dsn}) as school:
        dog = school.register("Rex")
        tricks = [f"trick {number}" for number in range(10)]
        assert [school.add_trick(dog, trick) for trick in tricks] == list(range(2, 12))
        assert school.tricks_of(dog) == tricks
        with school.recorder.subscribe(gt=0) as subscription:
            assert [next(subscription).id for _ in range(11)] == list(range(1, 12))
            school.add_trick(dog, "the last")
            assert next(subscription).id == 12


async def test_a_connection_knows_whether_a_pooler_stands_before_the_server(
    postgres_dsn: str, pgbouncer_dsn: str
) -> None:
    for url, pooled in ((postgres_dsn, False), (pgbouncer_dsn, True)):
        connection = await connect(url, timeout_seconds=10)
        assert is_pooled(connection) is pooled
        await connection.close()


async def test_times_are_read_in_utc_though_the_database_lives_elsewhere(postgres_dsn: str, pgbouncer_dsn: str) -> None:
    await set_default(postgres_dsn, "timezone", "Asia/Tokyo")
    connections = [await connect(pgbouncer_dsn, timeout_seconds=10) for _ in range(8)]
    for connection in connections * 2:
        cursor = await connection.execute("SELECT current_setting('timezone')")
        assert await cursor.fetchone() == ("UTC",)
    for connection in connections:
        await connection.close()


async def test_an_isolation_level_that_cannot_be_set_through_it_stops_at_the_start(
    postgres_dsn: str, pgbouncer_dsn: str
) -> None:
    await set_default(postgres_dsn, "default_transaction_isolation", "serializable")
    with pytest.raises(ConfigurationError, match=r"ALTER ROLE .* 'read committed'"):
        async with opened(Settings(database_url=pgbouncer_dsn)):
            raise AssertionError("it was opened")
    async with opened(Settings(database_url=postgres_dsn)) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))


async def test_a_restarted_pooler_is_found_again(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    bouncer = PgBouncer(postgres_server.url)
    await asyncio.to_thread(bouncer.start)
    try:
        async with opened(Settings(database_url=bouncer.url_of(postgres_dsn)), projecting=True) as runtime:
            await runtime.executor.execute(Grow(counter_id=uuid4()))
            await asyncio.to_thread(bouncer.restart)
            await runtime.executor.execute(Grow(counter_id=uuid4()))

            async def level() -> bool:
                (status,) = await runtime.status()
                return status.visible_position == 4

            await eventually(level, timeout_seconds=30)
    finally:
        await asyncio.to_thread(bouncer.stop)


async def set_default(dsn: str, name: str, value: str) -> None:
    """Set what sessions of a database begin with."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.Identifier(name), sql.Literal(value))
        )
