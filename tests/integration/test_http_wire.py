"""The fault kit for Elasticsearch does what it says: requests are lost, held, refused, or refused in part."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cqrskit.errors import ConfigurationError
from cqrskit.testing import (
    HttpWire,
    answering,
    asks,
    bulk_writes,
    cutting,
    eventually,
    every,
    every_item,
    read_only_index,
    refusing_items,
    slow,
)

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def wire(elasticsearch_url: str) -> AsyncIterator[HttpWire]:
    async with HttpWire(elasticsearch_url) as wire:
        yield wire


@pytest.fixture
async def client(wire: HttpWire) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=wire.url, timeout=30) as client:
        yield client


def body_of(*names: str) -> bytes:
    lines = [json.dumps(line) for name in names for line in ({"index": {"_id": name}}, {"name": name})]
    return ("\n".join(lines) + "\n").encode()


async def write(client: httpx.AsyncClient, index: str, *names: str) -> httpx.Response:
    return await client.post(f"/{index}/_bulk?refresh=true", content=body_of(*names), headers=NDJSON)


async def names_in(elasticsearch_url: str, index: str) -> list[str]:
    """What the server has, seen past the wire."""
    async with httpx.AsyncClient(base_url=elasticsearch_url) as client:
        await client.post(f"/{index}/_refresh")
        found = await client.get(f"/{index}/_search?size=100&ignore_unavailable=true")
        return sorted(hit["_id"] for hit in found.json()["hits"]["hits"])


async def test_what_meets_no_fault_goes_through_as_it_is(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    answer = await write(client, index_prefix, "one", "two")
    assert [item["index"]["status"] for item in answer.json()["items"]] == [201, 201]
    assert (await client.head(f"/{index_prefix}/_doc/one")).status_code == 200
    assert (await client.head(f"/{index_prefix}/_doc/none")).status_code == 404
    packed = gzip.compress(body_of(*(f"name {number}" for number in range(50))))
    headers = {**NDJSON, "Content-Encoding": "gzip"}
    assert (await client.post(f"/{index_prefix}/_bulk", content=packed, headers=headers)).status_code == 200

    async def in_chunks() -> AsyncIterator[bytes]:
        yield b'{"query":{"ids":'
        yield b'{"values":["two"]}}}'

    json_headers = {"Content-Type": "application/json"}
    found = await client.post(f"/{index_prefix}/_search", content=in_chunks(), headers=json_headers)
    assert found.json()["hits"]["total"]["value"] == 1
    assert len(await names_in(elasticsearch_url, index_prefix)) == 52


@pytest.mark.parametrize(("delivery", "kept"), [("delivered", ["one", "two"]), ("lost", ["one"])])
async def test_a_request_is_lost_before_or_after_it_took_effect(
    wire: HttpWire,
    client: httpx.AsyncClient,
    elasticsearch_url: str,
    index_prefix: str,
    delivery: Any,
    kept: list[str],
) -> None:
    await write(client, index_prefix, "one")
    fault = wire.fault(bulk_writes, cutting(delivery))
    with pytest.raises(httpx.TransportError):
        await write(client, index_prefix, "two")
    assert (fault.done, fault.spent) == (1, True)
    assert await names_in(elasticsearch_url, index_prefix) == kept
    assert (await write(client, index_prefix, "three")).status_code == 200


async def test_whole_requests_are_refused_so_many_times(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    fault = wire.fault(bulk_writes, answering(429, retry_after_seconds=7), times=2)
    answers = [await write(client, index_prefix, name) for name in ("one", "two", "three")]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].json()["error"]["type"] == "es_rejected_execution_exception"
    assert fault.done == 2
    assert await names_in(elasticsearch_url, index_prefix) == ["three"]


async def test_refused_items_are_not_written_and_all_answers_are_in_order(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    fault = wire.fault(bulk_writes, refusing_items(429, every_item(3)), times=None)
    answer = (await write(client, index_prefix, *"abcdefg")).json()
    assert [(item["index"]["_id"], item["index"]["status"]) for item in answer["items"]] == [
        *[("a", 201), ("b", 201), ("c", 429)],
        *[("d", 201), ("e", 201), ("f", 429), ("g", 201)],
    ]
    assert answer["errors"] is True
    assert await names_in(elasticsearch_url, index_prefix) == list("abdeg")
    fault.cancel()
    wire.fault(bulk_writes, refusing_items(400, every_item(1)))
    answer = (await write(client, index_prefix, "x", "y")).json()
    assert [item["index"]["error"]["type"] for item in answer["items"]] == ["document_parsing_exception"] * 2
    assert await names_in(elasticsearch_url, index_prefix) == list("abdeg")


async def test_operations_without_a_source_are_told_apart_from_those_with_one(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    await write(client, index_prefix, "a", "b")
    wire.fault(bulk_writes, refusing_items(503, lambda item: (item.operation, item.id) == ("delete", "a")))
    lines = [{"delete": {"_id": "a"}}, {"delete": {"_id": "b"}}, {"create": {"_id": "c"}}, {"name": "c"}]
    body = "\n".join(map(json.dumps, lines)) + "\n"
    answer = (await client.post(f"/{index_prefix}/_bulk", content=body, headers=NDJSON)).json()
    assert [item[operation]["status"] for item in answer["items"] for operation in item] == [503, 200, 201]
    assert await names_in(elasticsearch_url, index_prefix) == ["a", "c"]


async def test_a_request_hangs_until_it_is_released_though_its_client_has_given_up(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    hold = wire.hold_at(bulk_writes)
    with pytest.raises(httpx.ReadTimeout):
        await client.post(f"/{index_prefix}/_bulk", content=body_of("late"), headers=NDJSON, timeout=0.2)
    await hold.reached()
    await write(client, index_prefix, "next")
    assert await names_in(elasticsearch_url, index_prefix) == ["next"]
    hold.release()

    async def has_come() -> bool:
        return await names_in(elasticsearch_url, index_prefix) == ["late", "next"]

    await eventually(has_come)


async def test_an_answer_is_held_when_its_request_has_taken_effect(
    wire: HttpWire, client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str
) -> None:
    hold = wire.hold_answer_at(asks("_bulk", "POST"))
    writing = asyncio.create_task(write(client, index_prefix, "one"))
    await hold.reached()
    assert await names_in(elasticsearch_url, index_prefix) == ["one"]
    assert not writing.done()
    hold.drop()
    with pytest.raises(httpx.TransportError):
        await writing


async def test_requests_are_counted_slowed_down_and_cut_off(
    wire: HttpWire, client: httpx.AsyncClient, index_prefix: str
) -> None:
    wire.fault(every(2, bulk_writes), slow(5), times=None)
    await write(client, index_prefix, "one")
    with pytest.raises(httpx.ReadTimeout):
        await client.post(f"/{index_prefix}/_bulk", content=body_of("two"), headers=NDJSON, timeout=0.2)
    url = wire.url
    await wire.cut()
    with pytest.raises(httpx.TransportError):
        await client.get("/")
    await wire.mend()
    assert wire.url == url
    assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize(("block", "status"), [("write", 403), ("read_only_allow_delete", 429)])
async def test_an_index_is_read_only_for_a_while(
    client: httpx.AsyncClient, elasticsearch_url: str, index_prefix: str, block: Any, status: int
) -> None:
    await write(client, index_prefix, "one")
    async with read_only_index(elasticsearch_url, f"{index_prefix}*", block=block):
        (item,) = (await write(client, index_prefix, "two")).json()["items"]
        assert (item["index"]["status"], item["index"]["error"]["type"]) == (status, "cluster_block_exception")
    (item,) = (await write(client, index_prefix, "three")).json()["items"]
    assert item["index"]["status"] == 201


def test_a_wire_that_could_not_read_the_requests_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        HttpWire("https://localhost:9200")
