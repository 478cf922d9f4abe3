"""Blocks of the feed that are read ahead: what they say of the log's head may be older than who asks for them."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from cqrskit import Runtime, Settings
from cqrskit.feed_reader import FeedReader
from cqrskit.folding import Folding
from cqrskit.testing.leases import leased
from tests.integration.counting import Counts, Grow, opened

COUNTER = uuid4()


@pytest.fixture
async def runtime(postgres_dsn: str, index_prefix: str) -> AsyncIterator[Runtime]:
    settings = Settings(database_url=postgres_dsn, index_prefix=index_prefix, block_size_max=2)
    async with opened(settings) as runtime:
        yield runtime


def reader_of(runtime: Runtime) -> FeedReader:
    return FeedReader(runtime.event_store, Folding(Counts(), runtime.registry), 2)


async def fill(runtime: Runtime, head: int) -> None:
    """A counter's first command appends two events, each further one another."""
    while await runtime.event_store.head() < head:
        await runtime.executor.execute(Grow(counter_id=COUNTER))


async def test_blocks_come_in_order_and_say_which_was_asked_for_only_now(runtime: Runtime) -> None:
    await fill(runtime, 5)
    reader = reader_of(runtime)
    found = [await reader.read(after) for after in (0, 2, 4)]
    assert [[event.position for event in feed.events] for feed, _ in found] == [[1, 2], [3, 4], [5]]
    assert [is_fresh for _, is_fresh in found] == [True, False, False]
    assert (await reader.read(5))[1], "nothing is read ahead at the head"


async def test_a_block_that_was_read_ahead_does_not_know_what_came_since_and_says_so(runtime: Runtime) -> None:
    await fill(runtime, 4)
    reader = reader_of(runtime)
    await reader.read(0)
    assert reader._ahead is not None
    await reader._ahead
    await fill(runtime, 5)
    feed, is_fresh = await reader.read(2)
    assert (feed.until, feed.head, is_fresh) == (4, 4, False)
    feed, is_fresh = await reader.read(4)
    assert (feed.until, feed.head, is_fresh) == (5, 5, True)


async def test_a_projector_does_not_take_an_old_block_for_the_head(runtime: Runtime) -> None:
    await fill(runtime, 4)
    projector = runtime.projector(Counts(), await leased(runtime, Counts))
    await projector.open()
    read = projector._feed.read
    grown = False

    async def read_and_grow(after: int) -> object:
        """Once the last block has been read ahead, another event comes."""
        nonlocal grown
        found = await read(after)
        if projector._feed._ahead is not None and not grown:
            await projector._feed._ahead
            await fill(runtime, 5)
            grown = True
        return found

    projector._feed.read = read_and_grow  # type: ignore[method-assign, assignment]
    assert await projector.step()
    assert grown
    assert projector.position == 5, "it said that it was level with the log"
    await projector.stop()


async def test_what_is_read_ahead_is_given_up_when_it_stops(runtime: Runtime) -> None:
    await fill(runtime, 4)
    reader = reader_of(runtime)
    await reader.read(0)
    await reader.stop()
    assert (await reader.read(0))[1]
    await reader.stop()
