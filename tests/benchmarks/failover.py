"""How long documents stand still when a worker is killed that moves half of the partitions."""

import time
from collections import Counter
from functools import partial
from uuid import uuid4

from cqrskit import Runtime, Settings
from cqrskit.testing import WorkerProcess, eventually
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most
from tests.integration.changed_counting import quartered
from tests.integration.counting import Grow
from tests.integration.running_processes import ROOT, environment

__all__ = ["measure"]

ALLOWED_SECONDS = 5.0
COUNTERS = 200
WORKER = ("cqrskit", "project", "--app", "tests.integration.changed_counting:quartered")


async def measure(bench: Bench) -> list[Row]:
    """Seconds from kill -9 of one of two workers until every partition sees what was committed after it."""
    bench.say("killing workers")
    seconds = [await _killed(bench) for _ in range(bench.rounds)]
    worst = max(seconds)
    return [
        Row(
            "kill -9 of one of two workers until searches see all partitions go on, worst",
            "s",
            worst,
            "what is allowed",
            ALLOWED_SECONDS,
            at_most(1.0),
            f"{len(seconds)} kills",
        )
    ]


async def _killed(bench: Bench) -> float:
    prefix = f"b{uuid4().hex[:8]}"
    with bench.database() as url:
        settings = Settings(database_url=url, index_prefix=prefix)
        variables = environment(
            {"CQRSKIT_DATABASE_URL": url, "CQRSKIT_INDEX_PREFIX": prefix, "CQRSKIT_LOG_LEVEL": "error"}
        )
        ids = [uuid4() for _ in range(COUNTERS)]
        async with quartered.open(settings) as runtime:
            async with (
                WorkerProcess(*WORKER, variables=variables, folder=ROOT) as one,
                WorkerProcess(*WORKER, variables=variables, folder=ROOT) as other,
            ):
                await eventually(lambda: _shared(runtime), timeout_seconds=60)
                one.kill()
                killed_at = time.monotonic()
                await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
                head = await runtime.event_store.head()
                await eventually(partial(_sees, runtime, head), timeout_seconds=60)
                seconds = time.monotonic() - killed_at
                await one.ended()
                await other.terminate()
            return seconds


async def _shared(runtime: Runtime) -> bool:
    generations = await runtime.checkpoints.generations()
    held = Counter(each.worker for generation in generations for each in generation.partitions if each.leased_seconds)
    return sorted(held.values()) == [2, 2] and None not in held


async def _sees(runtime: Runtime, position: int) -> bool:
    (generation,) = await runtime.checkpoints.generations()
    return generation.visible_position >= position
