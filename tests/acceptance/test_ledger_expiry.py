"""Holds that expire by themselves: at their time, also after the service was down then, and with one end only."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from cqrskit import Settings
from cqrskit.due_commands import DueCommandRunner
from cqrskit.testing import eventually
from example_ledger.application import ledger as application
from example_ledger.checking import check_books
from tests.acceptance.api import LedgerClient, transfer
from tests.acceptance.conftest import ledger_client


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    """Expiry is a matter of the write path: one read store is enough."""
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix, port=0)


async def accounts(ledger: LedgerClient) -> tuple[str, str]:
    """Ann with 100, and a shop."""
    bank, ann, shop = await ledger.open("Bank", "asset"), await ledger.open("Ann"), await ledger.open("Shop")
    await ledger.post("/transfers", transfer(bank, ann, 100))
    return ann, shop


async def held(ledger: LedgerClient, ann: str, shop: str, seconds: int, amount: int = 60) -> str:
    body = {name: value for name, value in transfer(ann, shop, amount).items() if name != "transfer_id"}
    return str((await ledger.post("/holds", {**body, "expires_in_seconds": seconds}))["hold_id"])


async def status_of(ledger: LedgerClient, hold_id: str) -> str:
    return str((await ledger.get(f"/transfers/{hold_id}"))["status"])


async def expired(ledger: LedgerClient, hold_id: str) -> None:
    async def is_expired() -> bool:
        return await status_of(ledger, hold_id) == "expired"

    await eventually(is_expired, timeout_seconds=15)


async def waiting(ledger: LedgerClient) -> int:
    return (await ledger.runtime.due_commands.status()).waiting or 0


async def nothing_waits(ledger: LedgerClient) -> None:
    """A command that has run is removed a moment after its effect."""

    async def is_empty() -> bool:
        return await waiting(ledger) == 0

    await eventually(is_empty, timeout_seconds=15)


async def test_a_hold_expires_by_itself_and_its_money_is_free_again(ledger: LedgerClient) -> None:
    ann, shop = await accounts(ledger)
    hold_id = await held(ledger, ann, shop, 1)
    assert (await ledger.get(f"/accounts/{ann}"))["available"] == 40
    await expired(ledger, hold_id)
    ledger.position = await ledger.runtime.event_store.head()
    shown = await ledger.get(f"/accounts/{ann}")
    assert (shown["available"], shown["debits_pending"]) == (100, 0)
    assert (await check_books(ledger.runtime)).violations == []
    await nothing_waits(ledger)


async def test_a_hold_whose_time_came_while_the_service_was_down_expires_when_it_is_back(settings: Settings) -> None:
    async with ledger_client(settings) as ledger:
        ann, shop = await accounts(ledger)
        hold_id = await held(ledger, ann, shop, 1)
    await asyncio.sleep(1.2)  # nobody is there to wait for: the time itself has to pass
    async with ledger_client(settings) as ledger:
        await expired(ledger, hold_id)
        assert (await check_books(ledger.runtime)).violations == []


async def test_an_expiry_that_runs_before_its_time_since_the_clock_was_set_back_runs_again_at_it(
    ledger: LedgerClient, settings: Settings
) -> None:
    ann, shop = await accounts(ledger)
    hold_id = await held(ledger, ann, shop, 3)
    runtime = ledger.runtime
    before_the_step = DueCommandRunner(
        runtime.due_commands,
        runtime.executor,
        application.handlers,
        settings,
        clock=lambda: datetime.now(UTC) + timedelta(hours=1),
    )
    assert await before_the_step.run_due() == 1
    assert (await waiting(ledger), await status_of(ledger, hold_id)) == (1, "held")
    await expired(ledger, hold_id)
    await nothing_waits(ledger)


async def test_nothing_waits_for_a_hold_that_has_ended(ledger: LedgerClient) -> None:
    ann, shop = await accounts(ledger)
    captured, voided = await held(ledger, ann, shop, 600, 10), await held(ledger, ann, shop, 600, 10)
    assert await waiting(ledger) == 2
    await ledger.post(f"/holds/{captured}/capture", {}, expect=200)
    await ledger.post(f"/holds/{voided}/void", None, expect=200)
    assert await waiting(ledger) == 0


async def test_a_race_of_capture_void_and_expiry_has_one_winner(ledger: LedgerClient) -> None:
    ann, shop = await accounts(ledger)
    hold_ids = await asyncio.gather(*(held(ledger, ann, shop, 4, 1) for _ in range(40)))

    async def end(hold_id: str, number: int) -> list[httpx.Response]:
        """Both at once, some before the time, some at it, some after it."""
        await asyncio.sleep(number * 0.12)
        return list(
            await asyncio.gather(
                ledger.http.post(f"/holds/{hold_id}/capture", json={}), ledger.http.post(f"/holds/{hold_id}/void")
            )
        )

    ends = await asyncio.gather(*(end(hold_id, number) for number, hold_id in enumerate(hold_ids)))
    for hold_id, replies in zip(hold_ids, ends, strict=True):
        won = [reply for reply in replies if reply.status_code == 200]
        ledger.position = await ledger.runtime.event_store.head()
        if won:
            assert len(won) == 1
            body: dict[str, Any] = won[0].json()
            assert await status_of(ledger, hold_id) == body["status"]
        else:
            await expired(ledger, hold_id)
        codes = {reply.json()["code"] for reply in replies if reply.status_code != 200}
        assert codes <= {"hold_already_captured", "hold_already_voided", "hold_expired"}
    assert any(reply.status_code == 200 for replies in ends for reply in replies)
    assert any(all(reply.status_code != 200 for reply in replies) for replies in ends)
    assert (await check_books(ledger.runtime)).violations == []
    await nothing_waits(ledger)
