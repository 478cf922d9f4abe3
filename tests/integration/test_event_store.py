"""The Postgres event store: an append-only log with dense positions in commit order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import LiteralString
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from cqrskit.errors import ServerUnavailable, StreamConflict
from cqrskit.event_store import NewBatch, Snapshot
from cqrskit.events import NewEvent
from cqrskit.partition import Partition, partition_of
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.receipts import NewReceipt, Receipt


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[PostgresEventStore]:
    pool = await open_pool(dsn, connections_max=4, timeout_seconds=10)
    store = PostgresEventStore(pool, dsn)
    yield store
    await store.close()
    await pool.close()


def new(stream_id: UUID, version: int, kind: str = "Thing.Happened") -> NewEvent:
    moment = datetime(2026, 2, 3, 4, 5, 6, 789_012, tzinfo=UTC)
    return NewEvent(stream_id, version, kind, f'{{"number":{version}}}'.encode(), b'{"actor":"ann"}', moment)


async def append(store: PostgresEventStore, *events: NewEvent) -> None:
    await store.append(NewBatch(list(events), []))


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET type = 'x'", "DELETE FROM events", "TRUNCATE events", "TRUNCATE log_head, events"]
)
async def test_the_database_refuses_to_change_the_log(postgres_dsn: str, statement: LiteralString) -> None:
    async with opened(postgres_dsn) as store:
        await append(store, new(uuid4(), 1))
        with psycopg.connect(postgres_dsn) as connection, pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement)
        assert (await store.read(0, 10)).events[0].type == "Thing.Happened"


async def test_what_is_appended_comes_back_as_it_was(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        event = new(uuid4(), 1)
        await append(store, event)
        (found,) = (await store.read(0, 10)).events
        assert found.position == 1
        names = ("stream_id", "stream_version", "type", "data", "metadata", "recorded_at")
        assert [getattr(found, name) for name in names] == [getattr(event, name) for name in names]


async def test_many_streams_are_loaded_in_one_query_each_in_order(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        streams = [uuid4() for _ in range(50)]
        for version in (1, 2, 3):
            await append(store, *(new(stream_id, version) for stream_id in streams))
        found = await store.load_streams([*streams[:20], uuid4()])
        assert len(found) == 60
        for stream_id in streams[:20]:
            assert [event.stream_version for event in found if event.stream_id == stream_id] == [1, 2, 3]


async def test_a_block_of_the_feed_tells_how_far_it_has_looked_also_when_it_finds_nothing(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        stream_id = uuid4()
        await append(store, *(new(stream_id, version, f"Thing.{'AB'[version % 2]}") for version in range(1, 11)))
        block = await store.read(0, 4, ["Thing.A"])
        assert ([event.position for event in block.events], block.until, block.head) == ([2, 4], 4, 10)
        block = await store.read(4, 100, ["Thing.Never"])
        assert (block.events, block.until, block.head) == ([], 10, 10)
        assert (await store.read(10, 5)).until == 10


async def test_a_taken_version_is_a_conflict_and_leaves_no_gap(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        stream_id = uuid4()
        await append(store, new(stream_id, 1))
        with pytest.raises(StreamConflict):
            await append(store, new(uuid4(), 1), new(stream_id, 1))
        await append(store, new(stream_id, 2))
        assert [event.position for event in (await store.read(0, 10)).events] == [1, 2]


async def test_a_waiting_writer_gets_the_positions_after_those_of_the_one_that_holds_the_log(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as first, opened(postgres_dsn) as second:
        slow, quick = uuid4(), uuid4()
        async with first.locked() as held:
            waiting = asyncio.create_task(append(second, new(quick, 1)))
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done, "the second writer must wait for the first one's commit"
            assert await second.head() == 0
            await held.append(NewBatch([new(slow, 1)], []))
        await waiting
        assert [event.stream_id for event in (await first.read(0, 10)).events] == [slow, quick]


async def test_an_append_that_expects_another_head_writes_nothing(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        stream_id = uuid4()
        assert await store.append(NewBatch([new(stream_id, 1)], []), expected_head=0) == 0
        assert await store.append(NewBatch([new(stream_id, 2)], []), expected_head=0) is None
        assert await store.head() == 1
        assert await store.append(NewBatch([new(stream_id, 2)], []), expected_head=1) == 1


async def test_a_load_gives_only_what_is_newer_than_what_is_known(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        one, other = uuid4(), uuid4()
        await append(store, new(one, 1), new(one, 2), new(other, 1), new(one, 3))
        receipt = NewReceipt("key", b'{"Do":{}}', b'{"reply":1}', None, 0, datetime(2026, 1, 1, tzinfo=UTC))
        await store.append(NewBatch([], [receipt]))
        await store.save_snapshots([Snapshot(other, 1, 3, "round", b"{}")])
        found = await store.load({one: 1, other: 0, uuid4(): 0}, ["key", "other key"], ["round"])
        assert [(event.stream_id, event.stream_version) for event in found.events] == [(one, 2), (one, 3)]
        assert found.snapshots == [Snapshot(other, 1, 3, "round", b"{}")]
        assert found.receipts == [Receipt("key", b'{"Do":{}}', b'{"reply":1}', 4)]
        found = await store.load({other: 0}, [], ["square"])
        assert (found.snapshots, [event.stream_version for event in found.events]) == ([], [1])


async def test_settling_tells_for_certain_whether_this_very_batch_is_in_the_log(postgres_dsn: str) -> None:
    async with opened(postgres_dsn) as store:
        stream_id, moment = uuid4(), datetime(2026, 1, 1, tzinfo=UTC)
        old = NewReceipt("old", b"{}", b"{}", 1, 0, moment)
        fresh = NewReceipt("fresh", b"{}", b"{}", None, 0, moment)
        await append(store, new(uuid4(), 1), new(uuid4(), 1))
        batch, receipts = NewBatch([new(stream_id, 1), new(stream_id, 2)], []), NewBatch([], [old, fresh])
        for each in (batch, receipts):
            assert await store.settle(each) is None
            await store.append(each)
        await append(store, new(uuid4(), 1))
        assert await store.settle(batch) == 2
        assert await store.settle(receipts) == 4, "as of what got its place then, not of an older reply"
        other = msgspec.structs.replace(new(stream_id, 1), data=b'{"number":7}')
        assert await store.settle(NewBatch([other], [])) is None, "somebody else's event at the same place"
        assert await store.settle(NewBatch([], [])) is None, "what was only looked at is to be looked at again"


async def test_a_database_that_is_gone_is_named_without_its_password() -> None:
    with pytest.raises(ServerUnavailable, match=r"127\.0\.0\.1:1/bank") as caught:
        await open_pool("postgresql://ann:secret@127.0.0.1:1/bank", connections_max=2, timeout_seconds=2)
    assert "secret" not in str(caught.value)


async def test_the_store_tells_the_partition_of_a_stream_as_we_do(postgres_dsn: str) -> None:
    ids = [uuid4() for _ in range(300)] + [UUID(int=2**128 - 1 - number) for number in (0, 1, 0x7FFF, 0x8000, 0xFFFF)]
    async with opened(postgres_dsn) as store:
        await append(store, *[new(each, 1, f"Thing.{'AB'[place % 2]}") for place, each in enumerate(ids)])
        for count in (1, 2, 3, 7, 16, 1_000, 65_536):
            numbers = range(count) if count < 20 else {partition_of(str(each), count) for each in ids[:5]}
            for number in numbers:
                partition = Partition(number, count)
                expected = [each for each in ids if partition.owns(str(each))]
                assert expected == [each for each in ids if partition.owns_stream(each)]
                block = await store.read(0, 1_000, partition=partition)
                assert [event.stream_id for event in block.events] == expected
                assert (block.until, block.head) == (len(ids), len(ids))
                of_type = await store.read(0, 1_000, ["Thing.A"], partition)
                assert [event.stream_id for event in of_type.events] == [
                    each for place, each in enumerate(ids) if place % 2 == 0 and partition.owns(str(each))
                ]
