"""The refresher on a real Elasticsearch: what it says is visible is found, and what it gives up is wanted again."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import IndexMissing
from cqrskit.read_store import Change, IndexSpec
from cqrskit.refresher import Refresher


class Entry(msgspec.Struct, frozen=True):
    """A document."""

    number: int


INDEX = IndexSpec(name="entries", generation=1, document=Entry)
LONG = 600.0


@pytest.fixture
async def store(elasticsearch_url: str, index_prefix: str) -> AsyncIterator[ElasticsearchReadStore]:
    store = ElasticsearchReadStore(elasticsearch_url, index_prefix, request_timeout_seconds=30)
    await store.prepare(INDEX)
    yield store
    await store.drop(INDEX)
    await store.close()


class Told:
    """The positions up to which it said that all is visible, and how many documents a search found then."""

    def __init__(self, store: ElasticsearchReadStore) -> None:
        self._store = store
        self.seen: list[tuple[int, int]] = []

    async def __call__(self, position: int) -> None:
        self.seen.append((position, await self._store.count(INDEX)))


async def test_what_was_written_is_found_when_it_says_so_and_not_before(store: ElasticsearchReadStore) -> None:
    refresher, told = Refresher(store, INDEX, 0.01), Told(store)
    await store.write(INDEX, [Change("1", 1, Entry(1))])
    refresher.written()
    assert await store.count(INDEX) == 0
    assert refresher.is_wanted
    assert not refresher.is_level
    await refresher.begin_if_due(1, told, level=True)
    assert not refresher.is_level, "it is under way"
    await refresher.finish()
    assert told.seen == [(1, 1)]
    assert refresher.is_level


async def test_what_is_written_while_it_refreshes_is_wanted_still(store: ElasticsearchReadStore) -> None:
    refresher, told = Refresher(store, INDEX, 0.0), Told(store)
    await refresher.begin_if_due(0, told, level=True)
    await store.write(INDEX, [Change("1", 1, Entry(1))])
    refresher.written()
    await refresher.finish()
    assert refresher.is_wanted
    await refresher.begin_if_due(1, told, level=True)
    await refresher.finish()
    assert told.seen[-1] == (1, 1)
    assert refresher.is_level


async def test_it_waits_for_its_interval_and_longer_while_there_is_more_to_read(store: ElasticsearchReadStore) -> None:
    refresher, told = Refresher(store, INDEX, LONG), Told(store)
    await refresher.begin_if_due(0, told, level=True)
    await refresher.finish()
    assert len(told.seen) == 1, "nobody knows what was there before it began"
    refresher.written()
    await refresher.begin_if_due(1, told, level=True)
    await refresher.finish()
    assert len(told.seen) == 1
    assert 0 < refresher.seconds_left() <= LONG < refresher.seconds_left(level=False)


async def test_what_it_fails_with_is_raised_and_it_is_wanted_again_after_a_stop(store: ElasticsearchReadStore) -> None:
    refresher, told = Refresher(store, INDEX, 0.0), Told(store)
    await store.drop(INDEX)
    await refresher.begin_if_due(1, told, level=True)
    with pytest.raises(IndexMissing):
        await refresher.finish()
    await refresher.stop()
    assert refresher.is_wanted
    assert told.seen == []
