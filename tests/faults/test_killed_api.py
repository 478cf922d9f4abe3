"""kill -9 of the API while 32 clients post transfers: those who retry get the first reply, and nothing is doubled."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx
import msgspec

from cqrskit import Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger
from example_ledger.transfers import PostTransfer
from tests.acceptance.api import bearer, key_for
from tests.faults.checking import assert_books_and_documents_in_order, assert_log_tells_what_callers_were_told
from tests.faults.load import Load
from tests.faults.told import Answer, Told, submitting_over_http
from tests.integration.running_processes import address_of, finish, start

WAIT_SECONDS = 30.0
ROUNDS = 2


class MortalApi:
    """The ledger's API in a process that is killed and started again; clients find it at its address of the day."""

    def __init__(self, variables: Mapping[str, str], key: str) -> None:
        self._variables = variables
        self._headers = bearer(key)
        self._process: asyncio.subprocess.Process | None = None
        self._clients: list[httpx.AsyncClient] = []
        self._up = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        for client in self._clients:
            await client.aclose()

    async def start(self) -> None:
        """Start it on a free port."""
        self._process = await start("serve", "--port", "0", module="example_ledger", variables=self._variables)
        limits = httpx.Limits(max_connections=64)
        address = await address_of(self._process)
        client = httpx.AsyncClient(base_url=address, timeout=WAIT_SECONDS, limits=limits, headers=self._headers)
        self._clients.append(client)
        self._up.set()

    async def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self._up.clear()
        assert self._process is not None
        self._process.kill()
        assert (await finish(self._process)).code == -9

    async def submit(self, command: PostTransfer) -> Answer:
        """Post a transfer as soon as the API is up."""
        await self._up.wait()
        return await submitting_over_http(self._clients[-1])(command)

    async def open_account(self, **fields: object) -> UUID:
        """A new account's id."""
        reply = await self._clients[-1].post("/accounts", json={"currency": "EUR", **fields})
        assert reply.status_code == 201, reply.text
        return UUID(reply.json()["account_id"])


async def test_clients_of_a_killed_api_who_retry_get_the_first_reply(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with MortalApi(variables, await key_for(settings)) as api:
        accounts = [await api.open_account(name="bank", type="asset", overdraft_limit=None)]
        accounts += [await api.open_account(name=f"account {number}", type="liability") for number in range(12)]
        load = Load(api.submit, accounts)
        await load.fund()
        async with load.running():
            for _ in range(ROUNDS):
                await _progress(load)
                await api.kill()
                before = [told for told in load.told if told.final is not None][-60:]
                await api.start()
                await asyncio.gather(*(load.settle(told) for told in before))
            await _progress(load)
    assert load.answers["unknown"] > 0, "no request was on its way when the API was killed"
    await assert_log_tells_what_callers_were_told(str(settings.database_url), load.told)
    await _assert_books_are_in_order(settings, load.told)


async def _progress(load: Load) -> None:
    goal = load.settled + 150
    await eventually(lambda: load.settled >= goal, timeout_seconds=WAIT_SECONDS)


async def _assert_books_are_in_order(settings: Settings, told: list[Told]) -> None:
    """With all documents, once read models have caught up."""
    settings = msgspec.structs.replace(settings, block_size_max=5_000)
    async with ledger.open(settings, projections=[each.name for each in ledger.projections]) as runtime:
        report = await assert_books_and_documents_in_order(runtime)
    acknowledged = {each.command.transfer_id for each in told if each.final and each.final.kind == "acknowledged"}
    assert report.transfers >= len(acknowledged)
