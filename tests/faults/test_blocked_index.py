"""An index becomes read-only, as at a full disk, in the middle of the work: the projector waits and parks nothing."""

from uuid import uuid4

import pytest

from cqrskit import Settings
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.counting import Counts, Grow, opened


@pytest.mark.parametrize("block", ["read_only", "read_only_allow_delete", "write"])
async def test_a_projector_waits_for_a_blocked_index_and_parks_nothing(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str, block: str
) -> None:
    settings = Settings(
        database_url=postgres_dsn, elasticsearch_url=elasticsearch_url, index_prefix=index_prefix, block_size_max=50
    )
    async with opened(settings, projecting=True) as runtime:
        store = runtime.read_store
        assert isinstance(store, ElasticsearchReadStore)
        indices, name, ids = store.client.indices, f"{index_prefix}-counts-1", [uuid4() for _ in range(10)]
        await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(200)])
        await indices.put_settings(index=name, settings={f"index.blocks.{block}": True})
        try:
            await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(200)])
            await eventually(lambda: "takes no writes" in runtime.failures.get("counts", ""), timeout_seconds=30)
        finally:
            await indices.put_settings(index=name, settings={f"index.blocks.{block}": False})

        async def level() -> bool:
            (status,) = await runtime.status(count_documents=False)
            return status.visible_position == status.head and status.failure is None

        await eventually(level, timeout_seconds=30)
        assert await runtime.checkpoints.parked("counts", 1) == []
        await assert_projection_exact(runtime, Counts)
