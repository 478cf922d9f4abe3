"""Transfers of the ledger in one process, beside row locks: many accounts, two hot ones, and refusals."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from uuid import UUID

from cqrskit import Rejected, Runtime, Settings
from example_ledger.application import ledger
from example_ledger.transfers import PostTransfer
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_least, interleaved, rate
from tests.benchmarks.peers.row_locks import BY_FUNCTION, BY_STATEMENTS, RowLocks
from tests.benchmarks.samples import open_accounts, transfers

__all__ = ["measure", "post"]

ACCOUNTS = 1_000
IN_FLIGHT = 512
REFUSED_SHARE = 0.1


async def post(runtime: Runtime, commands: Sequence[PostTransfer], in_flight: int) -> int:
    """Give commands, so many at a time, each awaited by a caller of its own; how many were refused."""
    waiting = iter(commands)
    refused = 0

    async def call() -> None:
        nonlocal refused
        for command in waiting:
            try:
                await runtime.executor.execute(command)
            except Rejected:
                refused += 1

    await asyncio.gather(*(call() for _ in range(in_flight)))
    return refused


async def measure(bench: Bench) -> list[Row]:
    """All in turns: ours on many accounts, on two and with refusals; the row locks in four ways, and on two."""
    bench.say("transfers, 512 in flight, beside one transaction each with row locks")
    count, peer_count = bench.amount(40_000, at_least=IN_FLIGHT), bench.amount(4_000, at_least=100)
    async with AsyncExitStack() as stack:
        url = stack.enter_context(bench.database())
        locks = RowLocks(stack.enter_context(bench.database(migrated=False)), accounts=ACCOUNTS)
        await locks.open()
        stack.push_async_callback(locks.close)
        runtime = await stack.enter_async_context(ledger.open(Settings(database_url=url)))
        accounts = await open_accounts(runtime.executor, ACCOUNTS)
        ours = partial(_ours, runtime, count)
        by_function, by_statements = partial(locks.by_function, peer_count), partial(locks.by_statements, peer_count)
        sides = [
            Side("ours", partial(ours, accounts)),
            Side("row locks in a function, pgbench", partial(locks.by_pgbench, BY_FUNCTION, peer_count)),
            Side("ours, two accounts", partial(ours, accounts[:2])),
            Side("row locks in a function, asyncio", partial(rate, peer_count, by_function)),
            Side("row locks by statements, pgbench", partial(locks.by_pgbench, BY_STATEMENTS, peer_count)),
            Side("ours, refusals", partial(ours, accounts, REFUSED_SHARE)),
            Side("row locks by statements, asyncio", partial(rate, peer_count, by_statements)),
            Side("row locks, two accounts", partial(locks.by_pgbench, BY_FUNCTION, peer_count, accounts=2)),
        ]
        await interleaved(bench.rounds, *sides)
    return _rows({side.name: side.value for side in sides})


async def _ours(runtime: Runtime, count: int, accounts: list[UUID], refused_share: float = 0.0) -> float:
    commands = list(islice(transfers(accounts, seed=count, refused_share=refused_share), count))
    refused = 0

    async def run() -> None:
        nonlocal refused
        refused = await post(runtime, commands, IN_FLIGHT)

    found = await rate(count, run)
    assert abs(refused / count - refused_share) < 0.1, f"{refused} of {count} were refused"
    return found


def _rows(values: dict[str, float]) -> list[Row]:
    ours = values["ours"]
    peers = {name: value for name, value in values.items() if name.startswith(("row locks in", "row locks by"))}
    strongest = max(peers, key=lambda name: peers[name])
    rows = [Row("transfers", "/s", ours, f"{strongest}, 20 connections", peers.pop(strongest), at_least(12))]
    rows += [Row("transfers", "/s", ours, f"{name}, 20 connections", value) for name, value in peers.items()]
    hot, refusals = values["ours, two accounts"], values["ours, refusals"]
    return [
        *rows,
        Row("transfers between two hot accounts", "/s", hot, "transfers among 1,000 accounts", ours, at_least(0.9)),
        Row("transfers between two hot accounts", "/s", hot, "row locks by pgbench", values["row locks, two accounts"]),
        Row("transfers, of which 10 % are refused", "/s", refusals, "transfers without refusals", ours, at_least(0.8)),
    ]
