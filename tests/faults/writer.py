"""A writer process: ``python -m tests.faults.writer DSN COMMANDS DELAY_SECONDS``; it prints how many were acknowledged.

With a delay, every third commit waits so long while it holds the log.
"""

import asyncio
import itertools
import sys
from uuid import uuid4

from cqrskit import CommandResult, Settings
from cqrskit.event_store import NewBatch
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.telemetry import configure_logging
from tests.integration.counting import Grow, opened


def delay_commits(seconds: float) -> None:
    """Make every third commit of this process late."""
    append = PostgresEventStore.append
    numbers = itertools.count()

    async def late(self: PostgresEventStore, batch: NewBatch, *, expected_head: int | None = None) -> int | None:
        if next(numbers) % 3 != 0:
            return await append(self, batch, expected_head=expected_head)
        async with self.locked() as held:
            await held.append(batch)
            await asyncio.sleep(seconds)
        return held.previous_head

    PostgresEventStore.append = late  # type: ignore[method-assign]


async def write(dsn: str, commands: int) -> int:
    """Grow new counters, a few at a time; the number of acknowledged commands."""
    acknowledged = 0
    async with opened(Settings(database_url=dsn)) as runtime:
        for _ in range(commands // 10):
            results = await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(10)])
            acknowledged += sum(isinstance(result, CommandResult) for result in results)
    return acknowledged


if __name__ == "__main__":
    configure_logging("warning")
    delay_commits(float(sys.argv[3]))
    print(asyncio.run(write(sys.argv[1], int(sys.argv[2]))))
