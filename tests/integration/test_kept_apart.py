"""Generations are never mixed up: not after a crash, by other code, nor by two commands at once. On Postgres."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg
import pytest

from cqrskit import Application, ConfigurationError, Projection, RecordedEvent, Runtime, Settings, on
from cqrskit.checkpoints import Generation, GenerationState, ParkedKey
from cqrskit.cli.prune import _prune
from cqrskit.cli.verify import verified
from cqrskit.errors import ProjectionStopped, ReadStoreError
from cqrskit.fingerprint import fingerprint_of
from cqrskit.read_store import Change, IndexSpec
from cqrskit.rebuild import Rebuild, Tail, build_slice
from cqrskit.retrying import Retried, Retrying
from cqrskit.testing.leases import leased
from tests.integration import mended_counting
from tests.integration.changed_counting import DoubledCounts, NamedCounts, named
from tests.integration.counting import POISON, Count, Counter, Counts, Grow, Label, counting, label, opened
from tests.integration.labels import Label as Labelled
from tests.integration.operating import COUNTING, MENDED, Operator, own_terminal, read_terminal
from tests.integration.running_processes import ROOT, environment


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, lease_seconds=1.0, wait_timeout_seconds=30.0)


@pytest.fixture
def operator(postgres_dsn: str) -> Operator:
    return Operator(postgres_dsn)


async def grown(runtime: Runtime, *steps: int, projection: type[Projection] = Counts) -> str:
    """A counter that a worker here has folded."""
    counter_id = uuid4()
    results = [await runtime.executor.execute(Grow(counter_id=counter_id, by=by)) for by in steps]
    await runtime.positions.wait(projection, results[-1].position, visible=True, timeout_seconds=30)
    return str(counter_id)


async def rebuilt(runtime: Runtime, projection: type[Projection], *, swap: bool = True) -> Generation:
    work = Rebuild(runtime, projection)
    begun = await work.begin(1)
    await build_slice(runtime, projection, begun.number, 0)
    ready = await work.finish_building()
    async with Tail(runtime, projection, ready).running() as tail:
        await tail.level()
        if swap:
            await work.swap(ready)
    return ready


async def generation(runtime: Runtime, number: int) -> Generation:
    return next(each for each in await runtime.checkpoints.generations() if each.number == number)


async def document(runtime: Runtime, projection: type[Projection], number: int, key: str) -> object:
    stored = await runtime.read_store.get(projection.index(number), key)
    return None if stored is None else stored.document


def shown(settings: Settings) -> str | None:
    """The table that the projection's own name shows."""
    with psycopg.connect(str(settings.database_url)) as connection:
        row = connection.execute(
            "SELECT table_name FROM information_schema.view_table_usage WHERE view_name = 'cqrskit_counts'"
        ).fetchone()
    return None if row is None else row[0]


# --- numbers and indices


async def test_what_a_rebuild_could_not_delete_is_never_taken_for_its_successors_documents(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        key = await grown(runtime, 1, 2, 3)
        begun = await Rebuild(runtime, DoubledCounts).begin(1)
        await build_slice(runtime, DoubledCounts, begun.number, 0)
        assert await runtime.checkpoints.delete_generation("counts", begun.number), "and then the process has died"
        ready = await rebuilt(runtime, Counts)
        assert ready.number == 3
        assert await document(runtime, Counts, ready.number, key) == Count(6, 4)


async def test_an_index_that_is_there_before_its_generation_is_begun_is_dropped(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        key = await grown(runtime, 1, 2, 3)
        await runtime.read_store.prepare(Counts.index(2))
        await runtime.read_store.write(Counts.index(2), [Change(key, 1_000, Count(99, 99))])
        ready = await rebuilt(runtime, Counts)
        assert ready.number == 2
        assert await document(runtime, Counts, 2, key) == Count(6, 4)


async def test_a_reset_gets_a_number_that_was_never_given(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        checkpoints, code = runtime.checkpoints, fingerprint_of(Counts)
        assert await checkpoints.create_generation("counts", GenerationState.BUILDING, code, 1) == 2
        assert await checkpoints.delete_generation("counts", 2)
        assert await checkpoints.reset("counts", code, 1) == 3


async def test_a_slice_stops_when_its_index_was_replaced(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime, counting.open(settings, executor=False) as other:
        key = await grown(runtime, 1)
        begun = await Rebuild(runtime, Counts).begin(1)
        await runtime.read_store.drop(Counts.index(begun.number))
        await runtime.read_store.prepare(Counts.index(begun.number))
        with pytest.raises(ProjectionStopped, match="cqrskit rebuild counts"):
            await build_slice(other, Counts, begun.number, 0)
        assert await document(runtime, Counts, begun.number, key) is None
        assert await rebuilt(other, Counts) is not None
        assert await document(runtime, Counts, begun.number, key) == Count(1, 2)


# --- swaps


async def test_a_generation_that_is_gone_or_being_built_is_not_swapped_in(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        begun = await Rebuild(runtime, Counts).begin(1)
        with pytest.raises(ProjectionStopped, match="still being built"):
            await runtime.checkpoints.swap("counts", begun.number)
        await runtime.checkpoints.delete_generation("counts", begun.number)
        with pytest.raises(ProjectionStopped, match="is gone"):
            await runtime.checkpoints.swap("counts", begun.number)
        assert await runtime.checkpoints.swap("counts", 1), "it is live already"


@pytest.mark.parametrize(
    ("live", "coming", "swapped"),
    [
        ([(5, 5)], [(5, 5)], True),
        ([(5, 3)], [(4, 4)], False),
        ([(5, 3)], [(5, 2)], False),
        ([(5, 3), (9, 3)], [(5, 3), (8, 3)], False),
        ([(5, 3), (9, 3)], [(5, 3), (9, 3)], True),
        ([(5, 3), (9, 3)], [(8, 3)], False),
        ([(5, 3), (9, 3)], [(9, 3)], True),
    ],
)
async def test_no_reader_is_taken_back_by_a_swap_neither_a_search_nor_one_by_id(
    settings: Settings, live: list[tuple[int, int]], coming: list[tuple[int, int]], swapped: bool
) -> None:
    async with counting.open(settings, executor=False) as runtime:
        code, checkpoints = fingerprint_of(Counts), runtime.checkpoints
        await checkpoints.create_generation("counts", GenerationState.LIVE, code, len(live))
        await checkpoints.create_generation("counts", GenerationState.BUILDING, code, len(coming))
        await checkpoints.set_ready("counts", 2, 1.0)
        for number, places in ((1, live), (2, coming)):
            for partition, (position, visible) in enumerate(places):
                lease = await checkpoints.claim("somebody", "counts", number, partition, seconds=60)
                assert lease is not None
                await checkpoints.save(lease, position, visible)
        assert await checkpoints.swap("counts", 2) is swapped


async def test_a_swap_that_is_overtaken_by_a_roll_back_leaves_the_right_documents_shown(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(settings, projecting=True) as runtime, counting.open(settings, executor=False) as other:
        await grown(runtime, 1)
        make_live = runtime.read_store.make_live

        async def overtaken(index: IndexSpec) -> None:
            monkeypatch.undo()
            work = Rebuild(other, Counts)
            previous = await work.previous()
            async with Tail(other, Counts, previous).running() as tail:
                await tail.level()
                await work.swap(previous, rolled_back=True)
            await make_live(index)

        monkeypatch.setattr(runtime.read_store, "make_live", overtaken)
        await rebuilt(runtime, Counts)
        assert (await generation(runtime, 1)).state is GenerationState.LIVE
        assert shown(settings) == "cqrskit_counts_1"


async def test_a_reset_is_shown_at_once(operator: Operator) -> None:
    await operator.project()
    assert shown(operator.settings) == "cqrskit_counts_1"
    assert (await operator.types("reset", "counts", "--yes")).code == 0
    assert shown(operator.settings) == "cqrskit_counts_2"


# --- leases


async def test_who_has_lost_the_lease_counts_nothing_that_waits(settings: Settings) -> None:
    async with counting.open(settings, executor=False) as runtime:
        old = await leased(runtime, Counts)
        await runtime.checkpoints.park(old, [ParkedKey("a", 1, "broken", "a")])
        await runtime.checkpoints.count_waiting(old, {"a": 2})
        await runtime.checkpoints.release([old])
        new = await leased(runtime, Counts)
        await runtime.checkpoints.count_waiting(old, {"a": 40})
        await runtime.checkpoints.count_waiting(new, {"a": 1})
        (parked,) = await runtime.checkpoints.parked("counts", 1)
        assert parked.events_waiting == 3


# --- other code


async def test_documents_with_other_fields_are_neither_verified_nor_adopted(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        await grown(runtime, 1)
    async with named.open(settings, executor=False) as runtime:
        before = await generation(runtime, 1)
        with pytest.raises(ConfigurationError, match="other fields"):
            await verified(runtime, NamedCounts, before, share=1.0, quiet=True)
        assert not await runtime.checkpoints.adopt("counts", 1, fingerprint_of(NamedCounts))
        assert (await generation(runtime, 1)).code == before.code == fingerprint_of(Counts)
        assert await runtime.checkpoints.adopt("counts", 1, fingerprint_of(DoubledCounts))
        assert (await generation(runtime, 1)).code == fingerprint_of(DoubledCounts)


def retrying(runtime: Runtime, projection: type[Projection], number: int = 1) -> Retrying:
    return Retrying(
        projection,
        number,
        worker="an operator",
        read_store=runtime.read_store,
        checkpoints=runtime.checkpoints,
        settings=runtime.settings,
        make_projector=runtime.projector,
    )


async def test_a_retry_without_a_worker_notes_that_other_code_has_folded(operator: Operator) -> None:
    key, _ = await operator.park()
    async with mended_counting.counting.open(operator.settings, executor=False) as runtime:
        assert not (await generation(runtime, 1)).mixed
        outcomes = await retrying(runtime, mended_counting.Counts).retry([key], timeout_seconds=30)
        assert outcomes == [Retried(key, "level")]
        assert (await generation(runtime, 1)).mixed


async def test_a_retry_without_a_worker_refuses_documents_with_other_fields_and_gives_the_lease_back(
    operator: Operator,
) -> None:
    key, _ = await operator.park()
    async with named.open(operator.settings, executor=False) as runtime:
        with pytest.raises(ConfigurationError, match="other fields"):
            await retrying(runtime, NamedCounts).retry([key], timeout_seconds=30)
        (partition,) = (await generation(runtime, 1)).partitions
        assert (partition.leased_seconds or 0) <= 0
    assert await operator.document(key) == Count(1, 2)


async def test_a_retry_without_a_worker_refuses_an_index_that_was_replaced(operator: Operator) -> None:
    key, _ = await operator.park()
    async with counting.open(operator.settings, executor=False) as runtime:
        await runtime.read_store.drop(Counts.index(1))
        with pytest.raises(ProjectionStopped, match="to be filled anew"):
            await retrying(runtime, Counts).retry([key], timeout_seconds=30)


# --- events that are given up


async def test_an_event_is_given_up_only_where_the_key_is_parked_at_it(operator: Operator) -> None:
    key, position = await operator.park()
    async with counting.open(operator.settings, executor=False) as runtime:
        skip = runtime.checkpoints.skip
        assert not await skip("counts", 1, key, position + 1)
        assert not await skip("counts", 2, key, position)
        assert not await skip("counts", 1, "another", position)
        assert await runtime.checkpoints.skipped("counts") == []
        assert await skip("counts", 1, key, position)
        assert await skip("counts", 1, key, position), "it waits there still"
        assert [(each.key, each.position) for each in await runtime.checkpoints.skipped("counts")] == [(key, position)]


async def test_an_event_that_was_folded_while_the_operator_thought_is_not_given_up(operator: Operator) -> None:
    key, _ = await operator.park()
    async with at_the_question(operator, key) as (answer, ended):
        assert (await operator.types("parked", "retry", "counts", key, app=MENDED)).code == 0
        os.write(answer, b"y\n")
        code = await ended()
    assert code == 1
    async with counting.open(operator.settings, executor=False) as runtime:
        assert await runtime.checkpoints.skipped("counts") == []
    assert await operator.document(key) == Count(12 + POISON, 5)


@asynccontextmanager
async def at_the_question(
    operator: Operator, key: str
) -> AsyncIterator[tuple[int, Callable[[], Awaitable[int | None]]]]:
    """`cqrskit parked drop` when it asks: where to answer, and how it ends."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cqrskit", "parked", "drop", "counts", key, "--app", COUNTING),
        cwd=ROOT,
        env=environment(operator.variables),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
        preexec_fn=lambda: own_terminal(theirs),
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += await read_terminal(ours)

    async def ended() -> int | None:
        async with asyncio.timeout(30):
            await process.communicate()
        return process.returncode

    yield ours, ended
    os.close(ours)


async def test_generations_that_have_folded_an_event_that_is_given_up_are_due_for_a_rebuild(operator: Operator) -> None:
    key, position = await operator.park()
    async with mended_counting.counting.open(operator.settings, executor=False) as runtime:
        await rebuilt(runtime, mended_counting.Counts)
        assert await document(runtime, Counts, 2, key) == Count(12 + POISON, 5)
    dropped = await operator.asks("parked", "drop", "counts", key, "--generation", "1", "--yes")
    assert isinstance(dropped, dict)
    assert (dropped["dropped"], dropped["rebuild_due"]) == (position, [2])
    async with mended_counting.counting.open(operator.settings, executor=False) as runtime:
        assert [each.mixed for each in await runtime.checkpoints.generations()] == [False, True]


class Initials(Projection):
    """Texts by their first letter; an empty one has none."""

    document = Labelled

    @on(Counter.Labelled, key=lambda event, at: event.text[0])
    def labelled(self, known: Labelled | None, event: Counter.Labelled, at: RecordedEvent) -> Labelled:
        """Add the text."""
        return Labelled([*(known.texts if known else []), event.text])


async def test_an_event_without_a_key_that_is_given_up_is_parked_no_longer(settings: Settings) -> None:
    application = Application("initials", aggregates=[Counter], handlers=[label], projections=[Initials])
    async with application.open(settings, projections=["initials"]) as runtime:
        for text in ("a", "", "b"):
            result = await runtime.executor.execute(Label(counter_id=uuid4(), text=text))
        await runtime.positions.wait(Initials, result.position, visible=True, timeout_seconds=30)
        (parked,) = await runtime.checkpoints.parked("initials", 1)
        (failed,) = await retrying(runtime, Initials).retry([parked.key], timeout_seconds=30)
        assert failed.result == "failed"
        assert await runtime.checkpoints.skip("initials", 1, parked.key, parked.position)
        outcomes = await retrying(runtime, Initials).retry([parked.key], timeout_seconds=30)
        assert outcomes == [Retried(parked.key, "level")]
        assert await runtime.checkpoints.parked("initials", 1) == []


# --- prune


async def test_a_prune_that_dies_half_way_leaves_no_generation_without_its_index(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await operator.project()
    await operator.types("reset", "counts", "--yes")
    async with counting.open(operator.settings, executor=False) as runtime:

        async def dies(index: IndexSpec) -> None:
            raise ReadStoreError(f"{index.name} cannot be dropped now")

        monkeypatch.setattr(runtime.read_store, "drop", dies)
        with pytest.raises(ReadStoreError):
            await _prune(runtime, Counts, await generation(runtime, 1))
        assert [each.number for each in await runtime.checkpoints.generations()] == [2]
    forgotten = {"projection": "counts", "generation": 1, "state": "forgotten"}
    found = await operator.asks("prune", "--dry-run")
    assert found == [{**forgotten, "result": "would_be_deleted"}]
    done = await operator.asks("prune", "--yes")
    assert done == [{**forgotten, "result": "deleted"}]
    assert await operator.asks("prune", "--dry-run") == []
