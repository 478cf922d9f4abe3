"""Both read stores keep the contract."""

import pytest

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ConfigurationError, ServerUnavailable
from cqrskit.read_store import ReadStore
from cqrskit.testing.read_store_contract import ReadStoreContract
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
