"""Bulk writes to a real Elasticsearch that is busy, blocked, broken or gone: each change has one true outcome."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import pytest
from structlog.testing import capture_logs

from cqrskit import IndexSettings, Nested, Query, ServerUnavailable, Term, Text, Unindexed
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ReadStoreError
from cqrskit.read_store import Change, IndexSpec
from cqrskit.testing import CuttableWire, HttpWire, eventually
from cqrskit.testing.http_messages import HttpRequest, HttpResponse
from cqrskit.testing.http_wire import Forward
from tests.integration.refusing_proxy import Refusal, RefusingProxy


class Leg(msgspec.Struct, frozen=True):
    owner: str
    amount: int


class Entry(msgspec.Struct, frozen=True):
    number: int
    title: Annotated[str, Text(analyzer="english")] = ""
    legs: Annotated[tuple[Leg, ...], Nested()] = ()
    ballast: Annotated[str, Unindexed()] = ""


INDEX = IndexSpec("entries", 1, Entry)


def changes(numbers: range, *, version: int = 1, ballast: str = "") -> list[Change]:
    return [Change(str(number), version, Entry(number, ballast=ballast)) for number in numbers]


@pytest.fixture
async def store(elasticsearch_url: str, index_prefix: str) -> AsyncIterator[ElasticsearchReadStore]:
    store = ElasticsearchReadStore(
        elasticsearch_url, index_prefix, request_timeout_seconds=30, bulk_max_documents=7, bulk_max_bytes=20_000
    )
    await store.prepare(INDEX)
    yield store
    await store.close()


@pytest.fixture
async def proxy(elasticsearch_url: str) -> AsyncIterator[RefusingProxy]:
    async with RefusingProxy(elasticsearch_url) as proxy:
        yield proxy


@pytest.fixture
async def proxied(
    proxy: RefusingProxy, store: ElasticsearchReadStore, index_prefix: str
) -> AsyncIterator[ElasticsearchReadStore]:
    """A second store, on the same index, behind the proxy."""
    proxied = ElasticsearchReadStore(
        proxy.url,
        index_prefix,
        request_timeout_seconds=30,
        bulk_max_documents=7,
        bulk_max_bytes=20_000,
        circuit_max_failures=4,
    )
    yield proxied
    await proxied.close()


async def stored(store: ElasticsearchReadStore) -> dict[str, int]:
    await store.refresh(INDEX)
    return {each.id: each.version async for each in store.scan(INDEX)}


# --- parts


async def test_a_part_is_bounded_by_documents_and_by_bytes(
    proxy: RefusingProxy, proxied: ElasticsearchReadStore
) -> None:
    few = [*changes(range(30)), *changes(range(30, 40), ballast="x" * 9_000)]
    few += changes(range(40, 41), ballast="x" * 30_000)
    assert not await proxied.write(INDEX, few)
    documents = [body.count(b"\n") // 2 for body in proxy.bodies]
    assert sum(documents) == 41
    assert max(documents) == 7
    assert [len(body) for body in proxy.bodies if len(body) > 20_000] == [
        len(body) for body, count in zip(proxy.bodies, documents, strict=True) if count == 1 and len(body) > 30_000
    ]


async def test_each_change_stands_for_itself(store: ElasticsearchReadStore) -> None:
    assert not await store.write(INDEX, changes(range(0, 50, 2), version=5))
    mixed = changes(range(50), version=5)
    mixed[13] = Change("13", 5, Entry(2**63))
    assert (await store.write(INDEX, mixed)).keys() == {"13"}
    assert await stored(store) == {str(number): 5 for number in range(50) if number != 13}


async def test_what_the_servers_own_limits_refuse_is_a_refusal_with_its_reason(
    elasticsearch_url: str, index_prefix: str
) -> None:
    limited = msgspec.structs.replace(
        INDEX, name="limited", elasticsearch=IndexSettings(settings={"mapping.nested_objects.limit": 2})
    )
    store = ElasticsearchReadStore(elasticsearch_url, index_prefix, request_timeout_seconds=30)
    await store.prepare(limited)
    some = changes(range(20))
    some[4] = Change("4", 1, Entry(4, legs=(Leg("ann", 1),) * 3))
    refused = await store.write(limited, some)
    await store.refresh(limited)
    count = await store.count(limited)
    await store.close()
    assert refused.keys() == {"4"}
    assert "nested documents" in refused["4"]
    assert count == 19


# --- busy


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_busy_server_is_asked_again_until_it_takes_the_part(
    proxy: RefusingProxy, proxied: ElasticsearchReadStore, status: int
) -> None:
    proxy.refusals = [Refusal(status), Refusal(status), Refusal(status)]
    assert not await proxied.write(INDEX, changes(range(30)))
    assert len(await stored(proxied)) == 30
    assert proxied.circuit.state == "closed"


async def test_the_pause_that_the_server_asks_for_is_kept(
    proxy: RefusingProxy, proxied: ElasticsearchReadStore
) -> None:
    proxy.refusals = [Refusal(429, {"Retry-After": "1"})]
    assert not await proxied.write(INDEX, changes(range(5)))
    refused, taken = proxy.asked_at
    assert taken - refused >= 1.0


async def test_a_server_that_stays_busy_is_said_to_be_so_and_nothing_is_parked(
    proxy: RefusingProxy, proxied: ElasticsearchReadStore
) -> None:
    proxy.refusals = [Refusal(503)] * 10
    with pytest.raises(ServerUnavailable, match="503"):
        await proxied.write(INDEX, changes(range(5)))
    assert proxied.circuit.state == "open"
    assert len(proxy.asked_at) == 4
    with pytest.raises(ServerUnavailable, match="4 requests in a row failed"):
        await proxied.write(INDEX, changes(range(5)))
    assert len(proxy.asked_at) == 4


# --- blocked


@pytest.mark.parametrize("block", ["read_only", "read_only_allow_delete", "write"])
async def test_a_blocked_index_is_no_refusal_of_a_document(
    store: ElasticsearchReadStore, index_prefix: str, block: str
) -> None:
    name = f"{index_prefix}-entries-1"
    await store.write(INDEX, changes(range(5)))
    await store.client.indices.put_settings(index=name, settings={f"blocks.{block}": True})
    try:
        with pytest.raises(ServerUnavailable, match="takes no writes"):
            await store.write(INDEX, changes(range(20), version=2))
    finally:
        await store.client.indices.put_settings(index=name, settings={f"index.blocks.{block}": False})
    assert not await store.write(INDEX, changes(range(20), version=2))
    assert await stored(store) == {str(number): 2 for number in range(20)}
    assert store.circuit.state == "closed"


async def test_a_closed_index_is_no_refusal_of_a_document(store: ElasticsearchReadStore, index_prefix: str) -> None:
    await store.client.indices.close(index=f"{index_prefix}-entries-1")
    with pytest.raises(ReadStoreError, match="closed"):
        await store.write(INDEX, changes(range(5)))


@pytest.mark.parametrize("made_again", [False, True])
async def test_an_index_removed_under_its_writer_is_seen(
    store: ElasticsearchReadStore, index_prefix: str, made_again: bool
) -> None:
    name = f"{index_prefix}-entries-1"
    await store.client.indices.delete(index=name)
    if made_again:
        await store.client.indices.create(index=name)
    with pytest.raises(ReadStoreError, match=f"{name}-write is gone"):
        await store.write(INDEX, changes(range(5)))


# --- gone


async def test_a_cluster_that_is_gone_is_left_alone_and_found_again(
    elasticsearch_url: str, store: ElasticsearchReadStore, index_prefix: str
) -> None:
    async with CuttableWire(elasticsearch_url) as wire:
        wired = ElasticsearchReadStore(
            wire.url, index_prefix, request_timeout_seconds=30, circuit_max_failures=3, circuit_max_pause_seconds=0.5
        )
        assert not await wired.write(INDEX, changes(range(5)))
        with capture_logs() as logs:
            await wire.cut()
            for attempt in range(3):
                with pytest.raises(ServerUnavailable):
                    await (wired.count(INDEX) if attempt % 2 else wired.write(INDEX, changes(range(5, 10))))
            assert wired.circuit.state == "open"
            with pytest.raises(ServerUnavailable, match="3 requests in a row failed"):
                await wired.get(INDEX, "1")
            await wire.mend()

            async def answers() -> bool:
                try:
                    return await wired.get(INDEX, "1") is not None
                except ServerUnavailable:
                    return False

            await eventually(answers, timeout_seconds=10)
        assert (wired.circuit.state, wired.circuit.failures) == ("closed", 0)
        assert not await wired.write(INDEX, changes(range(5, 10)))
        await wired.close()
    states = [entry["event"].rpartition("_")[2] for entry in logs]
    assert (states[0], states[-1]) == ("opened", "closed")


async def test_a_write_that_is_cancelled_leaves_the_circuit_as_it_was(
    elasticsearch_url: str, store: ElasticsearchReadStore, index_prefix: str
) -> None:
    async with CuttableWire(elasticsearch_url) as wire:
        wired = ElasticsearchReadStore(wire.url, index_prefix, request_timeout_seconds=30, circuit_max_failures=1)
        wire.delay_seconds = 5.0
        task = asyncio.create_task(wired.count(INDEX))
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done
        task.cancel()
        await asyncio.wait([task])
        assert wired.circuit.state == "closed"
        await wired.close()


# --- what the client itself can ask


async def test_the_client_finds_stems_and_one_element_of_a_nested_list(
    store: ElasticsearchReadStore, index_prefix: str
) -> None:
    one, two = Leg("ann", 1), Leg("ben", 9)
    await store.write(
        INDEX,
        [
            Change("both", 1, Entry(1, "Running shoes", legs=(one, two))),
            Change("ann", 1, Entry(2, "A long walk", legs=(Leg("ann", 9),))),
        ],
    )
    await store.refresh(INDEX)

    async def found(query: dict[str, object]) -> list[str]:
        response = await store.client.search(index=f"{index_prefix}-entries-1", query=query)
        return sorted(hit["_id"] for hit in response["hits"]["hits"])

    assert await found({"match": {"title.analyzed": "runs"}}) == ["both"]
    element = [{"term": {"legs.owner": "ann"}}, {"term": {"legs.amount": 9}}]
    assert await found({"nested": {"path": "legs", "query": {"bool": {"filter": element}}}}) == ["ann"]
    rows = (await store.search(INDEX, Query(where=Term("legs.owner", "ben")))).items
    assert [row.document for row in rows] == [Entry(1, "Running shoes", legs=(one, two))]


async def test_an_operator_finds_a_template_and_a_stray_write_makes_no_index(
    store: ElasticsearchReadStore, index_prefix: str
) -> None:
    found = (await store.client.indices.get_index_template(name=index_prefix))["index_templates"]
    assert found[0]["index_template"]["index_patterns"] == [f"{index_prefix}-*"]
    with pytest.raises(Exception, match="index_not_found_exception"):
        await store.client.index(index=f"{index_prefix}-entries-2", document={"number": 1})


async def test_settings_of_a_projection_reach_its_index(store: ElasticsearchReadStore, index_prefix: str) -> None:
    settings = IndexSettings(shards=2, replicas=0, settings={"codec": "best_compression"})
    index = msgspec.structs.replace(INDEX, name="kept", elasticsearch=settings)
    await store.prepare(index)

    async def setting(name: str) -> str:
        found = await store.client.indices.get_settings(index=f"{index_prefix}-kept-1", flat_settings=True)
        return str(found[f"{index_prefix}-kept-1"]["settings"].get(f"index.{name}"))

    assert [await setting(name) for name in ("number_of_shards", "codec")] == ["2", "best_compression"]
    other = msgspec.structs.replace(index, elasticsearch=IndexSettings(shards=2, replicas=1))
    await store.end_bulk_load(other)
    assert await setting("number_of_replicas") == "1"
    await store.begin_bulk_load(other)
    assert [await setting(name) for name in ("number_of_replicas", "refresh_interval")] == ["0", "-1"]
    await store.end_bulk_load(msgspec.structs.replace(index, elasticsearch=IndexSettings(shards=2)))
    assert await setting("auto_expand_replicas") == "0-1"


async def test_an_index_that_elasticsearch_cannot_make_is_a_wrong_definition(store: ElasticsearchReadStore) -> None:
    wrong = msgspec.defstruct("Wrong", [("x", Annotated[str, Text(analyzer="klingon")])], frozen=True)
    with pytest.raises(Exception, match=r"klingon.*correct `elasticsearch` of projection 'wrong'"):
        await store.prepare(IndexSpec("wrong", 1, wrong))
    with pytest.raises(Exception, match=r"nonsense.*correct `elasticsearch`"):
        await store.prepare(
            msgspec.structs.replace(INDEX, name="wrong", elasticsearch=IndexSettings(settings={"nonsense": 1}))
        )


async def test_only_who_says_so_asks_a_cluster_that_is_left_alone(
    elasticsearch_url: str, index_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrskit.elasticsearch.circuit.FIRST_PAUSE_SECONDS", 600.0)
    asked = 0

    async def broken(_: HttpRequest, __: Forward) -> HttpResponse | None:
        nonlocal asked
        asked += 1
        return HttpResponse(503, [(b"content-type", b"application/json")], b"{}")

    async with HttpWire(elasticsearch_url) as wire:
        store = ElasticsearchReadStore(
            wire.url,
            index_prefix,
            request_timeout_seconds=30,
            circuit_max_failures=1,
            circuit_max_pause_seconds=600,
        )
        try:
            wire.fault(lambda _: True, broken, times=None)
            while store.circuit.state == "closed":
                with pytest.raises(ServerUnavailable):
                    await store.ping()
            before = asked
            with pytest.raises(ServerUnavailable):
                await store.ping()
            assert asked == before
            with pytest.raises(ServerUnavailable):
                await store.ping(despite_pauses=True)
            assert asked > before
        finally:
            await store.close()
