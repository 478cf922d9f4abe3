"""Transfers over HTTP, one and a thousand in each request, from a load generator in a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import msgspec

from cqrskit import Metadata, Runtime, Scope, Settings
from example_ledger.application import ledger
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_least, interleaved, rate
from tests.benchmarks.programs import Program, running, serving
from tests.benchmarks.samples import open_accounts, transfers

__all__ = ["Services", "measure", "services"]

ACCOUNTS = 1_000
CONNECTIONS = 64
BATCH = 1_000
BATCHES_IN_FLIGHT = 8


class Services(msgspec.Struct):
    """The ledger, the endpoint that does nothing and the load generator, each in a process of its own.

    `key` is an API key of the ledger; the endpoint that does nothing is shown it too, and does nothing with it.
    """

    ledger: tuple[str, int]
    nothing: tuple[str, int]
    generator: Program
    accounts: list[UUID]
    key: str

    async def load(self, address: tuple[str, int], requests: int, **more: Any) -> dict[str, Any]:
        """What the load generator saw; an answer of another status than 200 or 201 is an error."""
        accounts = [str(each) for each in self.accounts]
        work = {"host": address[0], "port": address[1], "accounts": accounts, "requests": requests}
        work["key"] = self.key
        await self.generator.ask({"connections": CONNECTIONS, **work, **more})
        found = await self.generator.ask({})
        if set(found["statuses"]) - {"200", "201"}:
            raise RuntimeError(f"not every request was taken: {found['statuses']}")
        return found


@asynccontextmanager
async def services(bench: Bench) -> AsyncIterator[Services]:
    """All at work, the ledger without projections."""
    with bench.database() as url:
        async with ledger.open(Settings(database_url=url)) as runtime:
            accounts = await open_accounts(runtime.executor, ACCOUNTS)
            key = (await runtime.api_keys.make("benchmarks", [Scope.WRITE])).text
        variables = {"CQRSKIT_DATABASE_URL": url}
        arguments = ("serve", "--port", "0", "--no-projections")
        async with (
            serving("example_ledger", *arguments, variables=variables) as ours,
            serving("tests.benchmarks.peers.nothing") as nothing,
            running("tests.benchmarks.load") as generator,
        ):
            yield Services(ours, nothing, generator, accounts, key)


async def measure(bench: Bench) -> list[Row]:
    """One transfer for each request, beside nothing; batches, beside the same without HTTP."""
    bench.say("transfers over HTTP, beside an endpoint that does nothing, and in batches")
    count, batches = bench.amount(15_000, at_least=CONNECTIONS), bench.amount(30, at_least=BATCHES_IN_FLIGHT)
    shares: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        at_work = await stack.enter_async_context(services(bench))
        url = stack.enter_context(bench.database())
        runtime = await stack.enter_async_context(ledger.open(Settings(database_url=url)))
        accounts = await open_accounts(runtime.executor, ACCOUNTS)

        async def loaded(name: str, address: tuple[str, int], requests: int, **more: Any) -> float:
            found = await at_work.load(address, requests, **more)
            shares[name] = max(shares.get(name, 0.0), found["cpu_share"])
            return float(found["per_second"])

        batched = {"transfers_per_request": BATCH, "connections": BATCHES_IN_FLIGHT}
        singles = [
            Side("one", partial(loaded, "one", at_work.ledger, count)),
            Side("nothing", partial(loaded, "nothing", at_work.nothing, count)),
        ]
        batches_of_them = [
            Side("many", partial(loaded, "many", at_work.ledger, batches, **batched)),
            Side("direct", partial(_direct, runtime, accounts, batches)),
        ]
        await interleaved(bench.rounds, *singles)
        await interleaved(bench.rounds, *batches_of_them)
    one, nothing, many, direct = (side.value for side in (*singles, *batches_of_them))
    return [
        Row(
            f"HTTP, one transfer per request, {CONNECTIONS} connections",
            "/s",
            one,
            "Litestar endpoint that does nothing",
            nothing,
            at_least(0.4),
            f"load generator: {shares['one']:.0%} of a core, for nothing {shares['nothing']:.0%}",
        ),
        Row(
            f"HTTP, batches of 1,000 transfers, {BATCHES_IN_FLIGHT} in flight",
            "transfers/s",
            many,
            "execute_many in this process",
            direct,
            at_least(0.7),
            f"load generator: {shares['many']:.0%} of a core",
        ),
    ]


async def _direct(runtime: Runtime, accounts: list[UUID], batches: int) -> float:
    """The same batches without HTTP, as many in flight."""
    source = transfers(accounts, seed=uuid4().int)
    waiting = iter([list(islice(source, BATCH)) for _ in range(batches)])

    async def call() -> None:
        for commands in waiting:
            for result in await runtime.executor.execute_many(commands, Metadata(correlation_id=uuid4().hex)):
                if isinstance(result, Exception):
                    raise result

    return await rate(batches * BATCH, lambda: asyncio.gather(*(call() for _ in range(BATCHES_IN_FLIGHT))))
