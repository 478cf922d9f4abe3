"""Latencies in an open loop, at half of the rate that a closed loop reached a moment before."""

import asyncio
import time
from itertools import islice
from uuid import uuid4

from cqrskit import Settings
from example_ledger.application import ledger
from example_ledger.transfers import PostTransfer
from tests.benchmarks.bench import Bench, garbage_collected_as_in_services
from tests.benchmarks.figures import Row, percentile, rate
from tests.benchmarks.http import services
from tests.benchmarks.load import PERCENTILES
from tests.benchmarks.pace import arrivals, at_moments
from tests.benchmarks.samples import open_accounts, transfers
from tests.benchmarks.transfers import post

__all__ = ["measure"]

ACCOUNTS = 1_000
SECONDS = 15.0
SHARE_OF_HIGHEST = 0.5
CONNECTIONS = 256
"""Enough that an arrival hardly ever waits for a connection; if it does, that counts."""


async def measure(bench: Bench) -> list[Row]:
    """Over HTTP, beside the endpoint that does nothing at the same rate; and commands in one process."""
    return [*await _over_http(bench), *await _in_process(bench)]


async def _over_http(bench: Bench) -> list[Row]:
    bench.say("latencies over HTTP, open loop")
    count, seconds = bench.amount(15_000, at_least=200), bench.seconds(SECONDS)
    async with services(bench) as at_work:
        highest = float((await at_work.load(at_work.ledger, count))["per_second"])
        arriving = SHARE_OF_HIGHEST * highest
        more = {"rate": arriving, "connections": CONNECTIONS}
        nothing = await at_work.load(at_work.nothing, round(arriving * seconds), **more)
        ours = await at_work.load(at_work.ledger, round(arriving * seconds), **more)
    name = f"HTTP transfers arriving at {arriving:,.0f} /s"
    note = f"load generator: {ours['cpu_share']:.0%} of a core"
    return [
        Row(
            f"{name}, {part}",
            "ms",
            ours["milliseconds"][part],
            "endpoint that does nothing, same rate",
            nothing["milliseconds"][part],
            note=note if part == "p50" else "",
        )
        for part in PERCENTILES
    ]


async def _in_process(bench: Bench) -> list[Row]:
    bench.say("latencies in one process, open loop")
    count, seconds = bench.amount(30_000, at_least=512), bench.seconds(SECONDS)
    with bench.database() as url:
        async with ledger.open(Settings(database_url=url)) as runtime:
            accounts = await open_accounts(runtime.executor, ACCOUNTS)
            commands = list(islice(transfers(accounts, seed=1), count))
            highest = await rate(count, lambda: post(runtime, commands, 512))
            arriving = SHARE_OF_HIGHEST * highest
            moments = arrivals(arriving, seconds)
            source = iter(list(islice(transfers(accounts, seed=uuid4().int), len(moments))))
            latencies: list[float] = []

            async def execute(command: PostTransfer, due: float) -> None:
                await runtime.executor.execute(command)
                latencies.append(1000 * (time.perf_counter() - due))

            with garbage_collected_as_in_services():
                async with asyncio.TaskGroup() as tasks:
                    await at_moments(moments, lambda due: tasks.create_task(execute(next(source), due)))
    assert len(latencies) == len(moments)
    name = f"transfers in one process arriving at {arriving:,.0f} /s"
    return [Row(f"{name}, {part}", "ms", percentile(latencies, share)) for part, share in PERCENTILES.items()]
