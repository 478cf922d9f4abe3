"""When a projector writes what it has folded, and how many of its requests are under way meanwhile."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import pytest

from cqrskit import Runtime, Settings
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.projector import GATHERED_BLOCKS_MAX, Projector
from cqrskit.read_store import Change, IndexSpec
from cqrskit.testing import HttpWire, bulk_writes
from cqrskit.testing.http_messages import HttpRequest, HttpResponse
from cqrskit.testing.http_wire import Forward
from cqrskit.testing.leases import leased
from tests.integration.counting import Counts, Grow, opened

BLOCK = 10
EVENTS = 3 * GATHERED_BLOCKS_MAX * BLOCK


class Word(msgspec.Struct, frozen=True):
    text: str


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    return Settings(
        database_url=postgres_dsn,
        index_prefix=index_prefix,
        block_size_max=BLOCK,
        elasticsearch_bulk_max_seconds=600,
    )


@asynccontextmanager
async def behind(settings: Settings, *, bulk: bool) -> AsyncIterator[tuple[Runtime, Projector]]:
    """A projector that has more to read than it writes at once."""
    async with opened(settings) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(EVENTS // 2)])
        projector = runtime.projector(Counts(), await leased(runtime, Counts), bulk=bulk)
        await projector.open()
        try:
            yield runtime, projector
        finally:
            await projector.stop()


async def test_a_slice_of_a_rebuild_has_written_what_it_has_read_before_it_reads_on(settings: Settings) -> None:
    async with behind(settings, bulk=True) as (_, projector):
        positions = []
        while not await projector.step():
            positions.append(projector.position)
        assert positions == [GATHERED_BLOCKS_MAX * BLOCK, 2 * GATHERED_BLOCKS_MAX * BLOCK]
        assert projector.position == EVENTS


async def test_a_projector_that_is_behind_writes_at_the_end_of_a_block_when_its_time_is_over(
    settings: Settings,
) -> None:
    hasty = msgspec.structs.replace(settings, elasticsearch_bulk_max_seconds=1e-9)
    async with behind(hasty, bulk=True) as (_, projector):
        assert not await projector.step()
        assert projector.position == BLOCK


@pytest.mark.parametrize("requests_max", [1, 3])
async def test_so_many_bulk_requests_are_under_way_at_once(
    requests_max: int, elasticsearch_url: str, index_prefix: str
) -> None:
    index = IndexSpec("words", 1, Word)
    under_way, most = 0, 0

    async def counted(request: HttpRequest, forward: Forward) -> HttpResponse | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await forward(request)
        finally:
            under_way -= 1

    async with HttpWire(elasticsearch_url) as wire:
        store = ElasticsearchReadStore(
            wire.url, index_prefix, request_timeout_seconds=30, bulk_max_documents=10, bulk_max_requests=requests_max
        )
        try:
            await store.prepare(index)
            wire.fault(bulk_writes, counted, times=None)
            await store.write(index, [Change(str(number), 1, Word("a")) for number in range(200)])
            assert most == requests_max
            await store.refresh(index)
            assert await store.count(index) == 200
        finally:
            await store.close()
