"""One long stream, and more aggregates than memory holds."""

import time
from uuid import UUID, uuid4

import msgspec

from cqrskit import Runtime, Settings
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.programs import running
from tests.benchmarks.worker import Volume
from tests.integration.counting import Counter, Grow, opened

__all__ = ["measure"]

LONG_STREAM = 100_000
CHUNK = 1_000
TRANSFERS, ACCOUNTS = 1_000_000, 100_000
LOOKS = (0.1, 0.5, 1.0)


async def measure(bench: Bench) -> list[Row]:
    """The time to load a long stream, and memory under many transfers among many accounts."""
    return [*await _long_stream(bench), *await _memory(bench)]


async def _long_stream(bench: Bench) -> list[Row]:
    length = bench.amount(LONG_STREAM, at_least=CHUNK)
    bench.say(f"one stream of {length:,} events")
    with bench.database() as url:
        counter_id = uuid4()
        async with opened(Settings(database_url=url)) as runtime:
            for _ in range(length // CHUNK):
                await runtime.executor.execute_many([Grow(counter_id=counter_id)] * CHUNK)
        async with opened(Settings(database_url=url)) as runtime:
            replayed = min([await _replayed_milliseconds(runtime, counter_id) for _ in range(3)])
        first = await _first_command_milliseconds(url, counter_id)
    what = f"stream of {length:,} events"
    limit = at_most(0.01) if length == LONG_STREAM else None  # a short one takes less than a commit
    return [
        Row(f"{what}, a new process's first command on it", "ms", first, "all its events replayed", replayed, limit)
    ]


async def _replayed_milliseconds(runtime: Runtime, stream_id: UUID) -> float:
    begun = time.perf_counter()
    counter: Counter | None = None
    for recorded in await runtime.event_store.load_streams([stream_id]):
        counter = runtime.application.registry.decode(recorded).mutate(counter)
    assert counter is not None
    return 1000 * (time.perf_counter() - begun)


async def _first_command_milliseconds(url: str, stream_id: UUID) -> float:
    """What a caller waits for who needs an aggregate that is not in memory, its commit included.

    The aggregate is built as the executor builds it: from a snapshot, where there is one.
    """
    taken = []
    for _ in range(3):
        async with opened(Settings(database_url=url)) as runtime:
            await runtime.executor.execute(Grow(counter_id=uuid4()))  # the connections are warm
            begun = time.perf_counter()
            await runtime.executor.execute(Grow(counter_id=stream_id))
            taken.append(time.perf_counter() - begun)
    return 1000 * min(taken)


async def _memory(bench: Bench) -> list[Row]:
    count = bench.amount(TRANSFERS, at_least=10 * CHUNK)
    accounts = min(ACCOUNTS, bench.amount(2 * ACCOUNTS, at_least=CHUNK))
    cached = accounts // 10
    bench.say(f"{count:,} transfers among {accounts:,} accounts, {cached:,} aggregates in memory")
    work = msgspec.to_builtins(Volume(accounts, count, list(LOOKS)))
    with bench.database() as url:
        variables = {"CQRSKIT_DATABASE_URL": url, "CQRSKIT_CACHED_AGGREGATES_MAX": str(cached)}
        async with running("tests.benchmarks.worker", variables=variables) as program:
            found = await program.ask(work)
    first, middle, last = found["megabytes"]
    name = f"{count:,} transfers, {accounts:,} accounts, {cached:,} in memory"
    return [
        Row(
            f"{name}: memory at the end", "MB", last, "after a tenth", first, at_most(1.1), f"half-way {middle:,.0f} MB"
        ),
        Row(f"{name}: rate", "/s", float(found["per_second"])),
    ]
