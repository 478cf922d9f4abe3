"""What is done with accounts over HTTP: freeze, close, limits, metadata; on both read stores."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from cqrskit import Query
from example_ledger.checking import check_books
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


async def test_a_change_under_a_key_is_done_once_and_its_retry_gets_the_first_reply(ledger: LedgerClient) -> None:
    ann = await ledger.open("Ann", overdraft_limit=0)
    changes: list[tuple[str, str, object]] = [
        ("PUT", "overdraft-limit", {"overdraft_limit": 5}),
        ("PUT", "metadata", {"metadata": {"city": "Bern"}}),
        ("POST", "freeze", None),
        ("POST", "unfreeze", None),
    ]
    first = [await _keyed(ledger, ann, *change) for change in changes]
    assert [reply.status_code for reply in first] == [200] * len(changes)
    assert not any("Idempotent-Replay" in reply.headers for reply in first)
    head = await ledger.runtime.event_store.head()
    again = [await _keyed(ledger, ann, *change) for change in changes]
    assert [reply.content for reply in again] == [reply.content for reply in first]
    assert {reply.headers["Idempotent-Replay"] for reply in again} == {"true"}
    assert await ledger.runtime.event_store.head() == head
    other = await _keyed(ledger, ann, "PUT", "overdraft-limit", {"overdraft_limit": 6})
    assert (other.status_code, other.json()["details"]["field"]) == (409, "overdraft_limit")
    ledger.position = head
    shown = await ledger.get(f"/accounts/{ann}")
    assert (shown["status"], shown["overdraft_limit"]) == ("open", 5)


async def _keyed(ledger: LedgerClient, account_id: str, method: str, step: str, body: object) -> httpx.Response:
    headers = {"Idempotency-Key": f"key of {step}"}
    return await ledger.http.request(method, f"/accounts/{account_id}/{step}", json=body, headers=headers)


async def test_what_is_so_already_is_200_and_writes_nothing(ledger: LedgerClient) -> None:
    ann = await ledger.open("Ann", metadata={"city": "Bern"}, overdraft_limit=5)
    head = await ledger.runtime.event_store.head()
    await put(ledger, f"/accounts/{ann}/overdraft-limit", {"overdraft_limit": 5})
    await put(ledger, f"/accounts/{ann}/metadata", {"metadata": {"city": "Bern"}})
    reply = await ledger.post(f"/accounts/{ann}/unfreeze", None, expect=200)
    assert (reply["position"], await ledger.runtime.event_store.head()) == (head, head)


async def test_the_books_of_accounts_that_were_changed_are_in_order(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    await put(ledger, f"/accounts/{ann}/overdraft-limit", {"overdraft_limit": 20})
    await ledger.post("/transfers", transfer(ann, bank, 20, effective_at="2026-03-01T12:00:00Z"))
    await ledger.post("/transfers", transfer(bank, ann, 20, effective_at="2026-02-01T12:00:00Z"))
    await put(ledger, f"/accounts/{ann}/overdraft-limit", {"overdraft_limit": 0})
    await put(ledger, f"/accounts/{ann}/metadata", {"metadata": {"city": "Bern"}})
    for step in ("freeze", "unfreeze", "close"):
        await ledger.post(f"/accounts/{ann}/{step}", None, expect=200)
    for projection in ledger.runtime.application.projections:
        await ledger.runtime.reader.search(projection, Query(limit=1), min_position=ledger.position)
    report = await check_books(ledger.runtime)
    assert report.violations == []
    assert (report.events, report.documents["daily_totals"]) == (ledger.position, 4)
