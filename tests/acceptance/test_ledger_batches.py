"""Batches beside transfers that are posted alone: whatever the way, one transfer id has one outcome."""

from typing import Any

import httpx
import pytest

from cqrskit import Settings
from tests.acceptance.api import LedgerClient, transfer

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
