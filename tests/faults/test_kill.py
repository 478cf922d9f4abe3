"""kill -9 of a projector in the middle of its work, on both read stores."""

import asyncio
from uuid import uuid4

from cqrskit import Settings
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.counting import Counts, Grow, opened
from tests.integration.running_processes import cqrskit, finish, start

COUNTING = "tests.integration.counting:counting"


async def test_a_killed_projector_goes_on_and_every_document_is_the_fold_of_the_log(
    settings: Settings, variables: dict[str, str]
) -> None:
    ids = [uuid4() for _ in range(40)]
    async with opened(settings) as runtime:

        async def position() -> int:
            (status,) = await runtime.status(count_documents=False)
            return status.position

        for _ in range(3):
            commands = [Grow(counter_id=ids[number % 40], by=number % 100) for number in range(9_000)]
            begin = await position()
            process = await start("project", "--app", COUNTING, variables=variables)
            writing = asyncio.create_task(runtime.executor.execute_many(commands))

            async def moved(begin: int = begin) -> bool:
                return await position() > begin

            await eventually(moved, timeout_seconds=30)
            process.kill()
            await writing
            assert (await finish(process)).code == -9
            assert await position() < await runtime.event_store.head(), "it was killed too late to show anything"
        finished = await cqrskit("project", "--app", COUNTING, "--until-level", variables=variables)
        assert finished.code == 0, finished.err
        assert await position() == await runtime.event_store.head()
        await assert_projection_exact(runtime, Counts)
        assert await runtime.read_store.count(Counts.index(1)) == 40
