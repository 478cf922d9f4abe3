"""The ledger on real servers beside its model: every reply, every counter, every document on either read store."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how_often
from hypothesis.stateful import run_state_machine_as_test

from cqrskit import Settings
from tests.acceptance.api import LedgerClient
from tests.acceptance.conftest import ledger_client
from tests.ledger_model.at_work import LedgerAtWork, Loop
from tests.ledger_model.held_to_it import HeldToTheModel
from tests.ledger_model.over_http import OverHttp

RUNS = {"postgres": 100, "elasticsearch": 24, "http": 15}
STEPS = 60


def how(runs: int) -> how_often:
    """So many runs. What fails is told as it was found: to shrink it would take longer than anybody waits."""
    return how_often(
        max_examples=runs,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


@pytest.fixture
def at_work(settings: Settings) -> Iterator[LedgerAtWork]:
    """The ledger at work in an event loop of its own."""
    at_work = LedgerAtWork(msgspec.structs.replace(settings, block_size_max=50, wait_timeout_seconds=60.0))
    with at_work.runner:
        at_work.run(at_work.open())
        yield at_work
        at_work.run(at_work.close())


def test_every_reply_and_every_document_is_the_models(at_work: LedgerAtWork) -> None:
    class Machine(HeldToTheModel):
        pass

    Machine.at_work = at_work
    store = "postgres" if at_work.settings.elasticsearch_url is None else "elasticsearch"
    run_state_machine_as_test(Machine, settings=how(RUNS[store]))
    assert Machine.steps_given > 25 * RUNS[store]
    at_work.run(at_work.end_holds())
    assert at_work.run(at_work.check()).violations == []


class _Serving(Loop):
    """The API, in a task that enters and leaves it."""

    async def begin(self, settings: Settings) -> LedgerClient:
        """The API's client, once it is up."""
        self._ended = asyncio.Event()
        ready: asyncio.Future[LedgerClient] = asyncio.get_running_loop().create_future()

        async def own() -> None:
            try:
                async with ledger_client(settings) as client:
                    ready.set_result(client)
                    await self._ended.wait()
            except BaseException as error:
                if not ready.done():
                    ready.set_exception(error)
                raise

        self._task = asyncio.create_task(own())
        return await ready

    async def end(self) -> None:
        """Leave it."""
        self._ended.set()
        await self._task


def test_every_reply_over_http_is_the_models(postgres_dsn: str, index_prefix: str) -> None:
    serving = _Serving()
    with serving.runner:

        class Machine(OverHttp):
            loop = serving

        settings = Settings(database_url=postgres_dsn, index_prefix=index_prefix, port=0, wait_timeout_seconds=60.0)
        Machine.client = serving.runner.run(serving.begin(settings))
        try:
            run_state_machine_as_test(Machine, settings=how(RUNS["http"]))
        finally:
            serving.run(serving.end())
    assert Machine.requests_sent > 25 * RUNS["http"]
