"""Retries of the ledger's commands: by their ids, by an Idempotency-Key, and by both."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.api import LedgerClient, transfer

KEY, REPLAY = "Idempotency-Key", "Idempotent-Replay"


async def sent(ledger: LedgerClient, path: str, body: object, key: str | None = None) -> httpx.Response:
    """A command's reply, whatever it is."""
    return await ledger.http.post(path, json=body, headers={} if key is None else {KEY: key})


def without_id(body: dict[str, Any]) -> dict[str, Any]:
    """A transfer that leaves its id to the server."""
    return {name: value for name, value in body.items() if name != "transfer_id"}


async def accounts(ledger: LedgerClient) -> tuple[str, str]:
    """A bank, and somebody without money and without overdraft."""
    return await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)


async def test_a_retry_under_a_key_gets_the_first_reply_though_the_server_makes_the_id(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    for path, body in (
        ("/transfers", without_id(transfer(bank, ann, 5))),
        ("/accounts", {"name": "Till", "type": "asset", "currency": "EUR"}),
    ):
        first = await sent(ledger, path, body, f"key of {path}")
        await ledger.post("/transfers", transfer(bank, ann, 1))
        again = await sent(ledger, path, body, f"key of {path}")
        assert (first.status_code, again.status_code, again.content) == (201, 200, first.content)
        assert (REPLAY in first.headers, again.headers[REPLAY]) == (False, "true")
        assert again.headers["Consistency-Position"] == first.headers["Consistency-Position"]


async def test_one_key_for_two_transfers_is_a_conflict_though_each_has_its_own_id(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    body = transfer(bank, ann, 5)
    await sent(ledger, "/transfers", body, "k")
    conflict = await sent(ledger, "/transfers", {**body, "transfer_id": str(uuid4())}, "k")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    assert conflict.json()["details"]["field"] == "transfer_id"
    conflict = await sent(ledger, "/transfers", {**body, "amount": 6}, "k")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "transfer_conflict")
    assert conflict.json()["details"]["field"] == "amount"
    conflict = await sent(ledger, "/accounts", {"name": "Till", "type": "asset", "currency": "EUR"}, "k")
    assert (conflict.status_code, conflict.json()["details"]["field"]) == (409, "command")


@pytest.mark.parametrize("keys", [(None, "k"), ("k", None), ("k", "other")])
async def test_a_refused_transfer_stays_refused_under_its_id_whatever_other_key_is_sent(
    ledger: LedgerClient, keys: tuple[str | None, str | None]
) -> None:
    bank, ann = await accounts(ledger)
    body = transfer(ann, bank, 5)
    first = await sent(ledger, "/transfers", body, keys[0])
    assert (first.status_code, first.json()["code"]) == (422, "insufficient_funds")
    await ledger.post("/transfers", transfer(bank, ann, 100))
    for key in (*keys, None):
        again = await sent(ledger, "/transfers", body, key)
        assert (again.status_code, again.content, again.headers[REPLAY]) == (422, first.content, "true")
    assert (await sent(ledger, "/transfers", {**body, "transfer_id": str(uuid4())})).status_code == 201


@pytest.mark.parametrize("frozen_first", [True, False])
async def test_the_refusal_of_an_id_with_other_content_is_remembered_under_the_callers_key(
    ledger: LedgerClient, frozen_first: bool
) -> None:
    bank, ann = await accounts(ledger)
    body = transfer(bank, ann, 5)
    await sent(ledger, "/transfers", body)
    if frozen_first:
        await sent(ledger, f"/accounts/{ann}/freeze", {})
    first = await sent(ledger, "/transfers", {**body, "amount": 6}, "k")
    await sent(ledger, f"/accounts/{ann}/{'unfreeze' if frozen_first else 'freeze'}", {})
    again = await sent(ledger, "/transfers", {**body, "amount": 6}, "k")
    code = "account_frozen" if frozen_first else "transfer_conflict"
    assert (first.status_code, first.json()["code"], REPLAY in first.headers) == (again.status_code, code, False)
    assert (again.json()["code"], again.headers[REPLAY]) == (code, "true")
    assert again.json()["details"] == first.json()["details"]
    without_key = await sent(ledger, "/transfers", {**body, "amount": 6})
    assert (without_key.json()["code"], REPLAY in without_key.headers) == (
        "transfer_conflict" if frozen_first else "account_frozen",
        False,
    )
    original = await sent(ledger, "/transfers", body, "k2")
    assert (original.status_code, original.headers[REPLAY]) == (200, "true")


async def test_a_key_that_came_with_a_retry_belongs_to_its_transfer_too(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    body = transfer(bank, ann, 5)
    first = await sent(ledger, "/transfers", body)
    assert (await sent(ledger, "/transfers", body, "k")).content == first.content
    conflict = await sent(ledger, "/transfers", {**body, "transfer_id": str(uuid4())}, "k")
    assert (conflict.status_code, conflict.json()["details"]["field"]) == (409, "transfer_id")


async def test_an_atomic_batch_under_a_key_has_one_reply_posted_or_not(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    good = [without_id(transfer(bank, ann, 5)), transfer(ann, bank, 5)]
    bad = [transfer(bank, ann, 5), transfer(ann, bank, 1_000_000), transfer(bank, ann, 5)]
    for key, transfers in (("good", good), ("bad", bad)):
        body = {"mode": "atomic", "transfers": transfers}
        first = await sent(ledger, "/transfers/batch", body, key)
        await ledger.post("/transfers", transfer(bank, ann, 1_000))
        again = await sent(ledger, "/transfers/batch", body, key)
        assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
        assert (REPLAY in first.headers, again.headers[REPLAY]) == (False, "true")
        assert again.headers["Consistency-Position"] == first.headers["Consistency-Position"]
    codes = [each["code"] for each in json.loads(first.content)["results"]]
    assert codes == ["batch_aborted", "insufficient_funds", "batch_aborted"]
    other = await sent(ledger, "/transfers/batch", {"mode": "atomic", "transfers": good[1:]}, "good")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert other.json()["details"]["field"] == "transfers"


async def test_an_independent_batch_again_has_the_first_reply_with_refusals_and_position(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    mixed = [transfer(bank, ann, 5), transfer(ann, bank, 100), transfer(ann, bank, 0)]
    for key, transfers in ((None, mixed), ("k", [without_id(each) for each in mixed]), (None, mixed[1:])):
        body = {"mode": "independent", "transfers": transfers}
        first = await sent(ledger, "/transfers/batch", body, key)
        await ledger.post("/transfers", transfer(bank, ann, 1_000))
        again = await sent(ledger, "/transfers/batch", body, key)
        assert (first.status_code, again.content, again.headers[REPLAY]) == (200, first.content, "true")
    statuses = [each["status"] for each in json.loads(first.content)["results"]]
    assert statuses == ["rejected", "rejected"]


async def test_one_key_for_two_independent_batches_is_a_conflict_in_each_transfer_that_differs(
    ledger: LedgerClient,
) -> None:
    bank, ann = await accounts(ledger)
    first = [transfer(bank, ann, 5), transfer(bank, ann, 6)]
    second = [first[0], transfer(bank, ann, 6), transfer(bank, ann, 7)]
    await sent(ledger, "/transfers/batch", {"mode": "independent", "transfers": first}, "k" * 255)
    reply = await sent(ledger, "/transfers/batch", {"mode": "independent", "transfers": second}, "k" * 255)
    assert REPLAY not in reply.headers
    assert [each.get("code") for each in reply.json()["results"]] == [None, "idempotency_conflict", None]
    ledger.position = reply.json()["position"]
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 18


async def test_a_batch_is_one_conversation_with_the_callers_id_for_it(ledger: LedgerClient) -> None:
    bank, ann = await accounts(ledger)
    body = {"mode": "independent", "transfers": [transfer(bank, ann, 5) for _ in range(3)]}
    reply = await ledger.http.post("/transfers/batch", json=body, headers={"X-Correlation-ID": "payroll-7"})
    assert reply.headers["X-Correlation-ID"] == "payroll-7"
    block = await ledger.runtime.event_store.read(2, 100)
    assert {json.loads(bytes(each.metadata))["correlation_id"] for each in block.events} == {"payroll-7"}
    assert len(block.events) == 9
