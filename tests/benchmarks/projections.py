"""The read path: folding a log into documents on both stores, beside writing such documents without folding."""

from uuid import uuid4

import msgspec

from cqrskit import Settings
from cqrskit.read_store import Change
from cqrskit.testing.leases import leased
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, rate
from tests.integration.counting import Count, Counts, Grow, opened

__all__ = ["measure"]


async def measure(bench: Bench) -> list[Row]:
    """Events folded in each second: few documents that change often, and one document for every two events."""
    rows = []
    for store, elasticsearch_url in (("Postgres", None), ("Elasticsearch", await bench.elasticsearch_url())):
        bench.say(f"projecting into {store}")
        for name, streams, count in (("1,000 documents", 1_000, 60_000), ("two events to a document", 30_000, 30_000)):
            documents = bench.amount(streams, at_least=1_000)  # of fewer, only what begins a write would be measured
            prefix = f"b{uuid4().hex[:8]}"
            with bench.database() as url:
                settings = Settings(database_url=url, elasticsearch_url=elasticsearch_url, index_prefix=prefix)
                folded, bulk = await _fold(settings, documents, max(bench.amount(count), 2 * documents))
            beside = f"bulk writes of such documents to {store}, no folding"
            rows.append(Row(f"projector on {store}, {name}", "/s", folded, beside, bulk))
    return rows


async def _fold(settings: Settings, streams: int, count: int) -> tuple[float, float]:
    ids = [uuid4() for _ in range(streams)]
    async with opened(settings) as runtime:
        for begin in range(0, count, 5_000):
            commands = [Grow(counter_id=ids[step % streams]) for step in range(begin, min(begin + 5_000, count))]
            await runtime.executor.execute_many(commands)
        head = await runtime.event_store.head()
        projector = runtime.projector(Counts(), await leased(runtime, Counts))
        await projector.open()

        async def follow() -> None:
            while not await projector.step():
                continue

        folded = await rate(head, follow)
        index = msgspec.structs.replace(Counts.index(1), name="plain")
        await runtime.read_store.prepare(index)
        changes = [Change(str(each), 1, Count(1, 2)) for each in ids]

        async def write() -> None:
            for begin in range(0, len(changes), 2_500):
                await runtime.read_store.write(index, changes[begin : begin + 2_500])

        bulk = await rate(len(changes), write)
        for each in (index, Counts.index(1)):
            await runtime.read_store.drop(each)
    return folded, bulk
