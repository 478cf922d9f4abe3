"""Several processes on one log, each with a runtime of its own: on accounts of their own, and on the same two."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import Settings
from example_ledger.application import ledger
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_least, at_most, interleaved
from tests.benchmarks.programs import Program, running
from tests.benchmarks.samples import open_accounts
from tests.benchmarks.worker import Posting

__all__ = ["measure"]

COUNTS = (1, 2, 4)
ACCOUNTS = 1_000
IN_FLIGHT = 512
SECONDS, WARM_UP_SECONDS = 4.0, 0.2
WORKER = "tests.benchmarks.worker"
PLACES = {"disjoint": "accounts of their own", "shared": "the same two accounts"}
LIMITS = {"disjoint": 1.0, "shared": 0.5}


class Team(msgspec.Struct):
    """Some of the processes at one kind of work, and what went on in all rounds so far."""

    programs: list[Program]
    executor: Any
    own: list[list[UUID]] | None
    seconds: float
    longest_seconds: float = 0.0
    errors: int = 0

    async def round(self) -> float:
        """Transfers in each second, by all of them; on two accounts that are new, if they have none of their own."""
        accounts = self.own or [await open_accounts(self.executor, 2)] * len(self.programs)
        await self._post(accounts, 16, WARM_UP_SECONDS)  # what others have appended since is known then
        found = await self._post(accounts, IN_FLIGHT, self.seconds)
        self.longest_seconds = max(self.longest_seconds, *(each["longest_seconds"] for each in found))
        self.errors += sum(sum(each["errors"].values()) for each in found)
        return float(sum(each["per_second"] for each in found))

    async def _post(self, accounts: list[list[UUID]], in_flight: int, seconds: float) -> list[dict[str, Any]]:
        work = [msgspec.to_builtins(Posting(each, in_flight, seconds)) for each in accounts]
        return await asyncio.gather(*(each.ask(part) for each, part in zip(self.programs, work, strict=True)))


async def measure(bench: Bench) -> list[Row]:
    """The first one, two and all four of the same processes in turns."""
    bench.say("one, two and four processes on one log")
    seconds = bench.seconds(SECONDS)
    async with AsyncExitStack() as stack:
        url = stack.enter_context(bench.database())
        runtime = await stack.enter_async_context(ledger.open(Settings(database_url=url)))
        accounts = [await open_accounts(runtime.executor, ACCOUNTS) for _ in range(COUNTS[-1])]
        contexts = [running(WORKER, variables={"CQRSKIT_DATABASE_URL": url}) for _ in accounts]
        programs = [await stack.enter_async_context(each) for each in contexts]
        await asyncio.gather(*(each.ask({}) for each in programs))
        teams = {
            (place, count): Team(
                programs[:count], runtime.executor, accounts[:count] if place == "disjoint" else None, seconds
            )
            for place in PLACES
            for count in COUNTS
        }
        sides = {key: Side(str(key), team.round) for key, team in teams.items()}
        await interleaved(min(bench.rounds, 3), *sides.values())
    return [
        row
        for place in PLACES
        for count in COUNTS[1:]
        for row in _rows(place, count, teams[place, count], sides[place, count], sides[place, 1], teams[place, 1])
    ]


def _rows(place: str, count: int, team: Team, side: Side, alone: Side, single: Team) -> list[Row]:
    name = f"{count} processes on {PLACES[place]}"
    note = f"{IN_FLIGHT} in flight in each; {side.spread}"
    return [
        Row(f"{name}, in sum", "/s", side.value, "one process", alone.value, at_least(LIMITS[place]), note),
        Row(f"{name}, longest wait", "ms", 1000 * team.longest_seconds, "one process", 1000 * single.longest_seconds),
        Row(f"{name}, errors", "", team.errors, limit=at_most(0)),
    ]
