"""Parked keys: what waits behind an event that fails, and how it is folded in the end, in order and only once."""

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import Application, DocumentParked, Projection, Query, Runtime, Settings
from cqrskit.retrying import Retried, Retrying
from cqrskit.testing import eventually
from cqrskit.testing.leases import leased
from tests.integration import mended_counting
from tests.integration.counting import POISON, Count, Counts, Grow, Label, counting
from tests.integration.labels import DividedLabels, Labels, MendedDividedLabels, MendedLabels, labelling
from tests.integration.labels import Label as Labelled


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(
        database_url=postgres_dsn,
        elasticsearch_url=url,
        index_prefix=index_prefix,
        block_size_max=50,
        lease_seconds=1.0,
        wait_timeout_seconds=30.0,
    )


async def level(runtime: Runtime, projection: type[Projection]) -> None:
    """Wait until the projection has folded the whole log, visibly."""
    head = await runtime.event_store.head()
    await runtime.positions.wait(projection, head, visible=True, timeout_seconds=30)


def retrying(runtime: Runtime, projection: type[Projection]) -> Retrying:
    return Retrying(
        projection,
        1,
        worker="an operator",
        read_store=runtime.read_store,
        checkpoints=runtime.checkpoints,
        settings=runtime.settings,
        make_projector=runtime.projector,
    )


async def retried(runtime: Runtime, projection: type[Projection], *keys: str) -> list[Retried]:
    return await retrying(runtime, projection).retry(keys, timeout_seconds=30)


async def grow(runtime: Runtime, counter_id: UUID, *steps: int) -> int:
    results = [await runtime.executor.execute(Grow(counter_id=counter_id, by=by)) for by in steps]
    return results[-1].position


async def label(runtime: Runtime, texts: Sequence[str], counter_id: UUID | None = None) -> int:
    results = [await runtime.executor.execute(Label(counter_id=counter_id or uuid4(), text=text)) for text in texts]
    return results[-1].position


async def parked_counter(settings: Settings, application: Application = counting) -> tuple[str, int]:
    """A counter that is parked at the position given, with two events behind, in a log that nobody follows."""
    counter_id = uuid4()
    async with application.open(settings, projections=["counts"]) as runtime:
        await grow(runtime, counter_id, 1)
        position = await grow(runtime, counter_id, POISON)
        await grow(runtime, counter_id, 5, 6)
        await level(runtime, Counts)
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert (parked.key, parked.position, parked.events_waiting) == (str(counter_id), position, 2)
    return str(counter_id), position


async def document_of(runtime: Runtime, projection: type[Projection], key: str) -> object:
    stored = await runtime.read_store.get(projection.index(1), key)
    return None if stored is None else stored.document


# --- retry


async def test_a_retry_after_the_fold_is_mended_folds_what_waited_here_where_no_worker_is(settings: Settings) -> None:
    key, _ = await parked_counter(settings)
    async with mended_counting.counting.open(settings, executor=False) as runtime:
        assert await retried(runtime, mended_counting.Counts, key) == [Retried(key, "level")]
        assert await document_of(runtime, Counts, key) == Count(1 + POISON + 5 + 6, 5)
        assert await runtime.checkpoints.parked("counts", 1) == []
        (status,) = await runtime.status()
        assert [each.worker for each in status.partitions] == [None], "the lease was not given back"


async def test_a_retry_is_done_by_the_worker_that_moves_the_partition(settings: Settings) -> None:
    key, _ = await parked_counter(settings)
    async with mended_counting.counting.open(settings, projections=["counts"]) as worker:
        async with counting.open(settings, executor=False) as runtime:  # whose own code would fail again
            assert await retried(runtime, Counts, key) == [Retried(key, "level")]
        assert await document_of(worker, Counts, key) == Count(1 + POISON + 5 + 6, 5)
        position = await grow(worker, UUID(key), 7)
        answer = await worker.reader.get(mended_counting.Counts, key, min_position=position)
        assert (answer.value and answer.value.document, answer.stale) == (Count(19 + POISON, 6), False)


async def test_a_retry_of_what_is_not_mended_fails_again_and_says_where(settings: Settings) -> None:
    key, position = await parked_counter(settings)
    async with counting.open(settings, executor=False) as runtime:
        (found,) = await retried(runtime, Counts, key)
        assert (found.result, found.position, found.events_waiting) == ("failed", position, 2)
        assert "poison" in str(found.error)
        assert await document_of(runtime, Counts, key) == Count(1, 2)


async def test_a_retry_stops_at_the_next_event_that_fails_and_keeps_what_came_before_it(settings: Settings) -> None:
    letters = ["a one", "a poison", "a two", "b other", "a poison too", "a three"]
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await label(runtime, letters)
        await level(runtime, Labels)
        (parked,) = await runtime.checkpoints.parked("labels", 1)
        first = parked.position
        await runtime.checkpoints.skip("labels", 1, "a", first)
        (found,) = await retried(runtime, Labels, "a")
        assert (found.result, found.position, found.events_waiting) == ("failed", first + 6, 1)
        assert await document_of(runtime, Labels, "a") == Labelled(["a one", "a two"])
        assert await document_of(runtime, Labels, "b") == Labelled(["b other"])


async def test_the_order_within_a_key_is_kept_over_many_blocks_while_more_events_come(settings: Settings) -> None:
    before = [f"{'ab'[number % 2]} {number}" for number in range(60)]
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await label(runtime, ["a poison", "b poison", *before])
        await level(runtime, Labels)
    async with labelling(MendedLabels).open(settings, projections=["labels"]) as runtime:
        later = [f"{'ab'[number % 2]} {number}" for number in range(60, 90)]
        outcomes, _ = await asyncio.gather(retried(runtime, MendedLabels, "a", "b"), label(runtime, later))
        assert outcomes == [Retried("a", "level"), Retried("b", "level")]
        await level(runtime, MendedLabels)
        for letter in "ab":
            expected = [f"{letter} poison", *(text for text in [*before, *later] if text[0] == letter)]
            assert await document_of(runtime, Labels, letter) == Labelled(expected)


async def test_a_retry_reads_only_the_streams_of_the_keys_where_they_are_the_keys(settings: Settings) -> None:
    key, _ = await parked_counter(settings)
    async with mended_counting.counting.open(settings, executor=False) as runtime:
        with psycopg.connect(str(settings.database_url)) as connection:
            # An event of another stream in a version that only newer code knows stops whoever reads it.
            connection.execute(
                "INSERT INTO events VALUES (%s, gen_random_uuid(), 1, 'Counter.Grown@9', '{}', '{}', now())", [10**6]
            )
            connection.execute("UPDATE log_head SET position = %s", [10**6])
            connection.execute("UPDATE partitions SET position = %s", [10**6])
        assert await retried(runtime, mended_counting.Counts, key) == [Retried(key, "level")]


async def test_a_request_that_nobody_has_seen_through_is_done_by_the_next_worker(settings: Settings) -> None:
    key, _ = await parked_counter(settings)
    async with mended_counting.counting.open(settings, executor=False) as runtime:
        assert await runtime.checkpoints.request_retry("counts", 1, [key]) == 1
        lease = await leased(runtime, mended_counting.Counts, seconds=600)
        projector = runtime.projector(mended_counting.Counts(), lease)
        await projector.open()
        with psycopg.connect(str(settings.database_url)) as connection:
            # It writes the document and dies before it can say so.
            connection.execute("LOCK TABLE parked_keys IN EXCLUSIVE MODE")
            dying = asyncio.create_task(projector.retry_parked())

            async def written() -> bool:
                return await document_of(runtime, Counts, key) == Count(12 + POISON, 5)

            await eventually(written)
            dying.cancel()
            await asyncio.wait([dying])
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert parked.retry_requested
        await runtime.checkpoints.release([lease])
    async with mended_counting.counting.open(settings, projections=["counts"]) as runtime:

        async def unparked() -> bool:
            return not await runtime.checkpoints.parked("counts", 1)

        await eventually(unparked)
        assert await document_of(runtime, Counts, key) == Count(12 + POISON, 5)


@pytest.mark.parametrize("fold", [Counts, mended_counting.Counts], ids=["fails again", "succeeds"])
async def test_only_the_holder_of_the_newest_lease_says_what_became_of_a_retry(
    settings: Settings, fold: type[Projection]
) -> None:
    key, position = await parked_counter(settings)
    async with counting.open(settings, executor=False) as runtime:
        old = await leased(runtime, Counts, seconds=0.001)

        async def taken_over() -> bool:
            return await runtime.checkpoints.claim("another", "counts", 1, 0, seconds=600) is not None

        await eventually(taken_over)
        await runtime.checkpoints.request_retry("counts", 1, [key])
        zombie = runtime.projector(fold(), old)
        await zombie.open()
        await zombie.retry_parked()
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert (parked.retry_requested, parked.position) == (True, position)


async def test_a_retry_that_nobody_can_do_in_time_still_waits_and_is_not_forgotten(settings: Settings) -> None:
    key, position = await parked_counter(settings)
    async with counting.open(settings, executor=False) as runtime:
        await leased(runtime, Counts)
        (found,) = await retrying(runtime, Counts).retry([key], timeout_seconds=0.2)
        assert (found.result, found.position) == ("waiting", position)
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert parked.retry_requested


# --- skipped events


async def test_a_skipped_event_is_passed_over_and_what_waited_behind_it_is_folded(settings: Settings) -> None:
    key, position = await parked_counter(settings)
    async with counting.open(settings, projections=["counts"]) as runtime:
        await runtime.checkpoints.skip("counts", 1, key, position)
        assert await retried(runtime, Counts, key) == [Retried(key, "level")]
        assert await document_of(runtime, Counts, key) == Count(12, 4)
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE partitions SET position = 0, visible_position = 0")
    async with counting.open(settings, executor=False) as runtime:
        await runtime.read_store.drop(Counts.index(1))
    async with counting.open(settings, projections=["counts"]) as runtime:  # it is not parked again
        await level(runtime, Counts)
        assert await document_of(runtime, Counts, key) == Count(12, 4)
        assert await runtime.checkpoints.parked("counts", 1) == []


async def test_an_event_is_skipped_for_the_one_document_only(settings: Settings) -> None:
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        position = await label(runtime, ["a good one"])
        await level(runtime, Labels)
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("INSERT INTO skipped_events VALUES ('labels', 'b', %s, '')", (position,))
        connection.execute("UPDATE partitions SET position = 0, visible_position = 0")
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await runtime.read_store.drop(Labels.index(1))
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await level(runtime, Labels)
        assert await document_of(runtime, Labels, "a") == Labelled(["a good one"])


# --- documents that the store refuses


async def test_a_document_that_the_store_refuses_is_parked_at_the_event_that_made_it_so(settings: Settings) -> None:
    bad = "a \x00"
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await runtime.executor.execute_many(
            [Label(counter_id=uuid4(), text=text) for text in ("a one", "a two", "a three", bad, "a four", "b one")]
        )
        await level(runtime, Labels)
        (parked,) = await runtime.checkpoints.parked("labels", 1)
        found = await runtime.event_store.read(parked.position - 1, 1)
        assert (parked.key, b"\\u0000" in found.events[0].data, parked.events_waiting) == ("a", True, 1)
        assert "the read store refused it" in parked.error
        assert await document_of(runtime, Labels, "a") == Labelled(["a one", "a two", "a three"])
        assert await document_of(runtime, Labels, "b") == Labelled(["b one"])
        await label(runtime, ["a five"])
        await level(runtime, Labels)
        (again,) = await retried(runtime, Labels, "a")
        assert (again.result, again.position, again.events_waiting) == ("failed", parked.position, 2)
        await runtime.checkpoints.skip("labels", 1, "a", parked.position)
        assert await retried(runtime, Labels, "a") == [Retried("a", "level")]
        assert await document_of(runtime, Labels, "a") == Labelled(["a one", "a two", "a three", "a four", "a five"])


# --- limits, restarts, partitions, readers


async def test_more_parked_keys_than_allowed_stop_the_projection_until_it_is_resumed(
    settings: Settings,
) -> None:
    limited = Settings(
        database_url=settings.database_url,
        elasticsearch_url=settings.elasticsearch_url,
        index_prefix=settings.index_prefix,
        parked_keys_max=2,
    )
    async with counting.open(limited, projections=["counts"]) as runtime:
        for _ in range(2):
            await grow(runtime, uuid4(), POISON)
        await level(runtime, Counts)
        assert runtime.stopped_projections == []
        await grow(runtime, uuid4(), POISON)
        await eventually(lambda: runtime.stopped_projections == ["counts"], timeout_seconds=30)
        (status,) = await runtime.status()
        assert "CQRSKIT_PARKED_KEYS_MAX" in str(status.failure)
        assert any("CQRSKIT_PARKED_KEYS_MAX" in problem for problem in status.problems)
        one, *_ = await runtime.checkpoints.parked("counts", 1)
        assert await runtime.checkpoints.skip("counts", 1, one.key, one.position)
        assert await retried(runtime, Counts, one.key) == [Retried(one.key, "level")]
        await runtime.checkpoints.pause("counts", paused=False)
        await eventually(lambda: runtime.stopped_projections == [], timeout_seconds=30)
        await grow(runtime, counter := uuid4(), 4)
        await level(runtime, Counts)
        assert await document_of(runtime, Counts, str(counter)) == Count(4, 2)


async def test_parked_keys_survive_a_restart_and_another_division_and_are_retried_by_several_workers(
    settings: Settings,
) -> None:
    letters = "abcdefgh"
    async with labelling(Labels).open(settings, projections=["labels"]) as runtime:
        await label(runtime, [f"{letter} {text}" for text in ("one", "poison", "two") for letter in letters])
        await level(runtime, Labels)
    async with labelling(DividedLabels).open(settings, projections=["labels"]) as runtime:
        await label(runtime, [f"{letter} three" for letter in letters])
        await level(runtime, DividedLabels)
        assert {key.key for key in await runtime.checkpoints.parked("labels", 1)} == set(letters)
        assert await document_of(runtime, Labels, "a") == Labelled(["a one"])
    mended = labelling(MendedDividedLabels)
    async with (
        mended.open(settings, projections=["labels"]) as one,
        mended.open(settings, projections=["labels"]) as two,
    ):

        async def shared() -> bool:
            (status,) = await one.status()
            return len({each.worker for each in status.partitions} - {None}) == 2

        await eventually(shared, timeout_seconds=30)
        outcomes = await retried(two, MendedDividedLabels, *letters)
        assert outcomes == [Retried(letter, "level") for letter in letters]
        for letter in letters:
            expected = Labelled([f"{letter} {text}" for text in ("one", "poison", "two", "three")])
            assert await document_of(one, Labels, letter) == expected


async def test_a_reader_is_never_given_a_parked_document_for_a_position_that_it_lacks(settings: Settings) -> None:
    key, position = await parked_counter(settings)
    good = uuid4()
    async with counting.open(settings, projections=["counts"]) as runtime:
        last = await grow(runtime, good, 1)
        for asked in (position, last):
            with pytest.raises(DocumentParked) as caught:
                await runtime.reader.get(Counts, key, min_position=asked)
            assert caught.value.position == position
        earlier = await runtime.reader.get(Counts, key, min_position=position - 1)
        without = await runtime.reader.get(Counts, key)
        for answer in (earlier, without):
            assert answer.stale
            assert answer.value is not None
            assert (answer.value.document, answer.value.stale) == (Count(1, 2), True)
        other = await runtime.reader.get(Counts, str(good), min_position=last)
        assert (other.stale, other.value and other.value.stale) == (False, False)
        page = await runtime.reader.search(Counts, Query(), min_position=last)
        assert page.stale
        assert {row.id: row.stale for row in page.value.items} == {key: True, str(good): False}


async def test_a_reader_in_another_process_knows_of_parked_documents_as_well(settings: Settings) -> None:
    key, position = await parked_counter(settings)
    async with counting.open(settings, executor=False) as runtime:
        with pytest.raises(DocumentParked):
            await runtime.reader.get(Counts, key, min_position=position)
        assert (await runtime.reader.get(Counts, key)).stale
