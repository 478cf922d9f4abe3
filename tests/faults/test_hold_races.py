"""Holds that two API processes capture, void and expire at one moment, and holds whose time comes while none runs."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import msgspec
import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import WorkerProcess, eventually
from example_ledger.application import ledger
from example_ledger.checking import check_books
from tests.acceptance.api import bearer, key_for, transfer
from tests.integration.running_processes import ROOT

ENDS = ("Transfer.Captured", "Transfer.Voided", "Transfer.Expired")
STATUSES = {"captured": "Transfer.Captured", "voided": "Transfer.Voided"}
TOO_LATE = {"hold_already_captured", "hold_already_voided", "hold_expired"}
ROUNDS, HOLDS = 5, 60
SPREAD_SECONDS = 0.6
"""Attempts at the holds of a round begin so long before their time, and end so long after it."""
WAIT_SECONDS = 60.0


class End(msgspec.Struct, frozen=True):
    """How a hold ended, and when, in the log."""

    type: str
    at: datetime


def ends_in(dsn: str) -> dict[UUID, list[End]]:
    """The ends of all holds that have one, read past cqrskit."""
    found: dict[UUID, list[End]] = {}
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT stream_id, type, recorded_at FROM events WHERE type = ANY(%s) ORDER BY position", (list(ENDS),)
        ).fetchall()
    for stream_id, kind, recorded_at in rows:
        found.setdefault(stream_id, []).append(End(kind, recorded_at))
    return found


def times_in(dsn: str) -> dict[UUID, datetime]:
    """When each hold is to expire."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT stream_id, data FROM events WHERE type = 'Transfer.Held'").fetchall()
    return {stream_id: datetime.fromisoformat(json.loads(data)["expires_at"]) for stream_id, data in rows}


@pytest.fixture
def variables(postgres_dsn: str, index_prefix: str) -> dict[str, str]:
    """Expiry is a matter of the write path: one read store is enough."""
    return {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_INDEX_PREFIX": index_prefix,
        "CQRSKIT_LOG_LEVEL": "warning",
    }


class Service:
    """Two API processes of one ledger, with a shop that holds the money of Ann."""

    def __init__(self, variables: Mapping[str, str], key: str) -> None:
        self._variables = variables
        self._headers = bearer(key)
        self._processes: list[WorkerProcess] = []
        self.apis: list[httpx.AsyncClient] = []
        self.ann = self.shop = ""

    async def start(self, stack: AsyncExitStack) -> None:
        """Start both at the same time."""
        self._processes = [
            WorkerProcess(
                "example_ledger", "serve", "--no-projections", "--port", "0", variables=self._variables, folder=ROOT
            )
            for _ in range(2)
        ]
        for process in self._processes:
            await stack.enter_async_context(process)
        lines = await asyncio.gather(*(process.started() for process in self._processes))
        addresses = [line.removeprefix("listening on ") for line in lines]
        self.apis = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=each, headers=self._headers, timeout=30))
            for each in addresses
        ]

    async def kill(self) -> None:
        """kill -9 of both."""
        for process in self._processes:
            process.kill()
            assert await process.ended() == -9

    async def post(self, path: str, body: object) -> Any:
        """A command that is accepted."""
        reply = await self.apis[0].post(path, json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()

    async def open_accounts(self) -> None:
        """Ann has enough."""
        accounts = [{"name": name, "type": kind, "currency": "EUR", "overdraft_limit": None} for name, kind in ACCOUNTS]
        bank, self.ann, self.shop = [(await self.post("/accounts", each))["account_id"] for each in accounts]
        await self.post("/transfers", transfer(bank, self.ann, 1_000_000))

    async def hold(self, seconds: int) -> tuple[UUID, datetime]:
        """A new hold, and when it is to expire."""
        body = transfer(self.ann, self.shop, 10)
        hold_id = body.pop("transfer_id")
        held = await self.post("/holds", {**body, "hold_id": hold_id, "expires_in_seconds": seconds})
        return UUID(hold_id), datetime.fromisoformat(held["expires_at"])


ACCOUNTS = [("Bank", "asset"), ("Ann", "liability"), ("Shop", "liability")]


@pytest.fixture
async def service(variables: dict[str, str]) -> AsyncIterator[Service]:
    """Both processes at work."""
    settings = Settings(database_url=variables["CQRSKIT_DATABASE_URL"], index_prefix=variables["CQRSKIT_INDEX_PREFIX"])
    async with AsyncExitStack() as stack:
        service = Service(variables, await key_for(settings))
        await service.start(stack)
        await service.open_accounts()
        yield service


async def all_ended(dsn: str, hold_ids: set[UUID]) -> None:
    """Wait until each of these holds has ended."""

    async def ended() -> bool:
        return hold_ids <= (await asyncio.to_thread(ends_in, dsn)).keys()

    await eventually(ended, timeout_seconds=WAIT_SECONDS)


async def assert_ended_once(dsn: str) -> None:
    """Each hold has one end, no expiry was before its time, nothing waits any more, and the books are in order."""
    times = times_in(dsn)
    for hold_id, ends in ends_in(dsn).items():
        (end,) = ends
        assert (end.type == "Transfer.Expired") == (end.at >= times[hold_id]), (end, times[hold_id])
    async with ledger.open(Settings(database_url=dsn), executor=False) as runtime:

        async def nothing_waits() -> bool:
            status = await runtime.due_commands.status()
            return (status.waiting, status.parked) == (0, 0)

        await eventually(nothing_waits, timeout_seconds=WAIT_SECONDS)
        assert (await check_books(runtime, documents=False)).violations == []


async def test_of_capture_void_and_expiry_by_two_processes_one_wins_however_often_they_race(
    service: Service, postgres_dsn: str
) -> None:
    won: Counter[str] = Counter()
    for number in range(ROUNDS):
        holds = await asyncio.gather(*(service.hold(2) for _ in range(HOLDS)))
        capturing, voiding = service.apis if number % 2 else reversed(service.apis)
        replies = await asyncio.gather(
            *(
                _race(capturing, voiding, hold_id, expires_at, place)
                for place, (hold_id, expires_at) in enumerate(holds)
            )
        )
        await all_ended(postgres_dsn, {hold_id for hold_id, _ in holds})
        ends = await asyncio.to_thread(ends_in, postgres_dsn)
        for (hold_id, _), both in zip(holds, replies, strict=True):
            (end,) = ends[hold_id]
            winners = [reply.json()["status"] for reply in both if reply.status_code == 200]
            assert [STATUSES[each] for each in winners] == [end.type] * (end.type != "Transfer.Expired"), (end, winners)
            assert {reply.json()["code"] for reply in both if reply.status_code != 200} <= TOO_LATE
            won[end.type] += 1
    assert all(won[each] for each in ENDS), f"not every kind has won once: {won}"
    await assert_ended_once(postgres_dsn)


async def _race(
    capturing: httpx.AsyncClient, voiding: httpx.AsyncClient, hold_id: UUID, expires_at: datetime, place: int
) -> list[httpx.Response]:
    """Capture by one process and void by the other at once, a little before the time, at it, or after it."""
    moment = expires_at.timestamp() + SPREAD_SECONDS * (2 * place / HOLDS - 1)
    await asyncio.sleep(max(moment - datetime.now(UTC).timestamp(), 0))  # the race is for this moment
    return list(
        await asyncio.gather(
            capturing.post(f"/holds/{hold_id}/capture", json={}), voiding.post(f"/holds/{hold_id}/void")
        )
    )


async def test_holds_whose_time_came_while_all_processes_were_killed_expire_once_when_they_are_back(
    service: Service, postgres_dsn: str
) -> None:
    holds = await asyncio.gather(*(service.hold(2) for _ in range(40)), *(service.hold(600) for _ in range(3)))
    due, later = holds[:40], holds[40:]
    await service.kill()
    assert ends_in(postgres_dsn) == {}
    last = max(expires_at for _, expires_at in due)
    await eventually(lambda: datetime.now(UTC) > last)
    async with AsyncExitStack() as stack:
        await service.start(stack)
        refused = await service.apis[1].post(f"/holds/{due[0][0]}/capture", json={})
        assert (refused.status_code, refused.json()["code"]) == (422, "hold_expired")
        await all_ended(postgres_dsn, {hold_id for hold_id, _ in due})
        for hold_id, _ in later:
            assert (await service.apis[0].post(f"/holds/{hold_id}/void")).status_code == 200
        await assert_ended_once(postgres_dsn)
    assert Counter(end.type for (end,) in ends_in(postgres_dsn).values()) == {
        "Transfer.Expired": 40,
        "Transfer.Voided": 3,
    }
