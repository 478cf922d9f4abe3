"""Rebuilds under load, on both read stores: interrupted, swapped in under constant reads, and rolled back."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit import Query, RebuildRequired, Runtime, Settings
from cqrskit.checkpoints import Generation, GenerationState
from cqrskit.rebuild import Rebuild, Tail, build_slice
from cqrskit.tasks import end_tasks
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.changed_counting import DoubledCounts, NamedCounts, doubled, named
from tests.integration.counting import Count, Counts, Grow, opened
from tests.integration.running_processes import cqrskit, finish, start

COUNTING = "tests.integration.counting:counting"
COUNTERS = 30
SLICES = 3


@asynccontextmanager
async def growing(runtime: Runtime, ids: list[UUID]) -> AsyncIterator[None]:
    """Each counter grows by one, again and again; always a whole round in one batch."""

    async def grow() -> None:
        while True:
            results = await runtime.executor.execute_many([Grow(counter_id=each, by=1) for each in ids])
            assert not [each for each in results if isinstance(each, Exception)]
            await asyncio.sleep(0.05)

    task = asyncio.create_task(grow())
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        await end_tasks([task])


async def level(runtime: Runtime) -> None:
    head = await runtime.event_store.head()

    async def reached() -> bool:
        (status,) = await runtime.status(count_documents=False)
        return status.visible_position >= head

    await eventually(reached, timeout_seconds=30)


async def generation(runtime: Runtime, number: int) -> Generation:
    return next(each for each in await runtime.checkpoints.generations() if each.number == number)


async def rebuilt(runtime: Runtime, projection: type[Counts] | type[DoubledCounts] | type[NamedCounts]) -> Generation:
    """What `cqrskit rebuild` does, in this process; the new generation, live."""
    work = Rebuild(runtime, projection)
    begun = await work.begin(SLICES)
    for each in begun.partitions:
        await build_slice(runtime, projection, begun.number, each.number)
    ready = await work.finish_building()
    async with Tail(runtime, projection, ready).running() as tail:
        await tail.level()
        await work.swap(ready)
    return await generation(runtime, ready.number)


async def documents(runtime: Runtime, number: int) -> dict[str, tuple[int, object]]:
    found = runtime.read_store.scan(Counts.index(number))
    return {each.id: (each.version, each.document) async for each in found}


async def test_a_rebuild_that_is_killed_ten_times_finishes_and_equals_the_live_documents(
    settings: Settings, variables: dict[str, str]
) -> None:
    seed = random.randrange(10_000)
    chance = random.Random(seed)
    print("seed", seed)
    ids = [uuid4() for _ in range(COUNTERS)]
    async with opened(settings, projecting=True) as runtime:
        for _ in range(3):
            await runtime.executor.execute_many([Grow(counter_id=each, by=1) for each in ids for _ in range(500)])
        await level(runtime)

        async def built() -> int:
            found = [each for each in await runtime.checkpoints.generations() if each.number == 2]
            return sum(each.position for generation in found for each in generation.partitions)

        kills = 0
        async with growing(runtime, ids):
            for _ in range(10):
                before = await built()
                process = await start("rebuild", "counts", "--app", COUNTING, "--no-swap", variables=variables)
                pause = chance.uniform(0.0, 0.3)

                async def moved(before: int = before) -> bool:
                    return await built() > before

                await eventually(moved, timeout_seconds=40)
                await asyncio.sleep(pause)
                if process.returncode is None:
                    process.kill()
                kills += (await finish(process)).code == -9
        assert kills >= 5, "it mostly ended before it was killed"
        finished = await cqrskit("rebuild", "counts", "--app", COUNTING, variables=variables)
        assert finished.code == 0, finished.err
        await level(runtime)
        states = {each.number: each.state for each in await runtime.checkpoints.generations()}
        assert states == {1: GenerationState.RETIRED, 2: GenerationState.LIVE}
        await assert_projection_exact(runtime, Counts)
        assert await documents(runtime, 2) == await documents(runtime, 1)


async def test_a_swap_under_constant_reads_shows_no_error_no_gap_and_no_mix_of_generations(settings: Settings) -> None:
    ids = [uuid4() for _ in range(COUNTERS)]
    async with opened(settings, projecting=True) as old, doubled.open(settings, executor=False) as new:
        await old.executor.execute_many([Grow(counter_id=each, by=1) for each in ids])
        await level(old)
        seen: list[tuple[str, int]] = []

        async def read(runtime: Runtime, projection: type[Counts] | type[DoubledCounts]) -> None:
            reached = 0
            while True:
                answer = await runtime.reader.search(projection, Query(limit=100))
                assert answer.as_of_position >= reached, "a reader was taken back"
                reached = answer.as_of_position
                kinds = {_kind(row.document) for row in answer.value.items}
                assert len(answer.value.items) == COUNTERS, "documents were missing"
                assert len(kinds) == 1, f"a page of two generations: {kinds}"
                seen.append((f"{projection.__name__} {kinds.pop()}", reached))
                await asyncio.sleep(0)

        async with growing(old, ids), _reading(read, (old, Counts), (new, DoubledCounts)):
            await rebuilt(new, DoubledCounts)
            last = len(seen)
            await eventually(lambda: _after(seen, last, "DoubledCounts doubled"), timeout_seconds=30)
            await eventually(lambda: _after(seen, last, "Counts plain"), timeout_seconds=30)
        await level(old)
        await assert_projection_exact(old, Counts)
        kinds = {kind for kind, _ in seen}
        assert kinds == {"DoubledCounts plain", "DoubledCounts doubled", "Counts plain"}


def _kind(document: Count) -> str:
    return "doubled" if document.value == 2 * (document.events - 1) else "plain"


def _after(seen: list[tuple[str, int]], last: int, kind: str) -> bool:
    return any(each == kind for each, _ in seen[last:])


@asynccontextmanager
async def _reading(
    read: Callable[[Runtime, type[Counts] | type[DoubledCounts]], Awaitable[None]],
    *who: tuple[Runtime, type[Counts] | type[DoubledCounts]],
) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(read(runtime, projection)) for runtime, projection in who for _ in range(2)]
    try:
        yield
        assert not [task.exception() for task in tasks if task.done()]
    finally:
        await end_tasks(tasks)


async def test_old_code_goes_on_with_the_old_documents_while_new_code_has_the_new_ones(settings: Settings) -> None:
    ids = [uuid4() for _ in range(3)]
    async with opened(settings, projecting=True) as old:
        await old.executor.execute_many([Grow(counter_id=each, by=5) for each in ids])
        await level(old)
        async with named.open(settings, executor=False) as unready:
            with pytest.raises(RebuildRequired, match="cqrskit rebuild counts"):
                await unready.reader.get(NamedCounts, str(ids[0]))
            await rebuilt(unready, NamedCounts)
        async with named.open(settings, projections=["counts"]) as new:
            result = await old.executor.execute(Grow(counter_id=ids[0], by=1))
            position = result.position
            before = await old.reader.get(Counts, str(ids[0]), min_position=position)
            after = await new.reader.get(NamedCounts, str(ids[0]), min_position=position)
            assert before.value is not None
            assert after.value is not None
            assert (before.value.document, after.value.document.value) == (Count(6, 3), 6)


async def test_code_whose_documents_have_other_fields_stops_at_start_up_with_the_command_to_run(
    settings: Settings,
) -> None:
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        await level(runtime)
    for projections in ([], ["counts"]):
        with pytest.raises(RebuildRequired, match="cqrskit rebuild counts"):
            async with named.open(settings, projections=projections):
                pass


async def test_a_changed_fold_is_noticed_and_status_says_that_a_rebuild_is_due(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=3))
        await level(runtime)
        (status,) = await runtime.status()
        assert status.rebuild_due is None
    async with doubled.open(settings, projections=["counts"]) as runtime:
        (status,) = await runtime.status()
        assert "cqrskit rebuild" in str(status.rebuild_due)
        await rebuilt(runtime, DoubledCounts)
        (status,) = await runtime.status()
        assert (status.generation, status.rebuild_due) == (2, None)


async def test_a_roll_back_gives_the_old_answers_again_and_they_go_on(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=3))
        await level(runtime)
    async with doubled.open(settings, projections=[]) as runtime:
        await rebuilt(runtime, DoubledCounts)
        answer = await runtime.reader.get(DoubledCounts, str(counter_id))
        assert answer.value is not None
        assert answer.value.document == Count(6, 2)
        position = (await runtime.executor.execute(Grow(counter_id=counter_id, by=4))).position
    async with opened(settings) as runtime:
        work = Rebuild(runtime, Counts)
        previous = await work.previous()
        async with Tail(runtime, Counts, previous).running() as tail:
            await tail.level()
            await work.swap(previous, rolled_back=True)
            answer = await runtime.reader.get(Counts, str(counter_id), min_position=position)
        assert answer.value is not None
        assert answer.value.document == Count(7, 3)
        assert (await generation(runtime, 2)).rolled_back
    async with doubled.open(settings, executor=False) as runtime:
        (status,) = await runtime.status()
        assert (status.generation, status.rebuild_due is None) == (1, False), "new code reads what was rolled back to"


async def test_a_generation_that_is_behind_the_live_one_is_not_swapped_in(settings: Settings) -> None:
    async with opened(settings, projecting=True) as runtime:
        work = Rebuild(runtime, Counts)
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        begun = await work.begin(1)
        await build_slice(runtime, Counts, begun.number, 0)
        ready = await work.finish_building()
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        await level(runtime)
        assert await runtime.checkpoints.swap("counts", ready.number) is False
        states = {each.number: each.state for each in await runtime.checkpoints.generations()}
        assert states == {1: GenerationState.LIVE, 2: GenerationState.READY}
        async with Tail(runtime, Counts, ready).running() as tail:
            await tail.level()
            assert await runtime.checkpoints.swap("counts", ready.number) is True


async def test_a_rebuild_by_other_code_than_the_one_that_began_it_is_refused_unless_it_begins_anew(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with opened(settings, projecting=True) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        await level(runtime)
        await Rebuild(runtime, Counts).begin(2)
    changed = "tests.integration.changed_counting:doubled"
    refused = await cqrskit("rebuild", "counts", "--app", changed, variables=variables)
    assert (refused.code, "--restart" in refused.err) == (2, True), refused.err
    finished = await cqrskit("rebuild", "counts", "--app", changed, "--restart", "--json", variables=variables)
    assert finished.code == 0, finished.err
    result = msgspec.json.decode(finished.out)
    assert (result["state"], result["generation"], result["differences"]) == ("live", 3, 0)
