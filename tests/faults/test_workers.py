"""Workers that share partitions, on both read stores: one dies, one is too many, one comes back late."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import msgspec
import psycopg

from cqrskit import Runtime, Settings
from cqrskit.checkpoints import Generation, Lease
from cqrskit.errors import LeaseLost
from cqrskit.partition import Partition
from cqrskit.tasks import end_tasks
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.changed_counting import Quarters, quartered
from tests.integration.counting import Grow
from tests.integration.running_processes import finish, start

QUARTERED = "tests.integration.changed_counting:quartered"
COUNTERS = 40


async def live(runtime: Runtime) -> Generation:
    (generation,) = await runtime.checkpoints.generations()
    return generation


async def shares(runtime: Runtime) -> list[int]:
    """How many partitions each worker with a valid lease has."""
    held = [each.worker for each in (await live(runtime)).partitions if (each.leased_seconds or 0) > 0]
    return sorted(held.count(worker) for worker in set(held))


async def level(runtime: Runtime) -> None:
    head = await runtime.event_store.head()

    async def reached() -> bool:
        return (await live(runtime)).visible_position >= head

    await eventually(reached, timeout_seconds=30)


async def grow_all(runtime: Runtime, ids: list[UUID], rounds: int = 5) -> None:
    for _ in range(rounds):
        results = await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])
        assert not [each for each in results if isinstance(each, Exception)]


async def test_workers_share_partitions_and_share_anew_when_one_joins_or_leaves(settings: Settings) -> None:
    ids = [uuid4() for _ in range(COUNTERS)]

    async def shared(runtime: Runtime, expected: list[int]) -> None:
        async def found() -> bool:
            return await shares(runtime) == expected

        await eventually(found, timeout_seconds=30)

    async with quartered.open(settings, projections=["quarters"]) as first:
        await shared(first, [4])
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(quartered.open(settings, executor=False, projections=["quarters"]))
            await shared(first, [2, 2])
            await grow_all(first, ids)
            await stack.enter_async_context(quartered.open(settings, executor=False, projections=["quarters"]))
            await shared(first, [1, 1, 2])
            await grow_all(first, ids)
            await level(first)
        await shared(first, [4])
        await grow_all(first, ids)
        await level(first)
        await assert_projection_exact(first, Quarters)


async def test_the_partitions_of_a_killed_worker_are_taken_over_and_nothing_is_missing(
    settings: Settings, variables: dict[str, str]
) -> None:
    ids = [uuid4() for _ in range(COUNTERS)]
    async with quartered.open(settings, projections=["quarters"]) as runtime:
        process = await start("project", "--app", QUARTERED, variables=variables)

        async def both() -> bool:
            return await shares(runtime) == [2, 2]

        await eventually(both, timeout_seconds=30)
        growing = asyncio.create_task(grow_all(runtime, ids, rounds=100))
        await grow_all(runtime, ids)
        process.kill()
        assert (await finish(process)).code == -9
        await growing

        async def alone() -> bool:
            return await shares(runtime) == [4]

        await eventually(alone, timeout_seconds=30)
        await level(runtime)
        await assert_projection_exact(runtime, Quarters)


async def test_a_worker_whose_lease_has_gone_can_move_no_checkpoint_and_does_no_harm(settings: Settings) -> None:
    ids = [uuid4() for _ in range(COUNTERS)]
    async with quartered.open(settings, projections=["quarters"]) as runtime:
        await grow_all(runtime, ids)
        await level(runtime)
        old = {each.number: each for each in (await live(runtime)).partitions}
        with psycopg.connect(str(settings.database_url), autocommit=True) as connection:
            rows = connection.execute("SELECT partition, epoch FROM partitions ORDER BY partition").fetchall()
        epochs = {int(partition): int(epoch) for partition, epoch in rows}
    async with quartered.open(settings, projections=["quarters"]) as runtime:
        generation = await live(runtime)
        for number, epoch in epochs.items():
            lease = _lease(generation, number, epoch, old[number].position)
            zombie = runtime.projector(Quarters(), msgspec.structs.replace(lease, position=0, visible_position=0))
            try:
                await zombie.open()
                while not await zombie.step():
                    continue
            except LeaseLost:
                pass
            else:
                raise AssertionError("a checkpoint was moved with an old lease")
            finally:
                await zombie.stop()
        await grow_all(runtime, ids)
        await level(runtime)
        await assert_projection_exact(runtime, Quarters)


def _lease(generation: Generation, number: int, epoch: int, position: int) -> Lease:
    return Lease(
        generation.projection,
        generation.number,
        generation.index_identity,
        Partition(number, len(generation.partitions)),
        "zombie",
        epoch,
        position,
        position,
    )


async def test_two_projectors_on_one_partition_by_force_do_no_harm(settings: Settings) -> None:
    ids = [uuid4() for _ in range(COUNTERS)]
    async with quartered.open(settings, projections=["quarters"]) as runtime:
        with psycopg.connect(str(settings.database_url), autocommit=True) as connection:
            rows = connection.execute("SELECT partition, epoch FROM partitions ORDER BY partition").fetchall()
        generation = await live(runtime)
        doubles = [
            runtime.projector(Quarters(), _lease(generation, int(number), int(epoch), 0)) for number, epoch in rows
        ]
        for each in doubles:
            await each.open()
        tasks = [asyncio.create_task(each.run()) for each in doubles]
        try:
            await grow_all(runtime, ids, rounds=30)
            await level(runtime)
            assert not [task.exception() for task in tasks if task.done()]
            await assert_projection_exact(runtime, Quarters)
        finally:
            await end_tasks(tasks)
