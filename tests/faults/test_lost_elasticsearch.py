"""Elasticsearch loses, refuses and delays what a projector sends, in whole and in part: every document stays exact."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cqrskit import Settings
from cqrskit.testing import (
    HttpWire,
    RestartableElasticsearch,
    answering,
    asks,
    assert_projection_exact,
    bulk_writes,
    cutting,
    eventually,
    every,
    every_item,
    read_only_index,
    refusing_items,
    slow,
)
from cqrskit.testing.http_wire import Behaviour, RequestMatch
from tests.faults.counting_load import WAIT_SECONDS, CountingLoad, level
from tests.integration.counting import Counts, opened

FAULTS: dict[str, tuple[RequestMatch, Callable[[], Behaviour], int]] = {
    "bulk taken, answer lost": (bulk_writes, lambda: cutting("delivered"), 5),
    "bulk lost": (bulk_writes, lambda: cutting("lost"), 5),
    "bulk 429": (bulk_writes, lambda: answering(429, retry_after_seconds=1), 3),
    "bulk 503": (bulk_writes, lambda: answering(503), 3),
    "some items 429": (bulk_writes, lambda: refusing_items(429, every_item(3)), 10),
    "some items 503": (bulk_writes, lambda: refusing_items(503, every_item(2)), 10),
    "bulk slow": (bulk_writes, lambda: slow(0.3), 5),
    "refresh 503": (asks("_refresh"), lambda: answering(503), 3),
    "refresh done, answer lost": (asks("_refresh"), lambda: cutting("delivered"), 3),
}


@asynccontextmanager
async def at_work(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str, **changes: Any
) -> AsyncIterator[CountingLoad]:
    """The load, and a projector that reaches Elasticsearch at this URL; in the end all documents are checked."""
    settings = Settings(
        database_url=postgres_dsn,
        elasticsearch_url=elasticsearch_url,
        index_prefix=index_prefix,
        block_size_max=50,
        elasticsearch_bulk_max_documents=20,  # so that there are many writes, of which some fail
        refresh_interval_seconds=0.02,
        **changes,
    )
    async with opened(settings, projecting=True) as runtime:
        load = CountingLoad(runtime)
        async with load.running():
            await load.progress()
            yield load
            await load.progress()
        await load.assert_exact()


@pytest.mark.parametrize("name", FAULTS)
async def test_documents_stay_exact_though_requests_fail(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str, name: str
) -> None:
    match, behaviour, times = FAULTS[name]
    async with HttpWire(elasticsearch_url) as wire, at_work(postgres_dsn, wire.url, index_prefix) as load:
        fault = wire.fault(every(2, match), behaviour(), times=times)
        async with asyncio.timeout(WAIT_SECONDS):
            while not fault.spent:
                await load.progress(20)


async def test_a_bulk_write_that_was_given_up_and_arrives_late_takes_nothing_back(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    async with (
        HttpWire(elasticsearch_url) as wire,
        at_work(postgres_dsn, wire.url, index_prefix, elasticsearch_request_timeout_seconds=0.5) as load,
    ):
        hold = wire.hold_at(bulk_writes)
        await hold.reached()
        await load.progress(300)
        hold.release()


@pytest.mark.parametrize("block", ["read_only_allow_delete", "write"])
async def test_a_projector_waits_while_its_index_is_read_only_and_goes_on_afterwards(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str, block: Any
) -> None:
    async with (
        HttpWire(elasticsearch_url) as wire,
        at_work(postgres_dsn, wire.url, index_prefix) as load,
        read_only_index(elasticsearch_url, f"{index_prefix}*", block=block),
    ):
        refused = wire.fault(bulk_writes, slow(0), times=None)
        await eventually(lambda: refused.done >= 2, timeout_seconds=WAIT_SECONDS)
        await load.progress()


async def test_a_document_that_the_index_refuses_sets_its_key_aside_and_no_other(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    async with HttpWire(elasticsearch_url) as wire:
        settings = Settings(
            database_url=postgres_dsn, elasticsearch_url=wire.url, index_prefix=index_prefix, block_size_max=50
        )
        async with opened(settings, projecting=True) as runtime:
            load = CountingLoad(runtime)
            async with load.running():
                await load.progress()
                bad = str(load.ids[0])
                wire.fault(bulk_writes, refusing_items(400, lambda item: item.id == bad), times=None)
                await load.progress(300)
            await level(runtime)
            await assert_projection_exact(runtime, Counts)
            assert [each.key for each in await runtime.checkpoints.parked("counts", 1)] == [bad]
            (status,) = await runtime.status()
            assert status.parked_keys == 1


async def test_documents_are_exact_after_elasticsearch_was_killed_and_started_again(
    restartable_elasticsearch: RestartableElasticsearch,
    restartable_elasticsearch_url: str,
    postgres_dsn: str,
    index_prefix: str,
) -> None:
    server = restartable_elasticsearch
    async with at_work(postgres_dsn, restartable_elasticsearch_url, index_prefix) as load:
        await asyncio.to_thread(server.kill)
        await load.progress()
        await asyncio.to_thread(server.start_again)
