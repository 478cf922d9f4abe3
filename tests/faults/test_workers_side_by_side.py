"""Workers of old and of new code beside each other, as in every deployment."""

from uuid import uuid4

from cqrskit import Runtime, Settings
from cqrskit.checkpoints import Generation
from cqrskit.testing import assert_projection_exact, eventually
from tests.faults.test_rebuild import rebuilt
from tests.integration.changed_counting import NamedCounts, named
from tests.integration.counting import Counts, Grow, opened


async def _all_moved(runtime: Runtime) -> bool:
    """Both generations are there, and somebody moves each of their partitions."""
    found = await runtime.checkpoints.generations()
    return len(found) == 2 and all(_is_moved(each) for each in found)


def _is_moved(generation: Generation) -> bool:
    return all((each.leased_seconds or 0) > 0 for each in generation.partitions)


async def test_workers_of_old_and_new_code_each_move_the_generation_of_their_code(settings: Settings) -> None:
    ids = [uuid4() for _ in range(10)]
    async with opened(settings, projecting=True) as old:
        await old.executor.execute_many([Grow(counter_id=each) for each in ids])
        async with named.open(settings, executor=False) as unready:
            await rebuilt(unready, NamedCounts)
        async with named.open(settings, executor=False, projections=["counts"]) as new:
            for round_number in range(1, 4):
                await eventually(lambda: _all_moved(old), timeout_seconds=3 * settings.lease_seconds)
                position = (await old.executor.execute(Grow(counter_id=ids[0], by=round_number))).position
                await old.reader.get(Counts, str(ids[0]), min_position=position)
                await new.reader.get(NamedCounts, str(ids[0]), min_position=position)
            await assert_projection_exact(old, Counts)
            await assert_projection_exact(new, NamedCounts)
