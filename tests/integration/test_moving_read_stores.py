"""Read models move from Postgres to Elasticsearch while the programs that read them go on."""

from uuid import uuid4

import msgspec

from cqrskit import Runtime, Settings
from cqrskit.checkpoints import GenerationState
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.counting import Count, Counts, Grow, opened
from tests.integration.running_processes import cqrskit

COUNTING = "tests.integration.counting:counting"


async def _is_level(runtime: Runtime) -> bool:
    head = await runtime.event_store.head()
    (status,) = await runtime.status(count_documents=False)
    return status.visible_position >= head


async def test_a_rebuild_fills_the_new_read_store_while_programs_go_on_with_the_old_one(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    in_postgres = Settings(database_url=postgres_dsn, index_prefix=index_prefix)
    in_elasticsearch = msgspec.structs.replace(in_postgres, elasticsearch_url=elasticsearch_url)
    variables = {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_INDEX_PREFIX": index_prefix,
        "CQRSKIT_ELASTICSEARCH_URL": elasticsearch_url,
    }
    ids = [uuid4() for _ in range(30)]
    async with opened(in_postgres, projecting=True) as old:
        await old.executor.execute_many([Grow(counter_id=each, by=2) for each in ids])
        await eventually(lambda: _is_level(old), timeout_seconds=30)
        arguments = ("--app", COUNTING, "--verify", "full", "--json")
        rebuilt = await cqrskit("rebuild", "counts", *arguments, variables=variables)
        assert rebuilt.code == 0, rebuilt.err
        result = msgspec.json.decode(rebuilt.out)
        assert (result["state"], result["generation"], result["differences"]) == ("live", 2, 0)
        states = {each.number: each.state for each in await old.checkpoints.generations()}
        assert states == {1: GenerationState.LIVE}, "a program with the old setting sees its own store only"
        position = (await old.executor.execute(Grow(counter_id=ids[0], by=5))).position
        answer = await old.reader.get(Counts, str(ids[0]), min_position=position)
        assert answer.value is not None
        assert answer.value.document == Count(7, 3)
    async with opened(in_elasticsearch, projecting=True) as new:
        answer = await new.reader.get(Counts, str(ids[0]), min_position=position)
        assert answer.value is not None
        assert answer.value.document == Count(7, 3)
        assert {each.number for each in await new.checkpoints.generations()} == {2}, "what was built is read"
        await eventually(lambda: _is_level(new), timeout_seconds=30)
        await assert_projection_exact(new, Counts)
    async with opened(in_postgres, projecting=True) as back:
        answer = await back.reader.get(Counts, str(ids[0]), min_position=position)
        assert answer.value is not None
        assert answer.value.document == Count(7, 3)
