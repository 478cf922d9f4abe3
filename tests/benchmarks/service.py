"""The whole service at a load that does not let up: errors, latencies, how far its read models lag, its memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import psutil

from cqrskit import Runtime, Scope, Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.ledger_log import fill_with_transfers
from tests.benchmarks.mixed_load import SHARES, MixedWork
from tests.benchmarks.programs import Program, running

__all__ = ["Looks", "measure"]

RATE = 180.0
"""Requests that arrive each second: half of the 362 that a closed loop of 16 clients got on two cores, when this was
chosen. Each run says what a closed loop gets on its own machine, so that one sees how far off half it is."""
SECONDS, WARM_UP_SECONDS, TRIAL_SECONDS = 300.0, 10.0, 20.0
SECONDS_MIN = 2.0
CONNECTIONS, TRIAL_CONNECTIONS = 128, 64
ACCOUNTS = 1_000
EVENTS = 100_000
CACHED_AGGREGATES = 5_000
"""So few that they are all there within the first minute; what grows after that is not the cache."""
LOOK_INTERVAL_SECONDS = 0.5
LEVEL_TIMEOUT_SECONDS = 300.0
ERRORS_PERCENT, P99_MILLISECONDS, LAG_SECONDS, GROWTH = 0.1, 500.0, 2.0, 1.2
LAG_EXTRA_SECONDS = 0.25
SETTLED = 0.2
"""The share of the time after which memory should not grow any more: a minute of five."""


class Looks(msgspec.Struct):
    """From moment to moment: seconds of the projection that lagged most, its events, and the service's megabytes."""

    lag_seconds: list[float] = []
    lag_events: list[int] = []
    megabytes: list[float] = []

    @property
    def first_lag(self) -> float:
        """The most in the first third of the time."""
        return max(self.lag_seconds[: max(1, len(self.lag_seconds) // 3)], default=0.0)

    @property
    def last_lag(self) -> float:
        """The most in the last third of the time."""
        return max(self.lag_seconds[-max(1, len(self.lag_seconds) // 3) :], default=0.0)

    @property
    def settled_megabytes(self) -> float:
        """When the first minute of five was over."""
        return self.megabytes[min(len(self.megabytes) - 1, int(SETTLED * len(self.megabytes)))]


async def measure(bench: Bench) -> list[Row]:
    """A closed loop for a moment, to know what the service can take; then the fixed rate, for five minutes."""
    elasticsearch_url = await bench.elasticsearch_url()
    seconds = max(SECONDS_MIN, SECONDS * min(1.0, bench.share))
    with bench.database() as url:
        events = bench.amount(EVENTS, at_least=2_000)
        bench.say(f"filling a log of the ledger with {events:,} events")
        accounts = fill_with_transfers(url, accounts=min(ACCOUNTS, events // 4), events=events)
        settings = Settings(database_url=url, elasticsearch_url=elasticsearch_url, index_prefix=f"b{uuid4().hex[:8]}")
        async with ledger.open(settings, executor=False) as runtime, _at_work(settings) as (service, generator):
            host, port = await service.address()
            key = (await runtime.api_keys.make("benchmarks", [Scope.READ, Scope.WRITE])).text
            ask = partial(_load, generator, MixedWork(host, port, key, accounts, CONNECTIONS, seconds, 1, RATE))
            bench.say("its read models are made")
            await eventually(partial(_is_level, runtime), timeout_seconds=LEVEL_TIMEOUT_SECONDS)
            bench.say("how many requests a closed loop gets")
            trial = await ask(
                seconds=min(seconds, TRIAL_SECONDS), rate=None, connections=TRIAL_CONNECTIONS, seed=uuid4().int
            )
            await eventually(partial(_is_level, runtime), timeout_seconds=LEVEL_TIMEOUT_SECONDS)
            await ask(seconds=min(seconds, WARM_UP_SECONDS), seed=uuid4().int)
            bench.say(f"{RATE:,.0f} requests/s arriving for {seconds:,.0f} s")
            looks = Looks()
            async with _looking(runtime, service.pid, looks):
                found = await ask(seed=uuid4().int)
        await _drop(settings)
    return [*_request_rows(found, trial), *_service_rows(bench, looks)]


@asynccontextmanager
async def _at_work(settings: Settings) -> AsyncIterator[tuple[Program, Program]]:
    """The service with its projections, and the load generator."""
    variables = {
        "CQRSKIT_DATABASE_URL": str(settings.database_url),
        "CQRSKIT_ELASTICSEARCH_URL": str(settings.elasticsearch_url),
        "CQRSKIT_INDEX_PREFIX": settings.index_prefix,
        "CQRSKIT_CACHED_AGGREGATES_MAX": str(CACHED_AGGREGATES),
    }
    async with (
        running("example_ledger", "serve", "--port", "0", variables=variables) as service,
        running("tests.benchmarks.mixed_load") as generator,
    ):
        yield service, generator


async def _load(generator: Program, work: MixedWork, **other: Any) -> dict[str, Any]:
    """What the generator saw of the work, some of which is otherwise."""
    return await generator.ask(msgspec.to_builtins(msgspec.structs.replace(work, **other)))


async def _is_level(runtime: Runtime) -> bool:
    found = await runtime.status(count_documents=False)
    return all(each.generation and each.lag_events == 0 for each in found)


@asynccontextmanager
async def _looking(runtime: Runtime, pid: int, looks: Looks) -> AsyncIterator[None]:
    """Look at the projections, as Postgres knows them, and at the process, until the context ends."""
    process = psutil.Process(pid)

    async def look() -> None:
        begun = time.monotonic()
        while True:
            found = await runtime.status(count_documents=False)
            looks.lag_seconds.append(max(each.lag_seconds for each in found))
            looks.lag_events.append(max(each.lag_events for each in found))
            looks.megabytes.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(LOOK_INTERVAL_SECONDS - (time.monotonic() - begun) % LOOK_INTERVAL_SECONDS)

    task = asyncio.create_task(look())
    try:
        yield
        assert not task.done(), f"nobody looks any more: {task.exception()}"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _drop(settings: Settings) -> None:
    async with ledger.open(settings, executor=False) as runtime:
        indexes = {each.name: each for each in ledger.projections}
        for generation in await runtime.checkpoints.generations():
            await runtime.read_store.drop(indexes[generation.projection].index(generation.number))


def errors_percent(found: dict[str, Any]) -> float:
    """Requests without an answer, or with another than 200 or 201, of all."""
    taken: int = sum(found["statuses"].get(status, 0) for status in ("200", "201"))
    requests: int = found["requests"]
    return 100 * (requests - taken) / max(1, requests)


def _request_rows(found: dict[str, Any], trial: dict[str, Any]) -> list[Row]:
    sustained = trial["requests"] / trial["seconds"]
    seen = found["requests"] / found["seconds"]
    milliseconds = found["milliseconds"]
    statuses = ", ".join(f"{count:,} of {status}" for status, count in sorted(found["statuses"].items()))
    name = "whole service"
    note = f"{found['requests']:,} in {found['seconds']:,.0f} s; load generator: {found['cpu_share']:.0%} of a core"
    return [
        Row(f"{name}, requests", "/s", seen, f"closed loop of {TRIAL_CONNECTIONS} clients", sustained, note=note),
        Row(f"{name}, errors", "%", errors_percent(found), limit=at_most(ERRORS_PERCENT), note=statuses),
        Row(f"{name}, p50", "ms", milliseconds["all"]["p50"]),
        Row(f"{name}, p99", "ms", milliseconds["all"]["p99"], limit=at_most(P99_MILLISECONDS)),
        Row(f"{name}, max", "ms", milliseconds["all"]["max"]),
        *(
            Row(f"{name}, {kind}, p99", "ms", milliseconds[kind]["p99"], note=f"p50 {milliseconds[kind]['p50']:.1f} ms")
            for kind in SHARES
            if kind in milliseconds
        ),
    ]


def _service_rows(bench: Bench, looks: Looks) -> list[Row]:
    name = "whole service"
    flat = at_most(GROWTH) if bench.share >= 1 else None  # a short one ends before its memory is what it will be
    most = f"{max(looks.lag_events):,} events"
    first = f"first third, and {LAG_EXTRA_SECONDS} s"
    return [
        Row(f"{name}, lag of projections, most", "s", max(looks.lag_seconds), limit=at_most(LAG_SECONDS), note=most),
        Row(
            f"{name}, lag of projections, last third",
            "s",
            looks.last_lag,
            first,
            looks.first_lag + LAG_EXTRA_SECONDS,
            at_most(2),
        ),
        Row(
            f"{name}, memory at the end",
            "MB",
            looks.megabytes[-1],
            "after the first fifth",
            looks.settled_megabytes,
            flat,
            f"at the start {looks.megabytes[0]:,.0f} MB",
        ),
    ]
