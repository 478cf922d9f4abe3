"""APIs that start while Elasticsearch is away: commands are taken, and the documents are exact once it is back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar
from structlog.testing import capture_logs

from cqrskit import Settings
from cqrskit.testing import RestartableElasticsearch, WorkerProcess, assert_projection_exact, eventually
from cqrskit.web import CqrskitPlugin, plugin_of
from tests.faults.counting_load import WAIT_SECONDS, level
from tests.integration.bank import Balances, Open, bank
from tests.integration.changed_counting import named
from tests.integration.counting import Counts, Grow, opened
from tests.integration.running_processes import bank_client

ROOT = Path(__file__).parents[2]
SERVE = ("serve", "--app", "tests.integration.bank:create_app", "--port", "0")
PROJECT = ("project", "--app", "tests.integration.bank:bank")
ACCOUNTS = 20


@pytest.fixture
async def away(
    restartable_elasticsearch: RestartableElasticsearch,
    restartable_elasticsearch_url: str,
    postgres_dsn: str,
    index_prefix: str,
) -> AsyncIterator[Settings]:
    """Settings of a bank and of counters whose documents are in an Elasticsearch that has been killed since."""
    settings = Settings(
        database_url=postgres_dsn,
        elasticsearch_url=restartable_elasticsearch_url,
        index_prefix=index_prefix,
        connect_timeout_seconds=1.0,
        port=0,
    )
    yield settings
    await asyncio.to_thread(restartable_elasticsearch.start_again)


def variables_of(settings: Settings) -> dict[str, str]:
    """The same for a process of its own."""
    return {
        "CQRSKIT_DATABASE_URL": str(settings.database_url),
        "CQRSKIT_ELASTICSEARCH_URL": str(settings.elasticsearch_url),
        "CQRSKIT_INDEX_PREFIX": settings.index_prefix,
        "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "1",
    }


async def opened_accounts(client: httpx.AsyncClient) -> int:
    """Open accounts; the position of the last one."""
    replies = [await client.post("/accounts", json={"owner": "Ann"}) for _ in range(ACCOUNTS)]
    assert [reply.status_code for reply in replies] == [201] * ACCOUNTS
    return max(int(reply.json()["position"]) for reply in replies)


@pytest.mark.parametrize("projections", ["in the same process", "in a process that is started when it is back"])
async def test_an_api_that_was_started_without_elasticsearch_answers_by_itself_when_it_is_back(
    projections: str, restartable_elasticsearch: RestartableElasticsearch, away: Settings
) -> None:
    apart = "started" in projections
    variables = variables_of(away)
    async with bank.open(away, projections=["balances"]) as runtime:
        await runtime.executor.execute(Open(account_id=uuid4(), owner="Ben"))
        await level(runtime)
    await asyncio.to_thread(restartable_elasticsearch.kill)
    arguments = (*SERVE, "--no-projections") if apart else SERVE
    async with WorkerProcess("cqrskit", *arguments, variables=variables, folder=ROOT) as api:
        address = (await api.started()).removeprefix("listening on ")
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            position = await opened_accounts(client)
            headers = {"Consistency-Position": str(position)}
            refused = await client.get("/accounts", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "server_unavailable")
            assert (await client.get("/health/ready")).json()["status"] == "degraded"
            await asyncio.to_thread(restartable_elasticsearch.start_again)
            async with AsyncExitStack() as stack:
                if apart:
                    await stack.enter_async_context(
                        WorkerProcess("cqrskit", *PROJECT, variables=variables, folder=ROOT)
                    )

                async def answer() -> httpx.Response | None:
                    reply = await client.get("/accounts", headers=headers)
                    return reply if reply.status_code == 200 else None

                found = await eventually(answer, timeout_seconds=WAIT_SECONDS)
                assert found is not None
                assert len(found.json()["items"]) == ACCOUNTS + 1
                assert (await client.get("/health/ready")).json()["status"] == "ready"
        assert await api.terminate() == 0
    events = [json.loads(line)["event"] for line in api.errors.splitlines()]
    assert (events.count("read_store.away"), events.count("read_store.back")) == (1, 1)
    async with bank.open(away, executor=False) as runtime:
        await assert_projection_exact(runtime, Balances)


async def test_documents_that_turn_out_to_have_other_fields_stop_their_projection_and_not_the_api(
    restartable_elasticsearch: RestartableElasticsearch, away: Settings
) -> None:
    async with opened(away, projecting=True) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        await level(runtime)
    await asyncio.to_thread(restartable_elasticsearch.kill)
    app = Litestar([], plugins=[CqrskitPlugin(named, away)])
    with capture_logs() as logs:
        async with bank_client(away, app) as client:
            runtime = plugin_of(app).runtime
            await runtime.executor.execute(Grow(counter_id=uuid4()))
            assert [entry["event"] for entry in logs].count("read_store.away") == 1
            await asyncio.to_thread(restartable_elasticsearch.start_again)

            async def stopped() -> bool:
                return runtime.stopped_projections == ["counts"]

            await eventually(stopped, timeout_seconds=WAIT_SECONDS)
            ready = await client.get("/health/ready")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert any("cqrskit rebuild counts" in problem for problem in ready.json()["problems"])
            await runtime.executor.execute(Grow(counter_id=uuid4()))
    async with opened(away, projecting=True) as runtime:
        await level(runtime)
        await assert_projection_exact(runtime, Counts)
