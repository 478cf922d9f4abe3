"""Both read stores keep the contract."""

from contextlib import aclosing

import psycopg
import pytest
from psycopg import sql

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ConfigurationError, InvalidCursor, InvalidQuery, ServerUnavailable
from cqrskit.postgres.read_store import PostgresReadStore
from cqrskit.query import Query
from cqrskit.read_store import Change, IndexSpec, ReadStore
from cqrskit.testing.read_store_contract import ReadStoreContract, Thing, thing
from cqrskit.testing.search_contract import SearchContract


class TestPostgres(ReadStoreContract):
    @pytest.fixture
    def store(self, postgres_store: ReadStore) -> ReadStore:
        return postgres_store


class TestPostgresSearches(SearchContract):
    @pytest.fixture
    def store(self, postgres_store: ReadStore) -> ReadStore:
        return postgres_store


class TestElasticsearch(ReadStoreContract):
    @pytest.fixture
    def store(self, elasticsearch_store: ReadStore) -> ReadStore:
        return elasticsearch_store


class TestElasticsearchSearches(SearchContract):
    @pytest.fixture
    def store(self, elasticsearch_store: ReadStore) -> ReadStore:
        return elasticsearch_store


async def test_an_elasticsearch_that_is_gone_is_named() -> None:
    store = ElasticsearchReadStore("http://127.0.0.1:1", "t", request_timeout_seconds=5)
    with pytest.raises(ServerUnavailable, match=r"Elasticsearch at 127\.0\.0\.1:1"):
        await store.ping()
    await store.close()


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://localhost", "http://", "http://localhost:port"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Elasticsearch URL"):
        ElasticsearchReadStore(url, "t", request_timeout_seconds=5)


async def test_the_client_reaches_an_index_by_its_name(elasticsearch_store: ElasticsearchReadStore) -> None:
    index = IndexSpec("things", 3, Thing)
    await elasticsearch_store.prepare(index)
    await elasticsearch_store.write(index, [Change(str(each), 1, thing(each)) for each in range(5)])
    await elasticsearch_store.write(index, [Change("4", 2, None)])
    await elasticsearch_store.refresh(index)
    response = await elasticsearch_store.client.search(
        index=elasticsearch_store.name_of(index),
        query={"bool": {"must_not": [{"term": {"cqrskit_deleted": True}}]}},
        aggs={"numbers": {"percentiles": {"field": "number", "percents": [50]}}},
        size=0,
    )
    assert response["aggregations"]["numbers"]["values"]["50.0"] == 1.5


async def test_a_table_is_reached_by_its_name(postgres_store: PostgresReadStore, postgres_dsn: str) -> None:
    index = IndexSpec("things", 3, Thing)
    await postgres_store.prepare(index)
    await postgres_store.write(index, [Change(str(each), 1, thing(each)) for each in range(5)])
    table = sql.Identifier(*postgres_store.name_of(index).split("."))
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        cursor = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
        assert await cursor.fetchone() == (5,)


async def test_points_in_time_are_closed_when_they_are_done(elasticsearch_store: ElasticsearchReadStore) -> None:
    index = IndexSpec("things", 1, Thing)
    await elasticsearch_store.prepare(index)
    await elasticsearch_store.write(index, [Change(str(each), 1, thing(each)) for each in range(5)])
    await elasticsearch_store.refresh(index)
    name = elasticsearch_store.name_of(index)

    async def open_contexts() -> int:
        found = await elasticsearch_store.client.indices.stats(index=name, metric="search")
        return int(found["_all"]["total"]["search"]["open_contexts"])

    first = await elasticsearch_store.search(index, Query(limit=3, stable=True))
    assert await open_contexts() == 1
    await elasticsearch_store.search(index, Query(limit=3, stable=True, cursor=first.next))
    await elasticsearch_store.search(index, Query(limit=5, stable=True))
    assert len([row async for row in elasticsearch_store.scan(index)]) == 5
    async with aclosing(elasticsearch_store.scan(index)) as rows:
        assert (await anext(rows)).id == "0"
    assert await open_contexts() == 0


async def test_a_copy_of_rows_goes_with_the_next_list(
    postgres_store: PostgresReadStore, postgres_dsn: str, index_prefix: str
) -> None:
    index = IndexSpec("things", 1, Thing)
    await postgres_store.prepare(index)
    await postgres_store.write(index, [Change(str(each), 1, thing(each)) for each in range(5)])
    first = await postgres_store.search(index, Query(limit=3, stable=True))
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection:
        lists = sql.Identifier("read_models", f"{index_prefix}__lists")
        await connection.execute(sql.SQL("UPDATE {} SET expires_at = now()").format(lists))
        with pytest.raises(InvalidCursor, match="begin anew"):
            await postgres_store.search(index, Query(limit=3, stable=True, cursor=first.next))
        await postgres_store.search(index, Query(limit=3, stable=True))
        rows = sql.Identifier("read_models", f"{index_prefix}__list_rows")
        cursor = await connection.execute(sql.SQL("SELECT count(*) FROM {}").format(rows))
        assert await cursor.fetchone() == (5,)


async def test_more_rows_than_a_copy_may_hold_are_refused(
    postgres_store: PostgresReadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = IndexSpec("things", 1, Thing)
    await postgres_store.prepare(index)
    await postgres_store.write(index, [Change(str(each), 1, thing(each)) for each in range(5)])
    monkeypatch.setattr("cqrskit.postgres.held_rows.ROWS_MAX", 4)
    with pytest.raises(InvalidQuery, match="more than 4 documents"):
        await postgres_store.search(index, Query(limit=3, stable=True))
    assert len((await postgres_store.search(index, Query(limit=5, stable=True))).items) == 5
