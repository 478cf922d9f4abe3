"""One of several processes on one database, a program: its own runtime of the ledger, posting transfers.

Each line that it is sent is one piece of work; see `Posting` and `Volume`.
"""

import asyncio
import time
from collections import Counter
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psutil
import uvloop

from cqrskit import Rejected, Runtime, Settings, load_settings
from cqrskit.telemetry import configure_logging
from example_ledger.application import ledger
from tests.benchmarks.programs import answer_lines
from tests.benchmarks.samples import open_accounts, transfers

__all__ = ["Posting", "Volume"]

CHUNK = 1_000
CHUNKS_IN_FLIGHT = 2


class Posting(msgspec.Struct, tag=True):
    """Post transfers among `accounts` for so many seconds, `in_flight` at a time, each awaited by its own caller."""

    accounts: list[UUID]
    in_flight: int
    seconds: float


class Volume(msgspec.Struct, tag=True):
    """Open so many accounts, then post transfers among all of them, in chunks; tell the memory in between."""

    accounts: int
    transfers: int
    looks: list[float]


async def post_for(runtime: Runtime, work: Posting) -> dict[str, Any]:
    """How many were posted, how long the longest waited, and what went wrong (nothing should)."""
    source = transfers(work.accounts, seed=uuid4().int)
    errors: Counter[str] = Counter()
    posted, longest = 0, 0.0
    begun = time.perf_counter()

    async def call() -> None:
        nonlocal posted, longest
        for command in source:
            given = time.perf_counter()
            if given - begun > work.seconds:
                return
            try:
                await runtime.executor.execute(command)
                posted += 1
            except Rejected:
                posted += 1
            except Exception as error:
                errors[type(error).__name__] += 1
                await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - given)

    await asyncio.gather(*(call() for _ in range(work.in_flight)))
    taken = time.perf_counter() - begun
    return {"per_second": posted / taken, "longest_seconds": longest, "errors": dict(errors)}


async def post_volume(runtime: Runtime, work: Volume) -> dict[str, Any]:
    """The process's resident megabytes after each share of the work, and the rate over all."""
    process = psutil.Process()
    accounts = await open_accounts(runtime.executor, work.accounts)
    source = transfers(accounts, seed=1)
    megabytes: list[float] = []
    done, begun = 0, time.perf_counter()
    for look in work.looks:

        async def chunks(until: float = look * work.transfers) -> None:
            nonlocal done
            while done < until:
                done += CHUNK
                for result in await runtime.executor.execute_many(list(islice(source, CHUNK))):
                    if isinstance(result, Exception):
                        raise result

        await asyncio.gather(*(chunks() for _ in range(CHUNKS_IN_FLIGHT)))
        megabytes.append(process.memory_info().rss / 2**20)
    return {"megabytes": megabytes, "per_second": done / (time.perf_counter() - begun)}


async def serve(settings: Settings) -> None:
    """Answer until there are no more lines."""
    loop = asyncio.get_running_loop()
    async with ledger.open(settings) as runtime:

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            if not question:
                return {"ready": True}
            work: Posting | Volume = msgspec.convert(question, Posting | Volume)
            doing = post_for(runtime, work) if isinstance(work, Posting) else post_volume(runtime, work)
            return asyncio.run_coroutine_threadsafe(doing, loop).result()

        await asyncio.to_thread(answer_lines, answer)


if __name__ == "__main__":
    chosen = load_settings()
    configure_logging(chosen.log_level)
    uvloop.run(serve(chosen))
