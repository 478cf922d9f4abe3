"""A real Elasticsearch that cannot answer, or answers in part, is never taken for one that has no documents."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from cqrskit import Query, ServerUnavailable, Settings, Summary
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ReadStoreError
from cqrskit.read_store import Change, IndexSpec
from cqrskit.testing import HttpRequest, HttpResponse, HttpWire, answering, asks, assert_projection_exact
from cqrskit.testing.http_wire import Forward
from tests.integration.counting import Counts, Grow, opened
from tests.integration.test_projector import level


class Entry(msgspec.Struct, frozen=True):
    number: int


INDEX = IndexSpec("entries", 1, Entry)
COUNTERS = [uuid4() for _ in range(5)]
READS: dict[str, Callable[[ElasticsearchReadStore], Awaitable[object]]] = {
    "get": lambda store: store.get(INDEX, "0"),
    "load": lambda store: store.load(INDEX, ["0", "1", "nothing"]),
    "search": lambda store: store.search(INDEX, Query()),
    "stable search": lambda store: store.search(INDEX, Query(stable=True)),
    "count": lambda store: store.count(INDEX),
    "summarize": lambda store: store.summarize(INDEX, Summary(of=["number"])),
    "scan": lambda store: anext(store.scan(INDEX)),
}


@pytest.fixture
async def wire(elasticsearch_url: str) -> AsyncIterator[HttpWire]:
    async with HttpWire(elasticsearch_url) as wire:
        yield wire


@pytest.fixture
async def store(wire: HttpWire, index_prefix: str) -> AsyncIterator[ElasticsearchReadStore]:
    """A store behind the wire, with three documents."""
    store = ElasticsearchReadStore(wire.url, index_prefix, request_timeout_seconds=5)
    await store.prepare(INDEX)
    await store.write(INDEX, [Change(str(number), 1, Entry(number)) for number in range(3)])
    await store.refresh(INDEX)
    yield store
    await store.close()


async def make_red(store: ElasticsearchReadStore) -> None:
    """Make an index anew whose shard no node has, as when the node that had it is gone."""
    name = store.name_of(INDEX)
    await store.client.indices.delete(index=name)
    settings = {"routing.allocation.require._name": "nobody"}
    await store.client.indices.create(index=name, settings=settings, wait_for_active_shards=0)
    assert (await store.client.cluster.health(index=name))["status"] == "red"


async def without_answers(request: HttpRequest, forward: Forward) -> HttpResponse:
    """What is asked for by its id is on a shard that has not started yet."""
    answer = await forward(request)
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    error = {"type": "no_shard_available_action_exception", "reason": "a fault of the wire: no shard available"}
    found["docs"] = [{"_index": row["_index"], "_id": row["_id"], "error": error} for row in found["docs"]]
    return msgspec.structs.replace(answer, body=msgspec.json.encode(found))


@pytest.mark.parametrize("name", READS)
async def test_an_index_without_its_shard_is_a_server_to_wait_for(store: ElasticsearchReadStore, name: str) -> None:
    await make_red(store)
    with pytest.raises(ServerUnavailable):
        await READS[name](store)


@pytest.mark.parametrize("name", READS)
async def test_a_closed_index_is_said_to_be_closed(store: ElasticsearchReadStore, name: str) -> None:
    await store.client.indices.close(index=store.name_of(INDEX))
    with pytest.raises(ReadStoreError, match="closed"):
        await READS[name](store)


async def test_some_documents_that_have_no_answer_are_not_missing(
    wire: HttpWire, store: ElasticsearchReadStore
) -> None:
    wire.fault(asks("_mget"), without_answers)
    with pytest.raises(ServerUnavailable, match="no shard available"):
        await store.load(INDEX, ["0", "1"])
    assert len(await store.load(INDEX, ["0", "1"])) == 2


async def test_nothing_is_folded_anew_over_documents_that_have_no_answer_yet(
    wire: HttpWire, postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    settings = Settings(database_url=postgres_dsn, elasticsearch_url=elasticsearch_url, index_prefix=index_prefix)
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=COUNTERS[number % 5]) for number in range(50)])
        await level(runtime)
    unanswered = wire.fault(asks("_mget"), without_answers)
    behind_wire = msgspec.structs.replace(settings, elasticsearch_url=wire.url)
    async with opened(behind_wire, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=COUNTERS[number % 5]) for number in range(50)])
        await level(runtime)
        assert unanswered.spent
        assert await runtime.checkpoints.parked("counts", 1) == []
        await assert_projection_exact(runtime, Counts)


@pytest.mark.parametrize(
    "shards",
    [{"total": 2, "successful": 1, "failed": 1}, {"total": 1, "successful": 0, "failed": 0}],
)
async def test_a_refresh_in_part_makes_nothing_visible(
    wire: HttpWire, store: ElasticsearchReadStore, shards: dict[str, int]
) -> None:
    """The second answer is the real one of an index whose shard no node has, after a minute."""
    wire.fault(asks("_refresh"), answering(200, body=msgspec.json.encode({"_shards": shards})))
    with pytest.raises(ServerUnavailable, match="refreshed in part"):
        await store.refresh(INDEX)
    await store.refresh(INDEX)


async def test_an_index_whose_shard_does_not_start_is_not_prepared(
    wire: HttpWire, store: ElasticsearchReadStore
) -> None:
    wire.fault(asks("health"), answering(408, body=b'{"status":"red","timed_out":true}'))
    with pytest.raises(ServerUnavailable):
        await store.prepare(INDEX)


async def test_a_cluster_that_is_still_forming_has_no_identity(wire: HttpWire, store: ElasticsearchReadStore) -> None:
    identity = await store.identity()
    wire.fault(lambda request: request.path == "/", answering(200, body=b'{"cluster_uuid":"_na_"}'))
    with pytest.raises(ServerUnavailable, match="forming"):
        await store.identity()
    assert await store.identity() == identity
