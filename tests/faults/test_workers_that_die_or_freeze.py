"""A projector's process dies between write and checkpoint, or sleeps while others go on: documents are exact."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cqrskit import Runtime, Settings
from cqrskit.testing import CuttableWire, Hold, HttpWire, WorkerProcess, bulk_writes, says
from tests.faults.counting_load import CountingLoad, level
from tests.integration.counting import Counts, opened
from tests.integration.running_processes import ROOT, environment

CHECKPOINT = says("UPDATE projections")
"""The statement with which a projector says how far it is; see save_checkpoint.sql."""
WRITE = says('INSERT INTO "read_models"')
PROJECT = ("cqrskit", "project", "--app", "tests.integration.counting:counting")


def worker(
    variables: Mapping[str, str], *, database_url: str | None = None, elasticsearch_url: str | None = None
) -> WorkerProcess:
    """``cqrskit project`` with these settings, on other ways to the servers if they are given."""
    changes = {"CQRSKIT_DATABASE_URL": database_url, "CQRSKIT_ELASTICSEARCH_URL": elasticsearch_url}
    given = {name: value for name, value in changes.items() if value is not None}
    return WorkerProcess(*PROJECT, variables=environment({**variables, **given}), folder=Path(ROOT))


@asynccontextmanager
async def at_work(settings: Settings) -> AsyncIterator[tuple[Runtime, CountingLoad]]:
    """The load, on an executor that projects nothing itself."""
    async with opened(settings) as runtime:
        load = CountingLoad(runtime)
        async with load.running():
            await load.progress()
            yield runtime, load
        async with opened(settings, projecting=True):
            await load.assert_exact()


async def position_of(runtime: Runtime) -> int:
    (status,) = await runtime.status(count_documents=False)
    return status.position


async def test_a_projector_killed_between_write_and_checkpoint_goes_on_from_exact_documents(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with at_work(settings) as (runtime, load), CuttableWire(str(settings.database_url)) as wire:
        for _ in range(3):
            before = await position_of(runtime)
            hold = wire.hold_at(CHECKPOINT)
            async with worker(variables, database_url=wire.url) as projector:
                await hold.reached()
                projector.kill()
                assert await projector.ended() == -9
            hold.drop()
            assert await position_of(runtime) == before, "its checkpoint was saved before it was killed"
            newest = [each.version async for each in runtime.read_store.scan(Counts().index)]
            assert max(newest) > before, "it was killed before it had written"
            async with worker(variables):
                await level(runtime)
            await load.progress(20)


async def test_a_worker_that_wakes_up_after_others_have_gone_on_takes_nothing_back(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with at_work(settings) as (runtime, load), AsyncExitStack() as stack:
        hold, urls = await _way_on_which_a_write_waits(settings, stack)
        zombie = await stack.enter_async_context(worker(variables, **urls))
        await hold.reached()
        zombie.freeze()
        async with worker(variables) as other:
            await load.progress(200)
            await level(runtime)
            assert zombie.running
            zombie.thaw()
            hold.release()
            await load.progress(50)
            await level(runtime)
            assert await zombie.terminate() == 0, zombie.errors
            assert await other.terminate() == 0, other.errors


async def _way_on_which_a_write_waits(settings: Settings, stack: AsyncExitStack) -> tuple[Hold, dict[str, str]]:
    """A way to the read store on which the next write of documents is held, and a worker's settings to go this way."""
    if settings.elasticsearch_url is None:
        wire = await stack.enter_async_context(CuttableWire(str(settings.database_url)))
        return wire.hold_at(WRITE), {"database_url": wire.url}
    http = await stack.enter_async_context(HttpWire(settings.elasticsearch_url))
    return http.hold_at(bulk_writes), {"elasticsearch_url": http.url}


async def test_both_workers_of_a_projection_that_froze_and_thawed_in_turn_do_no_harm(
    settings: Settings, variables: dict[str, str]
) -> None:
    quick = {**variables, "CQRSKIT_BLOCK_SIZE_MAX": "10"}
    async with at_work(settings) as (_, load), worker(quick) as one, worker(quick) as other:
        await one.started()
        await other.started()
        for asleep in (one, other, one, other):
            asleep.freeze()
            await load.progress(30)
            asleep.thaw()
            await load.progress(10)
        assert await one.terminate() == 0, one.errors
        assert await other.terminate() == 0, other.errors
