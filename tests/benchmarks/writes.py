"""Appending: batches through the event store, one-event commands of many callers, and of one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from cqrskit import Runtime, Settings
from cqrskit.event_store import NewBatch
from cqrskit.events import NewEvent
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_least, at_most, interleaved, rate
from tests.benchmarks.peers.raw_copy import RawCopy
from tests.benchmarks.peers.recorder import Eventsourcing, stored
from tests.benchmarks.samples import METADATA, TYPE, event_batches, payload_of
from tests.integration.counting import Grow, opened

__all__ = ["append", "commands_of_callers", "grown", "measure"]

BATCH = 1_000
COUNTERS = 1_000
THREADS = 8
INSERT = (
    "INSERT INTO bare (position, stream_id, stream_version, type, data, metadata, recorded_at) "
    "VALUES (%s, %s, 1, %s, %s, %s, now())"
)


async def measure(bench: Bench) -> list[Row]:
    """Batches, many callers, one caller."""
    return [*await _batches(bench), *await _callers(bench), *await _one_caller(bench)]


async def append(runtime: Runtime, batches: Sequence[Sequence[NewEvent]]) -> None:
    """Each batch in a transaction of its own, which gives it the next positions of the log."""
    for batch in batches:
        await runtime.event_store.append(NewBatch(list(batch), []))


async def _batches(bench: Bench) -> list[Row]:
    bench.say("appending batches of 1,000 events, beside raw COPY and eventsourcing's recorder")
    ours_count, peer_count = bench.amount(100, at_least=2), bench.amount(25, at_least=1)
    async with AsyncExitStack() as stack:
        url, peer_url = (stack.enter_context(bench.database(migrated=migrated)) for migrated in (True, False))
        raw, peer = stack.enter_context(RawCopy(url)), stack.enter_context(Eventsourcing(peer_url, threads=1))
        async with opened(Settings(database_url=url)) as runtime:

            async def ours() -> float:
                batches = event_batches(ours_count, BATCH)
                return await rate(ours_count * BATCH, lambda: append(runtime, batches))

            async def copied() -> float:
                bodies = raw.prepare(event_batches(ours_count, BATCH))
                return await rate(ours_count * BATCH, lambda: asyncio.to_thread(raw.write, bodies))

            async def recorded() -> float:
                batches = [stored(each) for each in event_batches(peer_count, BATCH)]
                return await rate(peer_count * BATCH, lambda: asyncio.to_thread(peer.insert, batches))

            sides = [Side("ours", ours), Side("copy", copied), Side("recorder", recorded)]
            await interleaved(bench.rounds, *sides)
    mine, copy, recorder = (side.value for side in sides)
    name = "append batches of 1,000 events"
    return [
        Row(name, "events/s", mine, "raw COPY of ready bytes, table and indices alike", copy, at_least(0.7)),
        Row(name, "events/s", mine, "eventsourcing's recorder, 1,000 per call", recorder, at_least(4)),
    ]


async def grown(runtime: Runtime) -> list[UUID]:
    """Counters that are in the log and in memory."""
    ids = [uuid4() for _ in range(COUNTERS)]
    for result in await runtime.executor.execute_many([Grow(counter_id=each) for each in ids]):
        if isinstance(result, Exception):
            raise result
    return ids


async def commands_of_callers(runtime: Runtime, ids: Sequence[UUID], callers: int, count: int) -> float:
    """Commands of one event in each second; each of the callers waits for its own before it gives the next."""

    async def call(number: int) -> None:
        for step in range(number, count, callers):
            await runtime.executor.execute(Grow(counter_id=ids[step % len(ids)]))

    return await rate(count, lambda: asyncio.gather(*(call(number) for number in range(callers))))


async def _callers(bench: Bench) -> list[Row]:
    bench.say("one-event commands of 64 callers, beside eventsourcing with 8 threads")
    count, peer_count = bench.amount(40_000, at_least=64), bench.amount(1_500, at_least=THREADS)
    async with AsyncExitStack() as stack:
        url, peer_url = (stack.enter_context(bench.database(migrated=migrated)) for migrated in (True, False))
        peer = stack.enter_context(Eventsourcing(peer_url, threads=THREADS))
        counters = peer.counters(160)
        async with opened(Settings(database_url=url)) as runtime:
            ids = await grown(runtime)

            async def in_threads(work: Callable[[], None]) -> float:
                return await rate(peer_count, lambda: asyncio.to_thread(work))

            sides = [
                Side("64", partial(commands_of_callers, runtime, ids, 64, count)),
                Side("512", partial(commands_of_callers, runtime, ids, 512, count)),
                Side("recorder", partial(in_threads, partial(peer.insert_one_by_one, peer_count))),
                Side("save", partial(in_threads, partial(peer.grow, counters, peer_count))),
            ]
            await interleaved(bench.rounds, *sides)
    few, many, recorder, save = (side.value for side in sides)
    saving = "eventsourcing's Application.save, 8 threads"
    return [
        Row("one-event commands, 64 callers", "/s", few, "eventsourcing's recorder, 8 threads", recorder, at_least(15)),
        Row("one-event commands, 64 callers", "/s", few, saving, save),
        Row("one-event commands, 512 callers", "/s", many, saving, save),
    ]


async def _one_caller(bench: Bench) -> list[Row]:
    bench.say("one caller, beside a bare one-row transaction")
    count = bench.amount(2_000, at_least=20)
    with bench.database() as url:
        async with await AsyncConnection.connect(url, autocommit=True) as bare:
            await bare.execute("CREATE TABLE bare (LIKE events INCLUDING ALL)")
            positions = iter(range(1, 10**9))

            async def transaction() -> None:
                stream_id = uuid4()
                await bare.execute("BEGIN")
                await bare.execute(INSERT, (next(positions), stream_id, TYPE, payload_of(stream_id), METADATA))
                await bare.execute("COMMIT")

            async with opened(Settings(database_url=url)) as runtime:
                ids = await grown(runtime)
                streams = iter(ids * (bench.rounds * count // len(ids) + 1))

                async def command() -> None:
                    await runtime.executor.execute(Grow(counter_id=next(streams)))

                sides = [
                    Side("command", partial(_median_milliseconds, count, command)),
                    Side("bare", partial(_median_milliseconds, count, transaction)),
                ]
                await interleaved(bench.rounds, *sides)
    ours, other = (side.value for side in sides)
    return [Row("one caller, one-event command, p50", "ms", ours, "BEGIN, INSERT, COMMIT", other, at_most(1.5))]


async def _median_milliseconds(count: int, work: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - begun)
    return median(taken) * 1_000
