"""From commit to visible in a search: commands in this process, the projection in a worker's, and Elasticsearch."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import msgspec

from cqrskit import Query, Runtime, Settings, Term
from example_ledger.application import ledger
from example_ledger.read_models import StatementLines
from example_ledger.transfers import PostTransfer
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most, percentile
from tests.benchmarks.pace import arrivals, at_moments
from tests.benchmarks.programs import running
from tests.benchmarks.samples import open_accounts, transfers

__all__ = ["measure"]

ACCOUNTS = 1_000
SECONDS = 20.0
SHARE_OF_HIGHEST = 0.5
IN_FLIGHT = 256
LAG_MAX_EVENTS = 5_000
"""While the highest rate is looked for, commands wait whenever the projection is further behind than this."""
LOOKS_PER_SECOND = 30.0
"""So many commands of each second are looked for by a search: enough to tell, too few to be a load of their own."""
TIMEOUT_SECONDS = 60.0
GOAL_MILLISECONDS = 500.0


class Seen(msgspec.Struct):
    """Milliseconds from the reply of a command to its document, written and found by a search, for each that was
    looked for."""

    written: list[float] = []
    visible: list[float] = []


async def measure(bench: Bench) -> list[Row]:
    """An open loop at half of the rate at which the projection kept level a moment before."""
    elasticsearch_url = await bench.elasticsearch_url()
    seconds = bench.seconds(SECONDS)
    with bench.database() as url:
        settings = Settings(
            database_url=url, elasticsearch_url=elasticsearch_url, index_prefix=f"b{uuid4().hex[:8]}",
            wait_timeout_seconds=TIMEOUT_SECONDS,
        )  # fmt: skip
        async with ledger.open(settings) as runtime, _worker(settings):
            accounts = await open_accounts(runtime.executor, ACCOUNTS)
            await _level(runtime)
            bench.say("how fast commands can come with the projection level")
            highest = await _highest(runtime, accounts, seconds)
            await _level(runtime)
            bench.say("from commit to visible, open loop at half of that")
            arriving = SHARE_OF_HIGHEST * highest
            seen = await _look(runtime, accounts, arriving, seconds)
            await _level(runtime)
            await runtime.read_store.drop(await runtime.reader.index(StatementLines))
    return _rows(settings, seen, highest, arriving)


@asynccontextmanager
async def _worker(settings: Settings) -> AsyncIterator[None]:
    """The process that moves the projection."""
    variables = {
        "CQRSKIT_DATABASE_URL": str(settings.database_url),
        "CQRSKIT_ELASTICSEARCH_URL": str(settings.elasticsearch_url),
        "CQRSKIT_INDEX_PREFIX": settings.index_prefix,
    }
    arguments = ("project", StatementLines.name, "--app", "example_ledger.application:ledger")
    async with running("cqrskit", *arguments, variables=variables) as program:
        await program.line()
        yield


async def _level(runtime: Runtime) -> None:
    head = await runtime.event_store.head()
    await runtime.positions.wait(StatementLines, head, visible=True, timeout_seconds=TIMEOUT_SECONDS)


async def _highest(runtime: Runtime, accounts: list[UUID], seconds: float) -> float:
    """Commands in each second, in a closed loop that waits for the projection."""
    source = transfers(accounts, seed=1)
    begun, posted = time.perf_counter(), 0

    async def call() -> None:
        nonlocal posted
        while time.perf_counter() - begun < seconds:
            result = await runtime.executor.execute(next(source))
            posted += 1
            reached = result.position - LAG_MAX_EVENTS
            await runtime.positions.wait(StatementLines, reached, visible=True, timeout_seconds=TIMEOUT_SECONDS)

    await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
    await _level(runtime)
    return posted / (time.perf_counter() - begun)


async def _look(runtime: Runtime, accounts: list[UUID], per_second: float, seconds: float) -> Seen:
    moments = arrivals(per_second, seconds)
    source = transfers(accounts, seed=2)
    every = max(1, round(per_second / LOOKS_PER_SECOND))
    seen = Seen()
    number = 0

    async def execute(command: PostTransfer, looked_for: bool) -> None:
        result = await runtime.executor.execute(command)
        if not looked_for:
            return
        committed = time.perf_counter()
        await runtime.positions.wait(StatementLines, result.position, visible=False, timeout_seconds=TIMEOUT_SECONDS)
        seen.written.append(1000 * (time.perf_counter() - committed))
        query = Query(where=Term("transfer_id", command.transfer_id))
        answer = await runtime.reader.search(StatementLines, query, min_position=result.position)
        seen.visible.append(1000 * (time.perf_counter() - committed))
        assert len(answer.value.items) == 2, f"{len(answer.value.items)} lines of a transfer were found"

    def arrive(due: float) -> None:
        nonlocal number
        number += 1
        tasks.create_task(execute(next(source), number % every == 0))

    async with asyncio.TaskGroup() as tasks:
        await at_moments(moments, arrive)
    return seen


def _rows(settings: Settings, seen: Seen, highest: float, arriving: float) -> list[Row]:
    interval = 1000 * settings.refresh_interval_seconds
    name = f"statement lines, {arriving:,.0f} transfers/s arriving, from commit to found by a search"
    note = f"{len(seen.visible):,} looked for; half of {highest:,.0f} /s, at which the projection kept level"
    written = "written, so that a get by id has it"
    return [
        Row(f"{name}, p50", "ms", percentile(seen.visible, 0.5), written, percentile(seen.written, 0.5), note=note),
        Row(f"{name}, p99", "ms", percentile(seen.visible, 0.99), limit=at_most(GOAL_MILLISECONDS)),
        Row(f"{name}, the part after it was written, mean", "ms", _mean_wait(seen), "refresh interval", interval),
    ]


def _mean_wait(seen: Seen) -> float:
    return (sum(seen.visible) - sum(seen.written)) / max(1, len(seen.visible))
