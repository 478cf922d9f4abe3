"""What is done with accounts over HTTP: freeze, close, limits, metadata; on both read stores."""

from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.api import LedgerClient, transfer


async def put(ledger: LedgerClient, path: str, body: object, *, expect: int = 200) -> Any:
    reply = await ledger.http.put(path, json=body)
    assert reply.status_code == expect, reply.text
    ledger.position = max(ledger.position, int(reply.headers.get("Consistency-Position", 0)))
    return reply.json()


async def test_an_account_is_frozen_unfrozen_and_closed_and_shown_so(ledger: LedgerClient) -> None:
    ann = await ledger.open("Ann")
    for step, status in (("freeze", "frozen"), ("freeze", "frozen"), ("unfreeze", "open"), ("close", "closed")):
        reply = await ledger.post(f"/accounts/{ann}/{step}", None, expect=200)
        assert (reply["account_id"], set(reply)) == (ann, {"account_id", "position"})
        assert (await ledger.get(f"/accounts/{ann}"))["status"] == status
        assert [each["account_id"] for each in (await ledger.get("/accounts", {"status": status}))["items"]] == [ann]
    assert (await ledger.post(f"/accounts/{ann}/unfreeze", None, expect=422))["code"] == "account_closed"


async def test_money_is_refused_by_the_state_of_an_account(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    await ledger.post("/transfers", transfer(bank, ann, 10))
    assert (await ledger.post(f"/accounts/{ann}/close", None, expect=422))["code"] == "account_not_empty"
    await ledger.post(f"/accounts/{ann}/freeze", None, expect=200)
    assert (await ledger.post("/transfers", transfer(bank, ann, 1), expect=422))["code"] == "account_frozen"
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 10


async def test_a_limit_and_metadata_are_replaced_and_the_account_is_found_by_them(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    assert (await ledger.post("/transfers", transfer(ann, bank, 5), expect=422))["code"] == "insufficient_funds"
    await put(ledger, f"/accounts/{ann}/overdraft-limit", {"overdraft_limit": 5})
    await ledger.post("/transfers", transfer(ann, bank, 5))
    refused = await put(ledger, f"/accounts/{ann}/overdraft-limit", {"overdraft_limit": 4}, expect=422)
    assert refused["code"] == "limit_below_use"
    await put(ledger, f"/accounts/{ann}/metadata", {"metadata": {"city": "Bern"}})
    shown = await ledger.get(f"/accounts/{ann}")
    assert (shown["overdraft_limit"], shown["metadata"]) == (5, {"city": "Bern"})
    assert [each["account_id"] for each in (await ledger.get("/accounts", {"q": "bern"}))["items"]] == [ann]


@pytest.mark.parametrize("step", ["freeze", "unfreeze", "close"])
async def test_an_account_that_is_not_there_is_404(ledger: LedgerClient, step: str) -> None:
    assert (await ledger.post(f"/accounts/{uuid4()}/{step}", None, expect=404))["code"] == "account_not_found"


@pytest.mark.parametrize("body", [{}, {"overdraft_limit": -1}, {"overdraft_limit": "5"}, {"limit": 5}, []])
async def test_a_limit_that_is_none_is_400(ledger: LedgerClient, body: object) -> None:
    ann = await ledger.open("Ann")
    await put(ledger, f"/accounts/{ann}/overdraft-limit", body, expect=400)
    assert (await ledger.get(f"/accounts/{ann}"))["overdraft_limit"] is None
