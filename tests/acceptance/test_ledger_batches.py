"""Batches beside transfers that are posted alone: whatever the way, one transfer id has one outcome."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import CuttableWire, every, says
from example_ledger.accounts import OpenAccount
from tests.acceptance.api import LedgerClient, transfer
from tests.acceptance.conftest import ledger_client

REPLAY = "Idempotent-Replay"


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    """What a batch decides does not depend on the read store."""
    return Settings(database_url=postgres_dsn, port=0)


async def accounts(ledger: LedgerClient) -> tuple[str, str]:
    """A bank, and somebody without money and without overdraft."""
    return await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)


async def alone(ledger: LedgerClient, body: dict[str, Any]) -> httpx.Response:
    """The reply to a transfer on its own."""
    return await ledger.http.post("/transfers", json=body)


async def together(ledger: LedgerClient, *bodies: dict[str, Any], mode: str = "atomic") -> httpx.Response:
    """The reply to a batch."""
    reply = await ledger.http.post("/transfers/batch", json={"mode": mode, "transfers": bodies})
    assert reply.status_code == 200, reply.text
    return reply


def codes(reply: httpx.Response) -> list[str]:
    """What became of each transfer: its status or its code."""
    return [each.get("code") or each["status"] for each in reply.json()["results"]]


async def test_a_moment_out_of_bounds_in_a_batch_is_told_with_the_transfer_and_the_field(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    bodies = [transfer(bank, ann, 5), transfer(bank, ann, 5, effective_at="2262-01-01T00:00:00Z")]
    found = await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": bodies}, expect=400)
    message = "must be from 1970-01-01 to 2261-12-31"
    assert found["errors"] == [{"field": "transfers[1].effective_at", "in": "body", "message": message}]


async def test_what_was_refused_alone_is_refused_in_an_atomic_batch_for_the_reason_of_then(
    ledger: LedgerClient,
) -> None:
    bank, ann = await accounts(ledger)
    refused, other = transfer(ann, bank, 5), transfer(bank, ann, 1)
    first = await alone(ledger, refused)
    assert (first.status_code, first.json()["code"]) == (422, "insufficient_funds")
    await ledger.post("/transfers", transfer(bank, ann, 100))
    for _ in range(2):
        reply = await together(ledger, other, refused)
        assert codes(reply) == ["batch_aborted", "insufficient_funds"]
    assert codes(await together(ledger, other, refused, mode="independent")) == ["posted", "insufficient_funds"]
    again = await alone(ledger, refused)
    assert (again.status_code, again.content, again.headers[REPLAY]) == (422, first.content, "true")


async def test_an_aborted_batch_leaves_all_its_ids_free_that_of_the_culprit_too(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    good, culprit = transfer(bank, ann, 5), transfer(ann, bank, 50)
    assert codes(await together(ledger, good, culprit)) == ["batch_aborted", "insufficient_funds"]
    await ledger.post("/transfers", transfer(bank, ann, 100))
    for body in (culprit, good):
        reply = await alone(ledger, body)
        assert (reply.status_code, REPLAY in reply.headers) == (201, False)


async def test_what_an_atomic_batch_has_posted_is_a_replay_alone_and_in_another_batch(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    bodies = [transfer(bank, ann, 5), transfer(bank, ann, 6)]
    first = await together(ledger, *bodies)
    assert (codes(first), REPLAY in first.headers) == (["posted", "posted"], False)
    await ledger.post(f"/transfers/{bodies[1]['transfer_id']}/reverse", {})
    again = await together(ledger, *bodies)
    assert (again.content, again.headers[REPLAY]) == (first.content, "true")
    for body in bodies:
        retried = await alone(ledger, body)
        assert (retried.status_code, retried.headers[REPLAY]) == (200, "true")
        assert retried.json() == {
            "transfer_id": body["transfer_id"],
            "status": "posted",
            "position": first.json()["position"],
        }
    longer = await together(ledger, *bodies, transfer(bank, ann, 7))
    assert (codes(longer), REPLAY in longer.headers) == (["posted"] * 3, False)
    ledger.position = longer.json()["position"]
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 12
    other = await alone(ledger, {**bodies[0], "amount": 6})
    assert (other.status_code, other.json()["code"], other.json()["details"]["field"]) == (
        409,
        "transfer_conflict",
        "amount",
    )


async def test_another_content_under_an_id_aborts_a_batch_whatever_became_of_the_first(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    posted, refused = transfer(bank, ann, 5), transfer(ann, bank, 50)
    assert (await alone(ledger, posted)).status_code == 201
    assert (await alone(ledger, refused)).status_code == 422
    for body in (posted, refused):
        changed = await together(ledger, transfer(bank, ann, 1), {**body, "amount": 4})
        assert codes(changed) == ["batch_aborted", "transfer_conflict"]
        impossible = await together(ledger, {**body, "amount": 0}, transfer(bank, ann, 1))
        assert codes(impossible) == ["invalid_amount", "batch_aborted"]
    twice = transfer(bank, ann, 3)
    assert codes(await together(ledger, twice, {**twice, "amount": 4})) == ["batch_aborted", "transfer_conflict"]
    assert codes(await together(ledger, twice, twice)) == ["posted", "posted"]
    assert (await alone(ledger, twice)).headers[REPLAY] == "true"


async def test_a_batch_that_comes_too_late_in_part_names_what_is_posted_and_what_may_be_sent_again(
    postgres_dsn: str,
) -> None:
    """The ids are the server's: nobody but this reply could tell them."""
    async with CuttableWire(postgres_dsn) as wire:
        settings = Settings(database_url=wire.url, port=0, batch_size_max=2, command_timeout_seconds=2.0)
        async with ledger_client(settings) as ledger:
            bank, ann = await accounts(ledger)
            bodies = [transfer(bank, ann, 1) for _ in range(7)]
            for body in bodies:
                del body["transfer_id"]
            held = wire.hold_at(every(3, says("UPDATE log_head")))
            reply = await together(ledger, *bodies, mode="independent")
            held.release()
            statuses = [each["status"] for each in reply.json()["results"]]
            assert set(statuses) == {"posted", "unsettled"}, statuses
            found = reply.json()["results"]
            assert {each.get("code") for each in found} <= {None, "deadline_exceeded", "commit_unknown"}
            named = [{**body, "transfer_id": each["transfer_id"]} for body, each in zip(bodies, found, strict=True)]
            again = await together(ledger, *named, mode="independent")
            assert codes(again) == ["posted"] * 7
            ledger.position = again.json()["position"]
            assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 7


async def test_a_batch_of_which_nothing_was_decided_says_that_nothing_was_changed(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0, command_timeout_seconds=1.0)
    async with ledger_client(settings) as ledger:
        bank, ann = await accounts(ledger)
        head = await ledger.runtime.event_store.head()
        async with await psycopg.AsyncConnection.connect(postgres_dsn) as holder:
            await holder.execute("SELECT position FROM log_head FOR UPDATE")
            opening = OpenAccount(name="A", type="asset", currency="EUR")
            first = asyncio.create_task(ledger.runtime.executor.execute(opening, timeout_seconds=30.0))
            await asyncio.sleep(0)
            body = {"mode": "independent", "transfers": [transfer(bank, ann, 1)] * 3}
            reply = await ledger.http.post("/transfers/batch", json=body)
        assert (reply.status_code, reply.json()["code"]) == (503, "deadline_exceeded")
        await first
        assert await ledger.runtime.event_store.head() == head + 1


@pytest.mark.parametrize("mode", ["atomic", "independent"])
async def test_a_batch_again_is_a_replay_also_when_its_receipts_are_gone(ledger: LedgerClient, mode: str) -> None:
    bank, ann = await accounts(ledger)
    posted, refused = [transfer(bank, ann, 5), transfer(bank, ann, 6)], transfer(ann, bank, 50)
    first = await together(ledger, *posted, mode=mode)
    assert codes(await together(ledger, *posted, refused, mode="independent"))[2] == "insufficient_funds"
    assert await ledger.runtime.event_store.prune_receipts(datetime.now(UTC) + timedelta(days=1), 1_000) > 0
    again = await together(ledger, *posted, mode=mode)
    assert (again.content, again.headers[REPLAY]) == (first.content, "true")
    await ledger.runtime.event_store.prune_receipts(datetime.now(UTC) + timedelta(days=1), 1_000)
    longer = await together(ledger, *posted, transfer(bank, ann, 7), mode=mode)
    assert (codes(longer), REPLAY in longer.headers) == (["posted"] * 3, False)
    decided_anew = await together(ledger, *posted, {**refused, "amount": 5}, mode="independent")
    assert (codes(decided_anew), REPLAY in decided_anew.headers) == (["posted"] * 3, False)
