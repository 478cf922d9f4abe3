"""Entries, holds and reversals over HTTP: what the API answers and shows, on both read stores."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from cqrskit.testing import eventually
from example_ledger.checking import check_books
from example_ledger.holds import ExpireHold
from tests.acceptance.api import LedgerClient, transfer

REPLAY = "Idempotent-Replay"
LEGS = [{"account_id": str(uuid4()), "direction": direction, "amount": 1} for direction in ("debit", "credit")]


def hold(debit: str, credit: str, amount: int, **fields: object) -> dict[str, Any]:
    """The body of a hold with an id of its own, in EUR."""
    body = transfer(debit, credit, amount, **fields)
    return {"hold_id": body.pop("transfer_id"), **body}


async def accounts(ledger: LedgerClient) -> tuple[str, str, str]:
    """A bank, Ann with 100 and no overdraft, and a shop."""
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    shop = await ledger.open("Shop", overdraft_limit=0)
    await ledger.post("/transfers", transfer(bank, ann, 100))
    return bank, ann, shop


async def counters(ledger: LedgerClient, account_id: str) -> tuple[int, ...]:
    """Balance, available, and the four counters of an account."""
    shown = await ledger.get(f"/accounts/{account_id}")
    names = ("balance", "available", "debits_posted", "credits_posted", "debits_pending", "credits_pending")
    return tuple(shown[name] for name in names)


async def sent(
    ledger: LedgerClient, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """A command's reply, whatever it is."""
    reply = await ledger.http.post(path, json=body, headers=dict(headers or {}))
    ledger.position = max(ledger.position, int(reply.headers.get("Consistency-Position", 0)))
    return reply


async def test_a_hold_is_placed_shown_captured_in_part_and_reversed(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    body = hold(ann, shop, 60, description="table for two", expires_in_seconds=3_600)
    hold_id = body["hold_id"]
    placed = await ledger.post("/holds", body)
    assert (placed["hold_id"], placed["status"], placed["amount"]) == (hold_id, "held", 60)
    assert await counters(ledger, ann) == (100, 40, 0, 100, 60, 0)
    assert await counters(ledger, shop) == (0, 0, 0, 0, 0, 60)
    shown = await ledger.get(f"/transfers/{hold_id}")
    assert (shown["status"], shown["amount"], shown["held_amount"]) == ("held", 60, 60)
    assert shown["expires_at"] == placed["expires_at"]
    captured = await ledger.post(f"/holds/{hold_id}/capture", {"amount": 45}, expect=200)
    assert (captured["status"], captured["amount"]) == ("captured", 45)
    assert await counters(ledger, ann) == (55, 55, 45, 100, 0, 0)
    assert await counters(ledger, shop) == (45, 45, 0, 45, 0, 0)
    shown = await ledger.get(f"/transfers/{hold_id}")
    assert (shown["status"], shown["amount"], shown["held_amount"]) == ("captured", 45, 60)
    assert [leg["amount"] for leg in shown["legs"]] == [45, 45]
    line = (await ledger.get(f"/accounts/{shop}/statement"))["items"][0]
    assert (line["transfer_id"], line["amount"], line["balance"]) == (hold_id, 45, 45)
    assert (line["description"], line["counterparty_account_id"]) == ("table for two", ann)
    reversal = await ledger.post(f"/transfers/{hold_id}/reverse", {"amount": 5, "description": "cold soup"})
    assert (await ledger.get(f"/transfers/{hold_id}"))["status"] == "partially_reversed"
    assert (await ledger.get(f"/transfers/{reversal['reversal_id']}"))["reverses"] == hold_id
    await ledger.post(f"/transfers/{hold_id}/reverse", {})
    shown = await ledger.get(f"/transfers/{hold_id}")
    assert (shown["status"], shown["reversed_amount"]) == ("reversed", 45)
    assert await counters(ledger, ann) == (100, 100, 45, 145, 0, 0)
    (trial,) = (await ledger.get("/trial-balance"))["currencies"]
    assert (trial["debits"], trial["credits"], trial["balanced"]) == (190, 190, True)


async def test_a_voided_hold_gives_its_money_back(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    body = hold(ann, shop, 60)
    await ledger.post("/holds", body)
    refused = await ledger.post("/transfers", transfer(ann, shop, 41), expect=422)
    assert refused["code"] == "insufficient_funds"
    voided = await ledger.post(f"/holds/{body['hold_id']}/void", None, expect=200)
    assert (voided["status"], voided["amount"]) == ("voided", 0)
    assert await counters(ledger, ann) == (100, 100, 0, 100, 0, 0)
    assert (await ledger.get(f"/transfers/{body['hold_id']}"))["status"] == "voided"
    for path, code in (("void", "hold_already_voided"), ("capture", "hold_already_voided")):
        refused = await ledger.post(f"/holds/{body['hold_id']}/{path}", {}, expect=422)
        assert refused["code"] == code


async def test_a_hold_whose_time_is_over_is_refused_and_then_expired(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    body = hold(ann, shop, 60, expires_in_seconds=1)
    hold_id = body["hold_id"]
    await ledger.post("/holds", body)

    async def is_over() -> bool:
        reply = await sent(ledger, f"/holds/{hold_id}/capture", {"amount": 61})
        return bool(reply.json()["code"] == "hold_expired")

    await eventually(is_over)
    # It expires by itself as well (tests/acceptance/test_ledger_expiry.py); whoever comes second does nothing.
    result = await ledger.runtime.executor.execute(ExpireHold(hold_id=UUID(hold_id)))
    ledger.position = result.position
    assert await counters(ledger, ann) == (100, 100, 0, 100, 0, 0)
    assert (await ledger.get(f"/transfers/{hold_id}"))["status"] == "expired"
    again = await ledger.runtime.executor.execute(ExpireHold(hold_id=UUID(hold_id)))
    assert not again.appended


async def test_an_entry_moves_money_of_many_accounts_at_once(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    tax = await ledger.open("Tax")
    legs = [
        {"account_id": ann, "direction": "debit", "amount": 60},
        {"account_id": shop, "direction": "credit", "amount": 50},
        {"account_id": tax, "direction": "credit", "amount": 10},
    ]
    body = {"entry_id": str(uuid4()), "legs": legs, "currency": "EUR", "description": "sale 7", "reference": "S7"}
    first = await sent(ledger, "/entries", body)
    assert (first.status_code, first.json()["entry_id"]) == (201, body["entry_id"])
    again = await sent(ledger, "/entries", body)
    assert (again.status_code, again.content, again.headers[REPLAY]) == (200, first.content, "true")
    ledger.position = first.json()["position"]
    shown = await ledger.get(f"/transfers/{body['entry_id']}")
    assert (shown["status"], shown["amount"], shown["legs"]) == ("posted", 60, legs)
    found = await ledger.get("/transfers", {"account_id": tax, "q": "sale", "status": "posted"})
    assert [each["transfer_id"] for each in found["items"]] == [body["entry_id"]]
    (line,) = (await ledger.get(f"/accounts/{tax}/statement"))["items"]
    assert line["counterparty_account_id"] == ann
    assert (await ledger.get(f"/accounts/{ann}/statement"))["items"][0]["counterparty_account_id"] is None
    refused = await ledger.post("/entries", {**body, "description": "sale 8"}, expect=409)
    assert (refused["code"], refused["details"]["field"]) == ("transfer_conflict", "description")
    legs[0] = {**legs[0], "amount": 61}
    refused = await ledger.post("/entries", {"legs": legs, "currency": "EUR"}, expect=422)
    assert refused["code"] == "unbalanced_entry"
    reversal = await ledger.post(f"/transfers/{body['entry_id']}/reverse", {"effective_at": "2026-01-01T00:00:00Z"})
    shown = await ledger.get(f"/transfers/{reversal['reversal_id']}")
    assert (len(shown["legs"]), shown["effective_at"]) == (3, "2026-01-01T00:00:00Z")
    assert await counters(ledger, ann) == (100, 100, 60, 160, 0, 0)


async def test_transfers_are_listed_by_what_has_become_of_them(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    states = ("held", "captured", "voided", "partially_reversed", "reversed")
    ids = {}
    for state in states:
        body = hold(ann, shop, 10)
        ids[state] = body["hold_id"]
        await ledger.post("/holds", body)
    for state in states[1:]:
        path = "void" if state == "voided" else "capture"
        await ledger.post(f"/holds/{ids[state]}/{path}", {}, expect=200)
    await ledger.post(f"/transfers/{ids['partially_reversed']}/reverse", {"amount": 1})
    await ledger.post(f"/transfers/{ids['reversed']}/reverse", {})
    for state in states:
        found = await ledger.get("/transfers", {"status": state})
        assert [each["transfer_id"] for each in found["items"]] == [ids[state]]
    assert len((await ledger.get("/transfers", {"status": "posted"}))["items"]) == 3
    await ledger.get("/transfers", {"status": "lost"}, expect=400)
    report = await check_books(ledger.runtime)
    assert report.violations == []
    assert report.transfers == 8


async def test_each_command_under_a_key_has_one_effect_and_one_reply(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    held, voided = hold(ann, shop, 20), hold(ann, shop, 30)
    anonymous = {name: value for name, value in hold(ann, shop, 10).items() if name != "hold_id"}
    await ledger.post("/holds", held)
    await ledger.post("/holds", voided)
    legs = [
        {"account_id": ann, "direction": "debit", "amount": 1},
        {"account_id": shop, "direction": "credit", "amount": 1},
    ]
    for path, body, status in (
        ("/holds", anonymous, 201),
        (f"/holds/{held['hold_id']}/capture", {"amount": 5}, 200),
        (f"/holds/{voided['hold_id']}/void", None, 200),
        (f"/transfers/{held['hold_id']}/reverse", {"amount": 1}, 201),
        ("/entries", {"legs": legs, "currency": "EUR"}, 201),
    ):
        key = {"Idempotency-Key": f"key of {path}"}
        first = await sent(ledger, path, body, key)
        assert (first.status_code, REPLAY in first.headers) == (status, False), first.text
        again = await sent(ledger, path, body, key)
        assert (again.status_code, again.content, again.headers[REPLAY]) == (200, first.content, "true")
        assert again.headers["Consistency-Position"] == first.headers["Consistency-Position"]
    other = await sent(
        ledger,
        f"/holds/{held['hold_id']}/capture",
        {"amount": 6},
        {"Idempotency-Key": f"key of /holds/{held['hold_id']}/capture"},
    )
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert await counters(ledger, shop) == (5, 5, 1, 6, 0, 10)


async def test_a_reversal_is_known_by_its_id(ledger: LedgerClient) -> None:
    bank, ann, shop = await accounts(ledger)
    paid = transfer(ann, shop, 50)
    await ledger.post("/transfers", paid)
    path, body = f"/transfers/{paid['transfer_id']}/reverse", {"reversal_id": str(uuid4()), "amount": 20}
    first = await sent(ledger, path, body)
    again = await sent(ledger, path, body)
    assert (first.status_code, again.status_code, again.content) == (201, 200, first.content)
    refused = await ledger.post(path, {**body, "amount": 21}, expect=409)
    assert (refused["code"], refused["details"]["field"]) == ("transfer_conflict", "amount")
    refused = await ledger.post(
        "/transfers", {**transfer(bank, ann, 1), "transfer_id": body["reversal_id"]}, expect=409
    )
    assert (refused["code"], refused["details"]["field"]) == ("transfer_conflict", "command")
    refused = await ledger.post(path, {"amount": 31}, expect=422)
    assert (refused["code"], refused["details"]["remaining"]) == ("exceeds_original", 30)
    assert await counters(ledger, ann) == (70, 70, 50, 120, 0, 0)


async def test_of_many_captures_and_reversals_at_once_no_more_than_there_is_succeed(ledger: LedgerClient) -> None:
    _, ann, shop = await accounts(ledger)
    body = hold(ann, shop, 60)
    await ledger.post("/holds", body)
    path = f"/holds/{body['hold_id']}/capture"
    replies = await asyncio.gather(*(sent(ledger, path, {"amount": 1 + each}) for each in range(30)))
    assert sorted(each.status_code for each in replies) == [200] + [422] * 29
    (captured,) = [each.json()["amount"] for each in replies if each.status_code == 200]
    assert {each.json()["code"] for each in replies if each.status_code == 422} == {"hold_already_captured"}
    path = f"/transfers/{body['hold_id']}/reverse"
    replies = await asyncio.gather(*(sent(ledger, path, {"amount": 1}) for _ in range(70)))
    assert [each.status_code for each in replies].count(201) == captured
    assert {each.json()["code"] for each in replies if each.status_code != 201} == {"exceeds_original"}
    assert (await check_books(ledger.runtime, documents=False)).violations == []


async def test_unknown_holds_and_transfers_are_not_found(ledger: LedgerClient) -> None:
    nobody = uuid4()
    for path, code in (
        (f"/holds/{nobody}/capture", "hold_not_found"),
        (f"/holds/{nobody}/void", "hold_not_found"),
        (f"/transfers/{nobody}/reverse", "transfer_not_found"),
    ):
        assert (await ledger.post(path, {}, expect=404))["code"] == code
    _, ann, shop = await accounts(ledger)
    body = hold(ann, shop, 10)
    await ledger.post("/holds", body)
    refused = await ledger.post(f"/holds/{body['hold_id']}/capture", {"amount": 11}, expect=422)
    assert refused["code"] == "exceeds_held_amount"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/holds", {"expires_in_seconds": 0}, "expires_in_seconds"),
        ("/holds", {"effective_at": "1950-03-01T12:00:00Z"}, "effective_at"),
        (f"/holds/{uuid4()}/capture", {"amount": "5"}, "amount"),
        (f"/holds/{uuid4()}/capture", {"effective_at": "1950-03-01T12:00:00Z"}, "effective_at"),
        (f"/transfers/{uuid4()}/reverse", {"effective_at": "1950-03-01T12:00:00Z"}, "effective_at"),
        (f"/transfers/{uuid4()}/reverse", {"colour": "red"}, "colour"),
        ("/entries", {"legs": []}, "legs"),
        ("/entries", {"effective_at": "1950-03-01T12:00:00Z", "legs": LEGS}, "effective_at"),
        ("/entries", {"legs": [{"account_id": str(uuid4()), "direction": "up", "amount": 1}] * 2}, "direction"),
        ("/entries", {"legs": [{"account_id": str(uuid4()), "direction": "debit", "amount": 1, "tax": 1}] * 2}, "tax"),
    ],
)
async def test_a_malformed_body_is_a_bad_request_that_names_the_field(
    ledger: LedgerClient, path: str, body: dict[str, object], field: str
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/holds": hold(str(uuid4()), str(uuid4()), 5),
        "/entries": {"currency": "EUR"},
    }
    found = await ledger.post(path, {**bodies.get(path, {}), **body}, expect=400)
    assert found["errors"][0]["field"].rpartition(".")[2] == field


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
async def test_a_body_that_has_nothing_to_say_may_be_left_out(ledger: LedgerClient, body: bytes) -> None:
    _, ann, shop = await accounts(ledger)
    captured, voided = hold(ann, shop, 60), hold(ann, shop, 1)
    for each in (captured, voided):
        await ledger.post("/holds", each)
    content_type = {"Content-Type": "application/json"} if body else {}
    capture, reverse = f"/holds/{captured['hold_id']}/capture", f"/transfers/{captured['hold_id']}/reverse"
    for path, status in ((capture, 200), (reverse, 201), (f"/holds/{voided['hold_id']}/void", 200)):
        headers = {**content_type, "Idempotency-Key": path}
        first, again = [await ledger.http.post(path, content=body, headers=headers) for _ in range(2)]
        assert (first.status_code, again.status_code, again.content) == (status, 200, first.content)
    for path in (capture, reverse):
        for wrong in (b"{", b"[]", b"5", b'{"amount": "5"}', b'{"amounts": 5}'):
            assert (await ledger.http.post(path, content=wrong, headers=content_type)).status_code == 400
