"""kill -9 of a projector and of the API in the middle of their work, on both read stores."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx

from cqrskit import Settings
from cqrskit.testing import differences_from_log, eventually
from example_ledger.application import ledger
from example_ledger.checking import check_books
from tests.acceptance.api import transfer
from tests.integration.counting import Counts, Grow, opened
from tests.integration.running_processes import address_of, cqrskit, finish, start

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
        assert await differences_from_log(runtime, Counts) == []
        assert await runtime.read_store.count(Counts().index) == 40


async def test_a_killed_api_has_every_acknowledged_transfer_once(settings: Settings, variables: dict[str, str]) -> None:
    acknowledged: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []
    accounts: list[str] = []
    for round_number in range(3):
        process = await start("serve", "--port", "0", module="example_ledger", variables=variables)
        async with httpx.AsyncClient(base_url=await address_of(process), timeout=30) as client:
            if not accounts:
                for name in ("a", "b", "c"):
                    body = {"name": name, "type": "asset", "currency": "EUR", "overdraft_limit": None}
                    accounts.append((await client.post("/accounts", json=body)).json()["account_id"])

            async def post_forever(number: int, client: httpx.AsyncClient = client) -> None:
                while True:
                    body = transfer(accounts[number % 3], accounts[(number + 1) % 3], 1 + number)
                    sent.append(body)
                    reply = await client.post("/transfers", json=body)
                    assert reply.status_code == 201, reply.text
                    acknowledged.append(body)

            clients = [asyncio.create_task(post_forever(number)) for number in range(16)]
            goal = len(acknowledged) + 150
            await eventually(lambda goal=goal: len(acknowledged) > goal, timeout_seconds=30)  # type: ignore[misc]
            process.kill()
            await asyncio.wait(clients)
        assert (await finish(process)).code == -9, round_number
    assert len(sent) > len(acknowledged), "no request was in flight when the API was killed"
    await _assert_each_once(settings, acknowledged, sent)


async def _assert_each_once(settings: Settings, acknowledged: list[dict[str, Any]], sent: list[dict[str, Any]]) -> None:
    async with ledger.open(settings, projections=[each.name for each in ledger.projections]) as runtime:
        head = await runtime.event_store.head()
        recorded: list[str] = []
        position = 0
        while position < head:
            block = await runtime.event_store.read(position, 1_000, ["Transfer.Posted"])
            recorded += [str(event.stream_id) for event in block.events]
            position = block.until
        assert len(recorded) == len(set(recorded))
        assert {body["transfer_id"] for body in acknowledged} <= set(recorded)
        assert set(recorded) <= {body["transfer_id"] for body in sent}

        async def level() -> bool:
            return all(status.visible_position >= head for status in await runtime.status(count_documents=False))

        await eventually(level, timeout_seconds=30)
        report = await check_books(runtime)
        assert report.violations == []
        assert report.transfers == len(recorded)
