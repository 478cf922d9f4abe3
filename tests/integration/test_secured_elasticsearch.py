"""A real Elasticsearch with TLS and security on: who is let in, whom we trust, and what is never shown.

Its queues and its largest request are small, so that one document's size and a full queue are met here too.
"""

import base64
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import pytest
from structlog.testing import capture_logs

from cqrskit import ConfigurationError, IndexSettings, ServerUnavailable, Settings, Unindexed
from cqrskit.elasticsearch.connection import Access
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.read_store import Change, IndexSpec
from cqrskit.testing import SecuredElasticsearch, assert_projection_exact, eventually
from cqrskit.testing.secured_elasticsearch import make_authority
from tests.integration.counting import Counts, Grow, opened
from tests.integration.running_processes import cqrskit

SMALL = {
    "http.max_content_length": "1mb",
    "thread_pool.write.size": 1,
    "thread_pool.write.queue_size": 1,
    "http.bind_host": "[127.0.0.1, 127.0.0.2]",
}
STATUS = ("status", "--app", "tests.integration.bank:bank")
SERVE = ("serve", "--app", "tests.integration.bank:create_app", "--port", "0")


class Entry(msgspec.Struct, frozen=True):
    number: int
    ballast: Annotated[str, Unindexed()] = ""


INDEX = IndexSpec("entries", 1, Entry)


@pytest.fixture(scope="module")
def server() -> Iterator[SecuredElasticsearch]:
    server = SecuredElasticsearch(settings=SMALL)
    try:
        yield server.start()
    finally:
        server.stop()


def least_privileges(prefix: str) -> dict[str, Any]:
    """What docs/how-to/run-elasticsearch-in-production.md says that a key needs."""
    return {
        "cluster": ["monitor"],
        "indices": [{"names": [f"{prefix}-*"], "privileges": ["manage", "read", "write"]}],
    }


@asynccontextmanager
async def store_at(url: str, prefix: str, **access: Any) -> AsyncIterator[ElasticsearchReadStore]:
    store = ElasticsearchReadStore(
        url, prefix, access=Access(**access), request_timeout_seconds=30, connect_timeout_seconds=10
    )
    try:
        yield store
    finally:
        await store.close()


async def written(store: ElasticsearchReadStore) -> int:
    await store.ping()
    await store.prepare(INDEX)
    assert not await store.write(INDEX, [Change("1", 1, Entry(1))])
    await store.make_live(INDEX)
    await store.refresh(INDEX)
    return await store.count(INDEX)


# --- let in


async def test_user_and_password_of_the_url_are_enough_and_never_logged(
    server: SecuredElasticsearch, index_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with store_at(server.url_with_user, index_prefix, ca_file=str(server.ca_file)) as store:
            assert await written(store) == 1
            shown = repr(vars(store)) + repr(store.client) + repr(store.client.transport.node_pool.all())
    encoded = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
    for secret in (server.password, encoded):
        assert secret not in caplog.text + str(logs) + shown


async def test_a_key_with_the_privileges_of_the_documentation_is_enough(
    server: SecuredElasticsearch, index_prefix: str
) -> None:
    key = server.make_api_key(least_privileges(index_prefix))
    with capture_logs() as logs:
        async with store_at(server.url, index_prefix, ca_file=str(server.ca_file), api_key=key) as store:
            assert await written(store) == 1
            await store.begin_bulk_load(INDEX)
            await store.end_bulk_load(INDEX)
            assert await store.size_bytes(INDEX) > 0
            await store.drop(INDEX)
    assert [entry["event"] for entry in logs] == ["elasticsearch.template_not_made"]


async def test_an_application_runs_on_it(server: SecuredElasticsearch, postgres_dsn: str, index_prefix: str) -> None:
    settings = Settings(
        database_url=postgres_dsn,
        elasticsearch_url=server.url,
        elasticsearch_api_key=server.make_api_key(least_privileges(index_prefix)),
        elasticsearch_certificate_fingerprint=server.fingerprint,
        index_prefix=index_prefix,
    )
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(50)])

        async def level() -> bool:
            (status,) = await runtime.status(count_documents=False)
            return status.visible_position == status.head

        await eventually(level, timeout_seconds=30)
        await assert_projection_exact(runtime, Counts)


# --- not let in


@pytest.mark.parametrize("wrong", ["password", "key", "nobody", "privileges"])
async def test_who_is_not_let_in_is_told_so_at_the_start(
    server: SecuredElasticsearch, index_prefix: str, wrong: str
) -> None:
    access: dict[str, str] = {"ca_file": str(server.ca_file)}
    url = server.url
    if wrong == "password":
        url = url.replace("//", "//ann:geheim@")
    elif wrong == "key":
        access["api_key"] = base64.b64encode(b"nothing:geheim").decode()
    elif wrong == "privileges":
        access["api_key"] = server.make_api_key(least_privileges("elsewhere"))
    async with store_at(url, index_prefix, **access) as store:
        with pytest.raises(ConfigurationError, match=r"does not let us in.*CQRSKIT_ELASTICSEARCH_API_KEY") as refused:
            await written(store)
    assert "geheim" not in str(refused.value)
    assert access.get("api_key", "geheim") not in str(refused.value)


async def test_a_key_that_is_taken_away_at_work_is_waited_for(server: SecuredElasticsearch, index_prefix: str) -> None:
    key = server.make_api_key(least_privileges(index_prefix))
    async with store_at(server.url, index_prefix, ca_file=str(server.ca_file), api_key=key) as store:
        await written(store)
        async with store_at(server.url_with_user, index_prefix, ca_file=str(server.ca_file)) as superuser:
            key_id = base64.b64decode(key).decode().partition(":")[0]
            await superuser.client.security.invalidate_api_key(ids=[key_id])
        for request in (store.count(INDEX), store.write(INDEX, [Change("1", 2, Entry(2))])):
            with pytest.raises(ServerUnavailable, match="does not let us in"):
                await request
        assert store.circuit.state == "closed"


@pytest.mark.parametrize("wrong", ["key", "authority", "no authority"])
@pytest.mark.parametrize("program", [STATUS, SERVE], ids=["status", "serve"])
async def test_the_command_line_says_it_in_one_line_at_once(
    server: SecuredElasticsearch, postgres_dsn: str, tmp_path: Path, program: tuple[str, ...], wrong: str
) -> None:
    make_authority(tmp_path)
    key = base64.b64encode(b"nothing:geheim").decode()
    variables = {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "600",
        "CQRSKIT_ELASTICSEARCH_URL": server.url,
        "CQRSKIT_ELASTICSEARCH_API_KEY": key,
        "CQRSKIT_ELASTICSEARCH_CA_FILE": str(tmp_path / "ca.crt" if wrong == "authority" else server.ca_file),
    }
    if wrong == "no authority":
        del variables["CQRSKIT_ELASTICSEARCH_CA_FILE"]
    finished = await cqrskit(*program, variables=variables)
    assert finished.code == 2
    (line,) = finished.err.splitlines()
    assert line.startswith("error: ")
    assert ("API_KEY" if wrong == "key" else "CA_FILE") in line
    assert key not in finished.err


# --- whom we trust


async def test_only_the_named_authority_or_certificate_is_trusted(
    server: SecuredElasticsearch, index_prefix: str, tmp_path: Path
) -> None:
    make_authority(tmp_path)
    digits = server.fingerprint.upper()
    for access in (
        {"ca_file": str(server.ca_file)},
        {"certificate_fingerprint": server.fingerprint},
        {"certificate_fingerprint": ":".join(digits[place : place + 2] for place in range(0, 64, 2))},
    ):
        async with store_at(server.url_with_user, index_prefix, **access) as store:
            await store.ping()
    for access in (
        {},
        {"ca_file": str(tmp_path / "ca.crt")},
        {"certificate_fingerprint": "00" * 32},
    ):
        async with store_at(server.url_with_user, index_prefix, **access) as store:
            with pytest.raises(ConfigurationError, match=r"is not trusted.*CA_FILE"):
                await store.ping()
            with pytest.raises(ServerUnavailable):
                await store.count(INDEX)


async def test_no_public_authority_is_trusted_beside_the_named_one(
    server: SecuredElasticsearch, index_prefix: str
) -> None:
    async with store_at(server.url_with_user, index_prefix, ca_file=str(server.ca_file)) as store:
        (node,) = store.client.transport.node_pool.all()
        trusted = vars(node)["_ssl_context"].get_ca_certs()
    assert [authority["subject"] for authority in trusted] == [((("commonName", "authority"),),)]


async def test_a_certificate_of_another_host_is_not_trusted(server: SecuredElasticsearch, index_prefix: str) -> None:
    for host, mismatch in (("127.0.0.2", "IP address mismatch"), ("localhost", "Hostname mismatch")):
        elsewhere = server.url_with_user.replace("127.0.0.1", host)
        async with store_at(elsewhere, index_prefix, ca_file=str(server.ca_file)) as store:
            with pytest.raises(ConfigurationError, match=f"is not trusted.*{mismatch}"):
                await store.ping()


# --- small queues and requests


async def test_a_document_too_large_for_the_server_is_found_and_the_others_are_written(
    server: SecuredElasticsearch, index_prefix: str
) -> None:
    large = {17, 18, 63}
    changes = [
        Change(str(number), 1, Entry(number, "x" * (2_000_000 if number in large else 30_000))) for number in range(80)
    ]
    async with store_at(server.url_with_user, index_prefix, ca_file=str(server.ca_file)) as store:
        await store.prepare(INDEX)
        refused = await store.write(INDEX, changes)
        await store.refresh(INDEX)
        assert await store.count(INDEX) == 77
    assert refused.keys() == {str(number) for number in large}
    assert all("http.max_content_length" in reason for reason in refused.values())


async def test_items_that_find_a_full_queue_are_sent_again_and_all_are_written(
    server: SecuredElasticsearch, index_prefix: str
) -> None:
    many = msgspec.structs.replace(INDEX, name="many", elasticsearch=IndexSettings(shards=8))
    async with store_at(server.url_with_user, index_prefix, ca_file=str(server.ca_file)) as store:
        await store.prepare(many)
        before = await rejected(store)
        changes = [Change(str(number), 1, Entry(number)) for number in range(4_000)]
        assert not await store.write(many, changes)
        assert await rejected(store) > before
        await store.refresh(many)
        assert await store.count(many) == 4_000


async def rejected(store: ElasticsearchReadStore) -> int:
    nodes = (await store.client.nodes.stats(metric="thread_pool"))["nodes"]
    return sum(node["thread_pool"]["write"]["rejected"] for node in nodes.values())
