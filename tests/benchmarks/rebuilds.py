"""A million events folded anew: in one slice and in two, beside a service at work, and by a verification."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psutil

from cqrskit import Scope, Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger
from example_ledger.read_models import StatementLines
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.http import Services
from tests.benchmarks.ledger_log import fill_with_transfers
from tests.benchmarks.programs import Program, running, serving

__all__ = ["measure"]

ACCOUNTS = 1_000
EVENTS = 1_000_000
NAME = StatementLines.name
APP = ("--app", "example_ledger.application:ledger", "--json")
LOOK_INTERVAL_SECONDS = 0.1
EARLY = 0.25
"""The share of the work after which memory should not grow any more."""
TRANSFERS_PER_SECOND = 200.0
LOAD_SECONDS, LOAD_ROUNDS = 10.0, 3
SETTLE_SECONDS = 3.0
"""After a rebuild was interrupted, before it is measured how it is without one."""
CONNECTIONS = 64
SLICES = 2
TIMEOUT_SECONDS = 30.0


class Looks(msgspec.Struct):
    """Resident megabytes of the largest process that works, as it was seen from moment to moment."""

    seconds: float = 0.0
    megabytes: list[float] = []

    @property
    def early(self) -> float:
        """The most in the first quarter of the time."""
        return max(self.megabytes[: max(1, int(EARLY * len(self.megabytes)))], default=0.0)

    @property
    def most(self) -> float:
        """The most at any time."""
        return max(self.megabytes, default=0.0)


async def measure(bench: Bench) -> list[Row]:
    """One log for all; the verification is of what the last rebuild has built."""
    events = bench.amount(EVENTS, at_least=4_000)
    elasticsearch_url = await bench.elasticsearch_url()
    with bench.database() as url:
        bench.say(f"filling a log of the ledger with {events:,} events")
        accounts = fill_with_transfers(url, accounts=min(ACCOUNTS, events // 4), events=events)
        settings = Settings(database_url=url, elasticsearch_url=elasticsearch_url, index_prefix=f"b{uuid4().hex[:8]}")
        bench.say("rebuilding it in one slice, and in two")
        one, two = await _rebuilt(settings, 1), await _rebuilt(settings, SLICES)
        bench.say("verifying it")
        looks = Looks()
        found = await _run(settings, looks, "verify", NAME, "--full")
        assert found["differences_count"] == 0, found
        documents = int(found["documents"])
        bench.say("transfers over HTTP, with and without a rebuild")
        latencies = await _latencies(bench, settings, accounts)
        await _drop(settings)
    flat = at_most(1.1) if bench.share >= 1 else None  # a short one ends before its memory is what it will be
    name = f"rebuild of {NAME} from {events:,} events"
    return [
        Row(f"{name}, two slices", "s", two.seconds, "one slice", one.seconds, note=f"{documents:,} documents"),
        Row(f"{name}: most memory of a slice", "MB", one.most, "in the first quarter", one.early, flat),
        *(
            Row(
                f"HTTP transfers arriving at {TRANSFERS_PER_SECOND:,.0f} /s during a rebuild in {number}, p99",
                "ms",
                latencies[slices],
                "without it",
                latencies[0],
                limit,
            )
            for slices, number, limit in ((1, "one slice", at_most(2)), (SLICES, "two slices", None))
        ),
        Row(f"verification of {documents:,} documents from {events:,} events", "s", looks.seconds),
        Row("verification: most memory", "MB", looks.most, "in the first quarter", looks.early, flat),
    ]


def _variables(settings: Settings) -> dict[str, str]:
    return {
        "CQRSKIT_DATABASE_URL": str(settings.database_url),
        "CQRSKIT_ELASTICSEARCH_URL": str(settings.elasticsearch_url),
        "CQRSKIT_INDEX_PREFIX": settings.index_prefix,
    }


async def _rebuilt(settings: Settings, slices: int) -> Looks:
    looks = Looks()
    found = await _run(settings, looks, "rebuild", NAME, "--slices", str(slices), "--verify", "none")
    assert found["state"] == "live", found
    return looks


async def _run(settings: Settings, looks: Looks, *arguments: str) -> dict[str, Any]:
    """What a command of `cqrskit` answers; `looks` are at it, and at the slices that it starts."""
    begun = time.perf_counter()
    async with running("cqrskit", *arguments, *APP, variables=_variables(settings)) as program:
        looking = asyncio.create_task(_look(program, looks))
        try:
            found: dict[str, Any] = json.loads(await program.line())
        finally:
            looking.cancel()
    looks.seconds = time.perf_counter() - begun
    return found


async def _look(program: Program, looks: Looks) -> None:
    process = psutil.Process(program.pid)
    while True:
        with suppress(psutil.Error):
            workers = process.children() or [process]
            looks.megabytes.append(max(each.memory_info().rss for each in workers) / 2**20)
        await asyncio.sleep(LOOK_INTERVAL_SECONDS)


async def _latencies(bench: Bench, settings: Settings, accounts: list[UUID]) -> dict[int, float]:
    """The p99 of transfers beside a rebuild in so many slices (0: beside none), in turns: the medians of the rounds."""
    seconds = bench.seconds(LOAD_SECONDS)
    rounds = min(LOAD_ROUNDS, bench.rounds)
    found: dict[int, list[float]] = {0: [], 1: [], SLICES: []}
    arguments = ("serve", "--port", "0", "--no-projections")
    async with ledger.open(settings, executor=False) as runtime:
        key = (await runtime.api_keys.make("benchmarks", [Scope.WRITE])).text
    async with (
        serving("example_ledger", *arguments, variables=_variables(settings)) as address,
        running("tests.benchmarks.load") as generator,
    ):
        services = Services(address, address, generator, accounts, key)

        async def p99() -> float:
            requests = max(1, round(TRANSFERS_PER_SECOND * seconds))
            more = {"rate": TRANSFERS_PER_SECOND, "connections": CONNECTIONS}
            return float((await services.load(address, requests, **more))["milliseconds"]["p99"])

        for _ in range(rounds):
            await p99()  # what an account needs first is in memory then
            await asyncio.sleep(SETTLE_SECONDS)
            found[0].append(await p99())
            for slices in (1, SLICES):
                async with _rebuilding(settings, slices):
                    found[slices].append(await p99())
    return {slices: median(each) for slices, each in found.items()}


@asynccontextmanager
async def _rebuilding(settings: Settings, slices: int) -> AsyncIterator[None]:
    """A rebuild that is at work all the time, begun anew when it has come to its end; interrupted in the end."""
    at_work = asyncio.Event()

    async def rebuild() -> None:
        while True:
            arguments = ("rebuild", NAME, "--slices", str(slices), "--verify", "none", "--restart", *APP)
            async with running("cqrskit", *arguments, variables=_variables(settings)) as program:
                process = psutil.Process(program.pid)
                await eventually(partial(_has_all_slices, process, slices), timeout_seconds=TIMEOUT_SECONDS)
                at_work.set()
                await program.line()

    task = asyncio.create_task(rebuild())
    waiting = asyncio.create_task(at_work.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        yield
        assert not task.done(), f"the rebuild has failed: {task.exception()}"
    finally:
        waiting.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _has_all_slices(process: psutil.Process, slices: int) -> bool:
    """Whether all slices of a rebuild are at work."""
    found = 0
    for each in process.children():
        with suppress(psutil.Error):
            found += "rebuild-slice" in each.cmdline()
    return found == slices


async def _drop(settings: Settings) -> None:
    async with ledger.open(settings, executor=False) as runtime:
        for generation in await runtime.checkpoints.generations():
            await runtime.read_store.drop(StatementLines.index(generation.number))
