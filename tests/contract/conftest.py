"""Both read stores, each on the session's server."""

from collections.abc import AsyncIterator

import pytest

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.read_store import PostgresReadStore


@pytest.fixture
async def postgres_store(postgres_dsn: str, index_prefix: str) -> AsyncIterator[PostgresReadStore]:
    pool = await open_pool(postgres_dsn, connections_max=4, timeout_seconds=10)
    yield PostgresReadStore(pool, postgres_dsn, index_prefix)
    await pool.close()


@pytest.fixture
async def elasticsearch_store(elasticsearch_url: str, index_prefix: str) -> AsyncIterator[ElasticsearchReadStore]:
    store = ElasticsearchReadStore(elasticsearch_url, index_prefix, request_timeout_seconds=30)
    yield store
    await store.close()
