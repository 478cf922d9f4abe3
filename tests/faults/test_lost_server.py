"""Elasticsearch goes away in the middle of the work and comes back: nothing is lost."""

from uuid import uuid4

from cqrskit import Settings
from cqrskit.testing import CuttableWire, assert_projection_exact, eventually
from tests.integration.counting import Counts, Grow, opened


async def test_a_projector_waits_for_elasticsearch_and_goes_on(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    async with CuttableWire(elasticsearch_url) as wire:
        await _cut_and_mend_twice(wire, postgres_dsn, index_prefix)


async def _cut_and_mend_twice(wire: CuttableWire, postgres_dsn: str, index_prefix: str) -> None:
    settings = Settings(
        database_url=postgres_dsn, elasticsearch_url=wire.url, index_prefix=index_prefix, block_size_max=50
    )
    async with opened(settings, projecting=True) as runtime:
        ids = [uuid4() for _ in range(10)]
        for _ in range(2):
            await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(500)])
            await wire.cut()
            results = await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(500)])
            assert len(results) == 500
            await eventually(lambda: runtime.failures, timeout_seconds=30)
            assert "Elasticsearch" in runtime.failures["counts"]
            await wire.mend()

            async def level() -> bool:
                (status,) = await runtime.status(count_documents=False)
                return status.visible_position == status.head and status.failure is None

            await eventually(level, timeout_seconds=30)
        await assert_projection_exact(runtime, Counts)
