"""The ledger's API: what it answers, on both read stores."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from example_ledger.money import AMOUNT_MAX
from tests.acceptance.api import LedgerClient, transfer


async def test_an_account_is_opened_shown_and_listed(ledger: LedgerClient) -> None:
    account_id = await ledger.open("Ann's Savings", "liability", metadata={"city": "Bern"}, overdraft_limit=100)
    shown = await ledger.get(f"/accounts/{account_id}")
    assert shown == {
        "account_id": account_id,
        "name": "Ann's Savings",
        "type": "liability",
        "currency": "EUR",
        "status": "open",
        "balance": 0,
        "available": 0,
        "debits_posted": 0,
        "credits_posted": 0,
        "debits_pending": 0,
        "credits_pending": 0,
        "overdraft_limit": 100,
        "metadata": {"city": "Bern"},
        "as_of_position": 1,
    }
    del shown["as_of_position"]
    for parameters in (
        {},
        {"q": "SAVINGS"},
        {"q": "bern ann"},
        {"type": "liability", "currency": "EUR", "status": "open"},
    ):
        assert await ledger.get("/accounts", parameters) == {"items": [shown], "next": None, "as_of_position": 1}
    for parameters in ({"q": "sav"}, {"q": "zurich"}, {"type": "asset"}, {"currency": "USD"}, {"status": "closed"}):
        assert (await ledger.get("/accounts", parameters))["items"] == []


async def test_opening_again_is_a_replay_and_another_account_of_the_id_a_conflict(ledger: LedgerClient) -> None:
    body = {"account_id": str(uuid4()), "name": "Till", "type": "asset", "currency": "EUR"}
    first = await ledger.post("/accounts", body)
    again = await ledger.http.post("/accounts", json=body)
    assert (again.status_code, again.json(), again.headers["Idempotent-Replay"]) == (200, first, "true")
    other = await ledger.post("/accounts", {**body, "name": "Tilly"}, expect=409)
    assert other["code"] == "already_exists"


async def test_a_transfer_moves_money_on_both_sides(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    body = transfer(bank, ann, 500, description="First money", reference="INV-7", metadata={"k": "v"})
    posted = await ledger.post("/transfers", body)
    assert posted == {"transfer_id": body["transfer_id"], "status": "posted", "position": 5}
    for account_id, counters in ((bank, (500, 500, 0)), (ann, (500, 0, 500))):
        shown = await ledger.get(f"/accounts/{account_id}")
        assert (shown["balance"], shown["debits_posted"], shown["credits_posted"]) == counters
        assert shown["available"] == shown["balance"]
    shown = await ledger.get(f"/transfers/{body['transfer_id']}")
    assert shown.pop("recorded_at") == shown.pop("effective_at")
    assert shown == {
        "transfer_id": body["transfer_id"],
        "status": "posted",
        "amount": 500,
        "currency": "EUR",
        "legs": [
            {"account_id": bank, "direction": "debit", "amount": 500},
            {"account_id": ann, "direction": "credit", "amount": 500},
        ],
        "description": "First money",
        "reference": "INV-7",
        "metadata": {"k": "v"},
        "position": 5,
        "as_of_position": 5,
    }


async def test_an_identical_retry_gives_the_first_reply_for_ever(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    body = transfer(bank, ann, 500, effective_at="2026-03-01T12:00:00+02:00")
    first = await ledger.http.post("/transfers", json=body)
    await ledger.post("/transfers", transfer(ann, bank, 500))
    for _ in range(2):
        again = await ledger.http.post("/transfers", json=body)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["Idempotent-Replay"] == "true"
        assert again.headers["Consistency-Position"] == first.headers["Consistency-Position"]
    same_moment = await ledger.http.post("/transfers", json={**body, "effective_at": "2026-03-01T10:00:00Z"})
    assert same_moment.status_code == 200
    assert (await ledger.get(f"/accounts/{ann}"))["credits_posted"] == 500


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 501},
        {"description": "other"},
        {"reference": "other"},
        {"effective_at": "2026-03-01T12:00:00Z"},
        {"metadata": {"a": "b"}},
    ],
)
async def test_other_content_under_the_same_id_is_a_conflict_that_names_the_field(
    ledger: LedgerClient, change: dict[str, object]
) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    body = transfer(bank, ann, 500)
    await ledger.post("/transfers", body)
    refused = await ledger.post("/transfers", {**body, **change}, expect=409)
    assert refused["code"] == "transfer_conflict"
    assert refused["details"]["field"] == next(iter(change))


async def test_refusals_change_nothing(ledger: LedgerClient) -> None:
    bank = await ledger.open("Bank", "asset", overdraft_limit=0)
    ann = await ledger.open("Ann", overdraft_limit=50)
    dollars = await ledger.open("Dollars", currency="USD")
    stranger = str(uuid4())
    await ledger.post("/transfers", transfer(bank, ann, 100))
    refused: list[tuple[dict[str, Any], str]] = [
        (transfer(bank, ann, 0), "invalid_amount"),
        (transfer(bank, ann, -5), "invalid_amount"),
        (transfer(bank, ann, 2**63), "invalid_amount"),
        (transfer(bank, bank, -5), "invalid_amount"),
        (transfer(stranger, stranger, 1), "same_account"),
        (transfer(bank, stranger, 1, currency="USD"), "account_not_found"),
        (transfer(bank, dollars, 1), "currency_mismatch"),
        (transfer(bank, ann, 1, currency="USD"), "currency_mismatch"),
        (transfer(ann, bank, 101), "insufficient_funds"),
        (transfer(ann, bank, 151), "insufficient_funds"),
        (transfer(bank, ann, AMOUNT_MAX), "amount_overflow"),
    ]
    for body, code in refused:
        found = await ledger.post("/transfers", body, expect=422)
        assert found["code"] == code, found
        assert (await ledger.get(f"/transfers/{body['transfer_id']}", expect=404))["code"] == "transfer_not_found"
    assert await ledger.runtime.event_store.head() == 6
    await ledger.post("/transfers", transfer(ann, await ledger.open("Shop"), 150))
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == -50


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "5"}, "amount"),
        ({"amount": 5.0}, "amount"),
        ({"amount": None}, "amount"),
        ({"currency": "euro"}, "currency"),
        ({"debit_account_id": "ann"}, "debit_account_id"),
        ({"effective_at": "2026-03-01T12:00:00"}, "effective_at"),
        ({"effective_at": "1950-03-01T12:00:00Z"}, "effective_at"),
        ({"description": "a\x00b"}, "description"),
        ({"metadata": {"a": 5}}, "metadata"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_malformed_transfer_is_a_bad_request_that_names_the_field(
    ledger: LedgerClient, change: dict[str, object], field: str
) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    found = await ledger.post("/transfers", {**transfer(bank, ann, 5), **change}, expect=400)
    assert found["errors"][0]["field"].startswith(field)
    assert "regex" not in found["detail"]
    assert await ledger.runtime.event_store.head() == 2


async def test_a_currency_that_is_none_is_told_in_words_what_one_is(ledger: LedgerClient) -> None:
    told = "must be three capital letters A to Z, as in ISO 4217, or"
    ids = {"debit_account_id": str(uuid4()), "credit_account_id": str(uuid4())}
    for path, body in (
        ("/accounts", {"name": "Till", "type": "asset", "currency": "€"}),
        ("/transfers", {**ids, "amount": 1, "currency": "eur"}),
        ("/transfers/batch", {"mode": "atomic", "transfers": [{**ids, "amount": 1, "currency": "E"}]}),
    ):
        (wrong,) = (await ledger.post(path, body, expect=400))["errors"]
        assert (wrong["field"].rpartition(".")[2], wrong["in"]) == ("currency", "body")
        assert wrong["message"].startswith(told)
    (wrong,) = (await ledger.get("/accounts?currency=eur", expect=400))["errors"]
    assert (wrong["field"], wrong["in"], wrong["message"].startswith(told)) == ("currency", "query", True)


async def test_a_statement_pages_from_the_newest_line_while_others_write(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    for number in range(7):
        await ledger.post(
            "/transfers", transfer(bank, ann, 10 + number, effective_at=f"2026-01-0{number + 1}T00:00:00Z")
        )
    lines: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await ledger.get(f"/accounts/{ann}/statement", {"limit": 3, **cursor})
        lines += page["items"]
        await ledger.post("/transfers", transfer(bank, ann, 1))
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert [line["amount"] for line in lines] == [16, 15, 14, 13, 12, 11, 10]
    assert [line["balance"] for line in lines] == [91, 75, 60, 46, 33, 21, 10]
    assert {(line["direction"], line["counterparty_account_id"]) for line in lines} == {("credit", bank)}
    span = {"from": "2026-01-02T00:00:00Z", "to": "2026-01-04T00:00:00Z"}
    page = await ledger.get(f"/accounts/{ann}/statement", span)
    assert [line["amount"] for line in page["items"]] == [12, 11]


async def test_transfers_are_found_by_text_account_amount_and_time(ledger: LedgerClient) -> None:
    bank, ann, ben = await ledger.open("Bank", "asset"), await ledger.open("Ann"), await ledger.open("Ben")
    ids = []
    for number, (account, description) in enumerate([(ann, "Rent May"), (ben, "rent June"), (ann, "Coffee")]):
        body = transfer(bank, account, 100 * (number + 1), description=description, reference=f"R{number}")
        ids.append(body["transfer_id"])
        await ledger.post("/transfers", {**body, "effective_at": f"2026-05-0{number + 1}T00:00:00Z"})

    async def found(**parameters: object) -> list[int]:
        return [ids.index(item["transfer_id"]) for item in (await ledger.get("/transfers", parameters))["items"]]

    assert await found() == [2, 1, 0]
    assert await found(q="RENT") == [1, 0]
    assert await found(q="rent r0") == [0]
    assert await found(account_id=ann) == [2, 0]
    assert await found(account_id=bank, min_amount=200) == [2, 1]
    assert await found(min_amount=100, max_amount=200, sort="amount") == [0, 1]
    assert await found(**{"from": "2026-05-02T00:00:00Z", "to": "2026-05-03T00:00:00Z"}) == [1]
    assert await found(status="posted", sort="-amount", limit=1) == [2]


async def test_the_trial_balance_is_exact_beyond_64_bits(ledger: LedgerClient) -> None:
    for _ in range(3):
        bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
        await ledger.post("/transfers", transfer(bank, ann, AMOUNT_MAX))
    yen = await ledger.open("Yen", currency="JPY"), await ledger.open("Yen too", "equity", currency="JPY")
    await ledger.post("/transfers", {**transfer(*yen, 7), "currency": "JPY"})
    total = 3 * AMOUNT_MAX
    trial = await ledger.get("/trial-balance")
    assert trial["currencies"] == [
        {
            "currency": "EUR",
            "debits": total,
            "credits": total,
            "balanced": True,
            "by_type": {"asset": {"debits": total, "credits": 0}, "liability": {"debits": 0, "credits": total}},
        },
        {
            "currency": "JPY",
            "debits": 7,
            "credits": 7,
            "balanced": True,
            "by_type": {"liability": {"debits": 7, "credits": 0}, "equity": {"debits": 0, "credits": 7}},
        },
    ]


async def test_an_independent_batch_posts_what_it_can_in_the_order_sent(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    bodies = [
        transfer(ann, bank, 5),
        transfer(bank, ann, 5),
        transfer(ann, bank, 5),
        transfer(bank, str(uuid4()), 5),
        transfer(bank, ann, 0),
    ]
    bodies.append(bodies[1])
    reply = await ledger.post("/transfers/batch", {"mode": "independent", "transfers": bodies}, expect=200)
    assert [(each["status"], each.get("code")) for each in reply["results"]] == [
        ("rejected", "insufficient_funds"),
        ("posted", None),
        ("posted", None),
        ("rejected", "account_not_found"),
        ("rejected", "invalid_amount"),
        ("posted", None),
    ]
    assert [each["transfer_id"] for each in reply["results"]] == [each["transfer_id"] for each in bodies]
    assert reply["position"] == 8
    block = await ledger.runtime.event_store.read(2, 100)
    correlations = {bytes(event.metadata) for event in block.events}
    assert len(correlations) == 1
    assert b"correlation_id" in correlations.pop()


async def test_an_atomic_batch_posts_all_or_none(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    bodies = [transfer(bank, ann, 5), transfer(ann, bank, 6), transfer(bank, ann, 5)]
    reply = await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": bodies}, expect=200)
    codes = [each["code"] for each in reply["results"]]
    assert codes == ["batch_aborted", "insufficient_funds", "batch_aborted"]
    assert await ledger.runtime.event_store.head() == 2
    bodies[1]["amount"] = 5
    reply = await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": bodies}, expect=200)
    assert [each["status"] for each in reply["results"]] == ["posted"] * 3
    again = await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": bodies}, expect=200)
    assert again == reply
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 5


async def test_a_batch_has_a_size(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    for count, status in ((0, 400), (8_193, 400), (8_192, 200)):
        bodies = [transfer(bank, ann, 1) for _ in range(count)]
        await ledger.post("/transfers/batch", {"mode": "atomic", "transfers": bodies}, expect=status)
    assert (await ledger.get(f"/accounts/{ann}"))["balance"] == 8_192


async def test_unknown_things_are_refused_by_name(ledger: LedgerClient) -> None:
    nobody = uuid4()
    for path, code in (
        (f"/accounts/{nobody}", "account_not_found"),
        (f"/accounts/{nobody}/statement", "account_not_found"),
        (f"/transfers/{nobody}", "transfer_not_found"),
    ):
        assert (await ledger.get(path, expect=404))["code"] == code
    for path, parameters in (
        ("/accounts", {"typ": "asset"}),
        ("/accounts", {"type": "assets"}),
        ("/accounts", {"sort": "currency"}),
        ("/accounts", {"limit": 1_001}),
        ("/accounts", {"limit": 0}),
        ("/transfers", {"cursor": "nonsense"}),
        ("/transfers", {"min_amount": "many"}),
        ("/transfers", {"from": "yesterday"}),
        ("/transfers", {"from": "2026-01-01T00:00:00"}),
        ("/trial-balance", {"currency": "EUR"}),
    ):
        await ledger.get(path, parameters, expect=400)


async def test_concurrent_retries_of_one_transfer_have_one_effect_and_one_reply(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    body = transfer(bank, ann, 5)
    replies = await asyncio.gather(*(ledger.http.post("/transfers", json=body) for _ in range(50)))
    assert sorted(reply.status_code for reply in replies) == [200] * 49 + [201]
    assert len({reply.content for reply in replies}) == 1
    assert (await ledger.get(f"/accounts/{ann}", {"min_position": replies[0].json()["position"]}))["balance"] == 5
