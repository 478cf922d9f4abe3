"""Both read stores keep generations apart, show one of them, and fill them quickly."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import sql

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ConfigurationError
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.read_store import PostgresReadStore
from cqrskit.read_store import IndexSpec, ReadStore
from cqrskit.testing.generation_contract import GenerationContract
from cqrskit.testing.read_store_contract import Thing


class TestGenerationsInPostgres(GenerationContract):
    @pytest.fixture
    def store(self, postgres_store: ReadStore, postgres_dsn: str, index_prefix: str) -> ReadStore:
        self.dsn, self.prefix = postgres_dsn, index_prefix
        return postgres_store

    @pytest.fixture
    async def another_store(self, postgres_dsn: str, index_prefix: str) -> AsyncIterator[ReadStore]:
        pool = await open_pool(postgres_dsn, connections_max=2, timeout_seconds=10)
        yield PostgresReadStore(pool, postgres_dsn, index_prefix)
        await pool.close()

    async def live_documents(self, index: IndexSpec) -> int | None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            try:
                cursor = await connection.execute(
                    sql.SQL("SELECT count(*) FROM read_models.{}").format(sql.Identifier(f"{self.prefix}_{index.name}"))
                )
            except psycopg.errors.UndefinedTable:
                return None
            row = await cursor.fetchone()
            return None if row is None else int(row[0])


class TestGenerationsInElasticsearch(GenerationContract):
    @pytest.fixture
    def store(self, elasticsearch_store: ElasticsearchReadStore, index_prefix: str) -> ReadStore:
        self.client, self.prefix = elasticsearch_store.client, index_prefix
        return elasticsearch_store

    @pytest.fixture
    async def another_store(self, elasticsearch_url: str, index_prefix: str) -> AsyncIterator[ReadStore]:
        store = ElasticsearchReadStore(elasticsearch_url, index_prefix, request_timeout_seconds=30)
        yield store
        await store.close()

    async def live_documents(self, index: IndexSpec) -> int | None:
        alias = f"{self.prefix}-{index.name}"
        if not await self.client.indices.exists_alias(name=alias):
            return None
        return int((await self.client.count(index=alias))["count"])


async def test_a_view_that_would_hide_another_projections_table_is_refused(postgres_store: ReadStore) -> None:
    first, second = IndexSpec("accounts", 1, Thing), IndexSpec("accounts_1", 1, Thing)
    await postgres_store.prepare(first)
    await postgres_store.prepare(second)
    with pytest.raises(ConfigurationError, match="rename projection 'accounts_1'"):
        await postgres_store.make_live(second)
    await postgres_store.make_live(first)


async def test_a_bulk_load_spares_what_only_searches_need(
    postgres_store: ReadStore, postgres_dsn: str, index_prefix: str
) -> None:
    index = IndexSpec("loaded", 1, Thing)

    async def indexes() -> list[str]:
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
            cursor = await connection.execute(
                "SELECT indexdef FROM pg_indexes WHERE tablename = %s ORDER BY indexdef", (f"{index_prefix}_loaded_1",)
            )
            return [definition for (definition,) in await cursor.fetchall()]

    await postgres_store.prepare(index)
    before = await indexes()
    await postgres_store.begin_bulk_load(index)
    assert len(await indexes()) == 1 < len(before)
    await postgres_store.end_bulk_load(index)
    assert await indexes() == before
