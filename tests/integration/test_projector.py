"""The read path on both read stores: folds, checkpoints, redelivery, poison, and readers that wait."""

import asyncio
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import NotYetVisible, Query, Runtime, Settings, Summary, Term
from cqrskit.consistency import Answer
from cqrskit.errors import IndexMissing, InvalidQuery
from cqrskit.read_store import Page
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.counting import POISON, Count, Counts, Grow, opened


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix, block_size_max=50)


async def level(runtime: Runtime) -> None:
    """Wait until the projection has folded the whole log, visibly."""
    head = await runtime.event_store.head()

    async def reached() -> bool:
        (status,) = await runtime.status(count_documents=False)
        return status.visible_position >= head

    await eventually(reached, timeout_seconds=30)


async def grown(runtime: Runtime, counter_id: UUID, *steps: int) -> int:
    results = [await runtime.executor.execute(Grow(counter_id=counter_id, by=by)) for by in steps]
    return results[-1].position


async def versions(runtime: Runtime) -> dict[str, tuple[int, object]]:
    index = await runtime.reader.index(Counts)
    return {each.id: (each.version, each.document) async for each in runtime.read_store.scan(index)}


async def test_documents_are_the_fold_of_the_log_and_carry_the_last_position_as_version(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings, projecting=True) as runtime:
        position = await grown(runtime, counter_id, 1, 2, 3)
        await level(runtime)
        assert await versions(runtime) == {str(counter_id): (position, Count(6, 4))}
        await assert_projection_exact(runtime, Counts)


async def test_events_that_come_again_change_nothing(settings: Settings) -> None:
    ids = [uuid4() for _ in range(5)]
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=ids[number % 5], by=number) for number in range(200)])
        await level(runtime)
        before = await versions(runtime)
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE partitions SET position = 0, visible_position = 0")
    async with opened(settings, projecting=True) as runtime:
        await level(runtime)
        assert await versions(runtime) == before
        await assert_projection_exact(runtime, Counts)


async def test_two_projectors_at_once_do_no_harm(settings: Settings) -> None:
    ids = [uuid4() for _ in range(7)]
    async with opened(settings, projecting=True) as one, opened(settings, projecting=True) as two:
        for round_number in range(10):
            commands = [Grow(counter_id=ids[number % 7], by=round_number) for number in range(60)]
            await asyncio.gather(one.executor.execute_many(commands), two.executor.execute_many(commands))
        await level(one)
        await level(two)
        await assert_projection_exact(one, Counts)


async def test_a_poison_event_stops_its_key_and_nothing_else(settings: Settings) -> None:
    bad, good = uuid4(), uuid4()
    async with opened(settings, projecting=True) as runtime:
        await grown(runtime, bad, 1)
        poisoned_at = await grown(runtime, bad, POISON)
        await grown(runtime, good, 1, 2)
        await level(runtime)
        await grown(runtime, bad, 5, 6)
        await grown(runtime, good, 3)
        await level(runtime)
        assert {key: document for key, (_, document) in (await versions(runtime)).items()} == {
            str(bad): Count(1, 2),
            str(good): Count(6, 4),
        }
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert (parked.key, parked.position) == (str(bad), poisoned_at)
        assert "poison" in parked.error
        (status,) = await runtime.status()
        assert (status.parked_keys, status.failure) == (1, None)
    with psycopg.connect(str(settings.database_url)) as connection:
        assert connection.execute("SELECT events_waiting FROM parked_keys").fetchall() == [(2,)]


async def test_a_removed_index_is_built_again_from_the_beginning_with_the_same_documents(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=uuid4(), by=number) for number in range(120)])
        await level(runtime)
        before = await versions(runtime)
    async with opened(settings) as runtime:
        await runtime.read_store.drop(Counts.index(1))
        for asked in (
            runtime.reader.get(Counts, next(iter(before))),
            runtime.reader.search(Counts, Query()),
            runtime.reader.summarize(Counts, Summary()),
        ):
            with pytest.raises(IndexMissing, match="cqrskit project"):
                await asked
        (status,) = await runtime.status()
        assert status.documents is None
        assert "is not there" in str(status.failure)
    async with opened(settings, projecting=True) as runtime:
        await level(runtime)
        assert await versions(runtime) == before


async def test_a_reader_that_is_there_before_the_projector_finds_nothing_yet(settings: Settings) -> None:
    async with opened(settings) as runtime:
        assert await runtime.reader.get(Counts, "x") == Answer(None, 0)
        assert await runtime.reader.search(Counts, Query()) == Answer(Page([]), 0)
        assert await runtime.reader.search(Counts, Query(stable=True)) == Answer(Page([]), 0)
        (group,) = (await runtime.reader.summarize(Counts, Summary(of=["value"]))).value.items
        assert (group.count, group.figures["value"].sum) == (0, 0)
        with pytest.raises(InvalidQuery):
            await runtime.reader.search(Counts, Query(where=Term("nothing", 1)))


async def test_a_reader_waits_for_its_position_on_documents_and_on_searches(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        for number in range(1, 11):
            counter_id = uuid4()
            position = await grown(runtime, counter_id, number)
            answer = await runtime.reader.get(Counts, str(counter_id), min_position=position)
            assert answer.value is not None
            assert answer.value.document == Count(number, 2)
            page = await runtime.reader.search(Counts, Query(where=Term("value", number)), min_position=position)
            assert [row.id for row in page.value.items] == [str(counter_id)]
            assert page.as_of_position >= position


async def test_a_reader_is_refused_when_its_position_does_not_come_in_time(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        await grown(runtime, uuid4(), 1)
        await level(runtime)
    impatient = Settings(
        database_url=settings.database_url,
        elasticsearch_url=settings.elasticsearch_url,
        index_prefix=settings.index_prefix,
        wait_timeout_seconds=0.2,
    )
    async with opened(impatient) as runtime:
        position = await grown(runtime, uuid4(), 1)
        for asked in (
            runtime.reader.get(Counts, "x", min_position=position),
            runtime.reader.search(Counts, Query(), min_position=position),
        ):
            with pytest.raises(NotYetVisible) as caught:
                await asked
            assert (caught.value.wanted_position, caught.value.position) == (position, 2)


async def test_changing_the_read_store_builds_the_documents_there(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    in_postgres = Settings(database_url=postgres_dsn, index_prefix=index_prefix)
    in_elasticsearch = Settings(
        database_url=postgres_dsn, index_prefix=index_prefix, elasticsearch_url=elasticsearch_url
    )
    async with opened(in_postgres, projecting=True) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=uuid4(), by=number) for number in range(30)])
        await level(runtime)
        before = await versions(runtime)
    async with opened(in_elasticsearch, projecting=True) as runtime:
        await level(runtime)
        assert await versions(runtime) == before


async def test_an_index_that_is_removed_under_a_running_projector_stops_it_and_is_not_made_without_its_mapping(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    settings = Settings(database_url=postgres_dsn, elasticsearch_url=elasticsearch_url, index_prefix=index_prefix)
    async with opened(settings, projecting=True) as runtime:
        await grown(runtime, uuid4(), 1)
        await level(runtime)
        await runtime.read_store.drop(Counts.index(1))
        await grown(runtime, uuid4(), 1)
        await eventually(lambda: runtime.stopped_projections == ["counts"])
        assert "is gone" in runtime.failures["counts"]
        with pytest.raises(IndexMissing):
            await versions(runtime)
    async with opened(settings, projecting=True) as runtime:
        await level(runtime)
        assert len(await versions(runtime)) == 2


async def test_a_projection_whose_index_was_removed_builds_it_anew_when_it_is_resumed(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    settings = Settings(database_url=postgres_dsn, elasticsearch_url=elasticsearch_url, index_prefix=index_prefix)
    async with opened(settings, projecting=True) as runtime:
        await grown(runtime, uuid4(), 1)
        await level(runtime)
        await runtime.read_store.drop(Counts.index(1))
        await grown(runtime, uuid4(), 1)
        await eventually(lambda: runtime.stopped_projections == ["counts"])
        await runtime.checkpoints.pause("counts", paused=False)
        await eventually(lambda: runtime.stopped_projections == [], timeout_seconds=30)
        await level(runtime)
        assert len(await versions(runtime)) == 2


async def test_a_failure_that_is_over_is_forgotten_by_a_worker_that_moves_nothing_too(settings: Settings) -> None:
    async with opened(settings, projecting=True) as one, opened(settings, projecting=True) as two:
        assert one.worker is not None
        assert two.worker is not None
        first, idle = sorted((one.worker, two.worker), key=lambda each: each.name)
        await eventually(lambda: first.projectors("counts") and not idle.projectors("counts"))
        idle.failures["counts"] = "its documents did not fit a moment ago"
        await eventually(lambda: not idle.failures)
        assert idle.projectors("counts") == []
