"""Servers that answer but cannot serve, as after a start or in a failover: no answer is made of what they lack."""

import contextlib
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from cqrskit import Settings
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ServerUnavailable
from cqrskit.read_store import Change
from cqrskit.testing import assert_projection_exact
from tests.integration.counting import Count, Counts, Grow, opened

TRIES = 10


async def test_documents_on_a_shard_that_has_not_started_are_not_taken_for_missing(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    settings = Settings(database_url=postgres_dsn, elasticsearch_url=elasticsearch_url, index_prefix=index_prefix)
    key = uuid4()
    async with opened(settings, projecting=True) as runtime:
        position = (await runtime.executor.execute(Grow(counter_id=key, by=7))).position
        await runtime.positions.wait(Counts, position, visible=True, timeout_seconds=30)
    async with opened(settings) as runtime:
        store, index = runtime.read_store, Counts.index(1)
        assert isinstance(store, ElasticsearchReadStore)
        name, refused = store.name_of(index), 0
        for _ in range(TRIES):
            await store.client.indices.close(index=name)
            await store.client.indices.open(index=name, wait_for_active_shards="0")
            try:
                assert (await store.load(index, [str(key)])).keys() == {str(key)}
            except ServerUnavailable:
                refused += 1
            await store.client.cluster.health(index=name, wait_for_status="yellow", timeout="30s")
        assert refused, "the shard was always quicker"


async def test_a_projector_waits_while_postgres_only_reads(postgres_dsn: str, index_prefix: str) -> None:
    settings = Settings(database_url=postgres_dsn, index_prefix=index_prefix)
    ids = [uuid4() for _ in range(5)]
    async with opened(settings) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
    async with opened(settings, projecting=True) as runtime:
        await runtime.positions.wait(Counts, 10, visible=True, timeout_seconds=30)
        before = await runtime.read_store.load(Counts.index(1), [str(ids[0])])
        change = Change(str(ids[0]), before[str(ids[0])].version + 1, Count(0, 0))
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            _set_read_only(connection, on=True)
        try:
            for _ in range(2 * settings.connections_max):  # until the connections that were ended are all replaced
                with contextlib.suppress(ServerUnavailable):
                    await runtime.read_store.load(Counts.index(1), [str(ids[0])])
            with pytest.raises(ServerUnavailable, match="read-only"):
                await runtime.read_store.write(Counts.index(1), [change])
        finally:
            with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                connection.execute("SET default_transaction_read_only = off")
                _set_read_only(connection, on=False)
        assert runtime.stopped_projections == []
        await assert_projection_exact(runtime, Counts)


def _set_read_only(connection: psycopg.Connection[TupleRow], *, on: bool) -> None:
    """Of the database, and so of the sessions that begin now: all others are ended."""
    statement = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    connection.execute(statement.format(sql.Identifier(connection.info.dbname), sql.Literal("on" if on else "off")))
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
    connection.execute(others, (connection.info.backend_pid,))
