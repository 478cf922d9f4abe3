"""The ledger at work on either read store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from cqrskit import Scope, Settings
from cqrskit.web import plugin_of
from example_ledger.app import create_app
from tests.acceptance.api import ACTOR, LedgerClient, bearer


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    """Settings of a ledger with an own database and index prefix, on each read store in turn."""
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix, port=0)


@asynccontextmanager
async def ledger_client(settings: Settings) -> AsyncIterator[LedgerClient]:
    """The ledger's API, called without a network, with a key for everything."""
    app = create_app(settings)
    async with app.lifespan():
        transport = httpx.ASGITransport(cast(Any, app), raise_app_exceptions=False)
        runtime = plugin_of(app).runtime
        headers = bearer((await runtime.api_keys.make(ACTOR, Scope)).text)
        async with httpx.AsyncClient(transport=transport, base_url="http://ledger", headers=headers) as http:
            yield LedgerClient(http, runtime)


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[LedgerClient]:
    """The ledger's API on an empty log. One task enters and leaves the app's lifespan, as its cancel scopes demand."""
    ready: asyncio.Future[LedgerClient] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def own() -> None:
        async with ledger_client(settings) as client:
            ready.set_result(client)
            await done.wait()

    task: asyncio.Future[Any] = asyncio.create_task(own())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task
    yield await ready
    done.set()
    await task
