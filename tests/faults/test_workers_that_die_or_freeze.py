"""A projector's process dies between write and checkpoint, or sleeps while others go on: documents are exact."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from cqrskit import Runtime, Settings
from cqrskit.testing import CuttableWire, Hold, HttpWire, WorkerProcess, bulk_writes, says
from tests.faults.counting_load import CountingLoad, level
from tests.integration.counting import Counts, opened
from tests.integration.running_processes import ROOT, environment

CHECKPOINT = says("SET position = GREATEST")
"""The statement with which a projector says how far it is; see save_checkpoint.sql."""
WRITE = says('INSERT INTO "read_models"')
PROJECT = ("cqrskit", "project", "--app", "tests.integration.counting:counting")


def worker(variables: Mapping[str, str]) -> WorkerProcess:
    """``cqrskit project`` with these settings."""
    return WorkerProcess(*PROJECT, variables=environment(variables), folder=ROOT)


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


class Way:
    """A worker's way to the servers, on which its next write of documents, or its next checkpoint, can be held."""

    def __init__(self, postgres: CuttableWire, elasticsearch: HttpWire | None) -> None:
        self._postgres = postgres
        self._elasticsearch = elasticsearch

    def worker(self, variables: Mapping[str, str]) -> WorkerProcess:
        """A worker that goes this way."""
        urls = {"CQRSKIT_DATABASE_URL": self._postgres.url}
        if self._elasticsearch is not None:
            urls["CQRSKIT_ELASTICSEARCH_URL"] = self._elasticsearch.url
        return worker({**variables, **urls})

    def hold_at_write(self) -> Hold:
        """Hold the next write of documents."""
        if self._elasticsearch is not None:
            return self._elasticsearch.hold_at(bulk_writes)
        return self._postgres.hold_at(WRITE)

    def hold_at_checkpoint(self) -> Hold:
        """Hold the next checkpoint."""
        return self._postgres.hold_at(CHECKPOINT)


@pytest.fixture
async def way(settings: Settings) -> AsyncIterator[Way]:
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(CuttableWire(str(settings.database_url)))
        url = settings.elasticsearch_url
        yield Way(postgres, None if url is None else await stack.enter_async_context(HttpWire(url)))


@pytest.mark.parametrize("moment", ["before the write", "between write and checkpoint"])
async def test_a_projector_that_is_killed_leaves_documents_from_which_the_next_goes_on_exactly(
    settings: Settings, variables: dict[str, str], way: Way, moment: str
) -> None:
    async with at_work(settings) as (runtime, load):
        for _ in range(3):
            before = await position_of(runtime)
            hold = way.hold_at_write() if moment == "before the write" else way.hold_at_checkpoint()
            async with way.worker(variables) as projector:
                await hold.reached()
                projector.kill()
                assert await projector.ended() == -9
            hold.drop()
            await runtime.read_store.refresh(Counts.index(1))
            newest = [each.version async for each in runtime.read_store.scan(Counts.index(1))]
            assert (max(newest, default=0) > before) == (moment != "before the write"), (
                "it was killed at another moment"
            )
            assert await position_of(runtime) == before, "its checkpoint was saved before it was killed"
            async with worker(variables):
                await level(runtime)
            await load.progress(20)


async def test_a_worker_that_wakes_up_after_others_have_gone_on_takes_nothing_back(
    settings: Settings, variables: dict[str, str], way: Way
) -> None:
    async with opened(settings) as runtime:
        load = CountingLoad(runtime)
        hold = way.hold_at_write()
        async with way.worker(variables) as zombie, load.running():
            await hold.reached()
            zombie.freeze()
            async with worker(variables) as other:  # takes over when the zombie's lease has run out
                await load.progress(200)
                await level(runtime)
                written = way.hold_at_checkpoint()
                zombie.thaw()
                hold.release()
                await written.reached()  # its old documents have arrived, and it gets no further
                assert await other.terminate() == 0, other.errors
        written.drop()
        async with opened(settings, projecting=True):
            await load.assert_exact()


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
