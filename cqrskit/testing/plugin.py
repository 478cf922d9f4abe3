"""pytest fixtures with real servers, started once per session; each test has its own database and index prefix."""

import os
import urllib.request
from collections.abc import Iterator
from uuid import uuid4

import pytest

from cqrskit.errors import ConfigurationError
from cqrskit.testing.pgbouncer import PgBouncer
from cqrskit.testing.restartable_elasticsearch import RestartableElasticsearch
from cqrskit.testing.restartable_postgres import RestartablePostgres
from cqrskit.testing.servers import ElasticsearchServer, PostgresServer

__all__ = [
    "elasticsearch_server",
    "elasticsearch_url",
    "index_prefix",
    "pgbouncer",
    "pgbouncer_dsn",
    "postgres_dsn",
    "postgres_server",
    "restartable_elasticsearch",
    "restartable_elasticsearch_url",
    "restartable_postgres",
    "restartable_postgres_dsn",
]

WITHOUT_ELASTICSEARCH = "CQRSKIT_TEST_WITHOUT_ELASTICSEARCH"
ELASTICSEARCHES = {"elasticsearch_server", "restartable_elasticsearch"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need Elasticsearch where somebody asked for that; never in CI."""
    if not os.environ.get(WITHOUT_ELASTICSEARCH):
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(f"{WITHOUT_ELASTICSEARCH} is set, but in CI every test runs: unset it")
    needing = [item for item in items if ELASTICSEARCHES.intersection(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A Postgres for this session."""
    server = PostgresServer().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def elasticsearch_server() -> Iterator[ElasticsearchServer]:
    """An Elasticsearch for this session. None to be had is a failure that says what to do."""
    server = ElasticsearchServer().start()
    yield server
    server.stop()


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of an own, migrated, empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer in transaction mode before the session's Postgres; none to be had is a skip, in CI a failure."""
    bouncer = PgBouncer(postgres_server.url)
    try:
        bouncer.start()
    except ConfigurationError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield bouncer
    bouncer.stop()


@pytest.fixture
def pgbouncer_dsn(pgbouncer: PgBouncer, postgres_dsn: str) -> str:
    """URL of the test's own database by way of PgBouncer."""
    return pgbouncer.url_of(postgres_dsn)


@pytest.fixture(scope="session")
def restartable_postgres() -> Iterator[RestartablePostgres]:
    """A Postgres for this session that tests may stop, kill and start again; see `restartable_postgres_dsn`."""
    server = RestartablePostgres().start()
    yield server
    server.stop()


@pytest.fixture
def restartable_postgres_dsn(restartable_postgres: RestartablePostgres) -> Iterator[str]:
    """URL of an own, migrated, empty database on it. It runs at the test's begin, whatever the test before did."""
    restartable_postgres.start_again()
    url = restartable_postgres.create_database()
    yield url
    restartable_postgres.start_again()
    restartable_postgres.drop_database(url)


@pytest.fixture(scope="session")
def restartable_elasticsearch() -> Iterator[RestartableElasticsearch]:
    """A small Elasticsearch for this session that tests may stop, kill and start again; it takes 20 s and 1 GB."""
    server = RestartableElasticsearch().start()
    yield server
    server.stop()


@pytest.fixture
def restartable_elasticsearch_url(restartable_elasticsearch: RestartableElasticsearch) -> str:
    """Its URL. It runs at the test's begin, whatever the test before did; keep to your `index_prefix` on it."""
    restartable_elasticsearch.start_again()
    return restartable_elasticsearch.url


@pytest.fixture
def elasticsearch_url(elasticsearch_server: ElasticsearchServer) -> str:
    """URL of the session's Elasticsearch; keep to your `index_prefix` on it."""
    return elasticsearch_server.url


@pytest.fixture
def index_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix that no other test has; its indices and its template are removed in the end."""
    prefix = f"t{uuid4().hex[:10]}"
    yield prefix
    if "elasticsearch_server" in request.fixturenames:
        server: ElasticsearchServer = request.getfixturevalue("elasticsearch_server")
        names = (
            urllib.request.urlopen(f"{server.url}/_cat/indices/{prefix}*?h=index", timeout=30).read().decode().split()
        )
        templates = urllib.request.urlopen(f"{server.url}/_cat/templates/{prefix}*?h=name", timeout=30).read().decode()
        names += [f"_index_template/{name}" for name in templates.split()]
        for name in names:
            urllib.request.urlopen(urllib.request.Request(f"{server.url}/{name}", method="DELETE"), timeout=30).close()
