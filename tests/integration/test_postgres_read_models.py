"""Read models in a Postgres that fails over, and made by several programs at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cqrskit import ServerUnavailable
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.read_store import PostgresReadStore
from cqrskit.read_store import Change, IndexSpec
from cqrskit.testing import eventually
from cqrskit.testing.read_store_contract import Thing, thing

INDEX = IndexSpec("things", 1, Thing)
ENOUGH_SECONDS = 20.0


@asynccontextmanager
async def opened_store(dsn: str, prefix: str) -> AsyncIterator[PostgresReadStore]:
    pool = await open_pool(dsn, connections_max=4, timeout_seconds=10)
    try:
        yield PostgresReadStore(pool, dsn, prefix)
    finally:
        await pool.close()


@pytest.fixture
async def store(postgres_dsn: str, index_prefix: str) -> AsyncIterator[PostgresReadStore]:
    async with opened_store(postgres_dsn, index_prefix) as store:
        yield store


@pytest.fixture
async def operator(postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection past the store."""
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


async def test_a_primary_that_has_become_a_standby_is_a_server_to_wait_for(
    operator: psycopg.AsyncConnection, postgres_dsn: str, index_prefix: str
) -> None:
    database = sql.Identifier(urlsplit(postgres_dsn).path[1:])
    async with opened_store(postgres_dsn, index_prefix) as store:
        await store.prepare(INDEX)
    await operator.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(database))
    async with opened_store(postgres_dsn, index_prefix) as store:
        for asked in (
            store.write(INDEX, [Change("1", 1, thing(1))]),
            store.prepare(msgspec.structs.replace(INDEX, generation=2)),
            store.make_live(INDEX),
            store.drop(INDEX),
        ):
            with pytest.raises(ServerUnavailable, match="read-only transaction"):
                await asked
    await operator.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(database))
    async with opened_store(postgres_dsn, index_prefix) as store:
        assert not await store.write(INDEX, [Change("1", 1, thing(1))])


async def test_a_privilege_that_is_taken_away_is_one_to_wait_for(
    operator: psycopg.AsyncConnection, store: PostgresReadStore, postgres_dsn: str, index_prefix: str
) -> None:
    await store.prepare(INDEX)
    role = sql.Identifier(f"{index_prefix}_reader")
    await operator.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        async with opened_store(
            make_conninfo(postgres_dsn, options=f"-c role={index_prefix}_reader"), index_prefix
        ) as limited:
            with pytest.raises(ServerUnavailable, match="permission denied"):
                await limited.count(INDEX)
    finally:
        await operator.execute(sql.SQL("DROP ROLE {}").format(role))


async def test_nobody_waits_for_the_indexes_of_another_read_model(
    operator: psycopg.AsyncConnection, store: PostgresReadStore
) -> None:
    """Making them is held up here by a transaction that has written to the table."""
    await store.prepare(INDEX)
    await store.begin_bulk_load(INDEX)
    async with operator.transaction():
        table = sql.Identifier(*store.name_of(INDEX).split("."))
        await operator.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(table))
        ending = asyncio.create_task(store.end_bulk_load(INDEX))

        async def is_held_up() -> bool:
            cursor = await operator.execute("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock'")
            return await cursor.fetchone() == (1,)

        await eventually(is_held_up)
        async with asyncio.timeout(ENOUGH_SECONDS):
            for other in (msgspec.structs.replace(INDEX, generation=2), msgspec.structs.replace(INDEX, name="others")):
                await store.prepare(other)
                await store.begin_bulk_load(other)
                await store.end_bulk_load(other)
                await store.make_live(other)
                await store.drop(other)
        assert not ending.done()
    await ending


async def test_programs_that_start_at_once_on_a_new_database_make_their_read_models(
    operator: psycopg.AsyncConnection, postgres_dsn: str, index_prefix: str
) -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened_store(postgres_dsn, index_prefix)) for _ in range(6)]
        for _ in range(3):
            await operator.execute("DROP SCHEMA IF EXISTS read_models CASCADE")
            same = await asyncio.gather(*(store.prepare(INDEX) for store in stores))
            assert len(set(same)) == 1
            await operator.execute("DROP SCHEMA read_models CASCADE")
            names = [msgspec.structs.replace(INDEX, name=f"things_{number}") for number in range(len(stores))]
            made = [store.prepare(each) for store, each in zip(stores, names, strict=True)]
            assert len(set(await asyncio.gather(*made))) == len(stores)


async def test_one_of_two_generations_that_go_live_at_once_is_live(
    store: PostgresReadStore, postgres_dsn: str, index_prefix: str
) -> None:
    generations = [msgspec.structs.replace(INDEX, generation=number) for number in range(1, 5)]
    for each in generations:
        await store.prepare(each)
    for _ in range(5):
        await asyncio.gather(*(store.make_live(each) for each in generations))
