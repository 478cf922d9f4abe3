"""One long stream, and more aggregates than memory holds."""

import time
from statistics import median
from uuid import UUID

import msgspec
import psycopg

from cqrskit import Runtime, Settings
from example_ledger.application import ledger
from example_ledger.transfers import PostTransfer
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most
from tests.benchmarks.programs import running
from tests.benchmarks.samples import open_accounts
from tests.benchmarks.worker import Volume

__all__ = ["measure"]

LONG_STREAM = 100_000
OTHERS = 500
CHUNK = 1_000
TRANSFERS, ACCOUNTS = 1_000_000, 100_000
LOOKS = (0.1, 0.5, 1.0)


async def measure(bench: Bench) -> list[Row]:
    """What a long stream costs whoever needs it first, and memory under many transfers among many accounts."""
    return [*await _long_stream(bench), *await _memory(bench)]


async def _long_stream(bench: Bench) -> list[Row]:
    length = bench.amount(LONG_STREAM, at_least=CHUNK)
    bench.say(f"an account with {length:,} events")
    with bench.database() as url:
        settings = Settings(database_url=url)
        async with ledger.open(settings) as runtime:
            accounts = await open_accounts(runtime.executor, OTHERS + 1)
            for begin in range(0, length, CHUNK):
                others = accounts[1:] * (CHUNK // OTHERS)
                await _post(runtime, [_transfer(accounts[0], each) for each in others[: length - begin]])
        from_snapshot = [await _first_command_milliseconds(settings, accounts) for _ in range(3)]
        replayed = []
        for _ in range(3):
            with psycopg.connect(url) as connection:
                connection.execute("DELETE FROM snapshots")
            replayed.append(await _first_command_milliseconds(settings, accounts))
    name = f"first command of a new process on an account with {length:,} events"
    limit = at_most(0.01) if length == LONG_STREAM else None  # a short one is replayed in less than a commit takes
    return [Row(name, "ms", median(from_snapshot), "the same without snapshots", median(replayed), limit)]


def _transfer(debit: UUID, credit: UUID) -> PostTransfer:
    return PostTransfer(debit_account_id=debit, credit_account_id=credit, amount=1, currency="EUR")


async def _post(runtime: Runtime, commands: list[PostTransfer]) -> None:
    for result in await runtime.executor.execute_many(commands):
        if isinstance(result, Exception):
            raise result


async def _first_command_milliseconds(settings: Settings, accounts: list[UUID]) -> float:
    """What the caller waits for who needs an account that is not in memory, its commit included."""
    async with ledger.open(settings) as runtime:
        await _post(runtime, [_transfer(accounts[1], accounts[2])])  # so that all but that account is warm
        command = _transfer(accounts[0], accounts[1])
        begun = time.perf_counter()
        await runtime.executor.execute(command)
        return 1000 * (time.perf_counter() - begun)


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
