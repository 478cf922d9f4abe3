"""Documents that an event could not be folded into, as callers of the ledger see them."""

import psycopg

from cqrskit import Settings
from cqrskit.testing import eventually
from example_ledger.read_models import StatementLines
from tests.acceptance.api import LedgerClient, transfer


async def test_parked_documents_say_that_they_are_stale_and_are_refused_for_positions_that_they_lack(
    ledger: LedgerClient, settings: Settings
) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann", overdraft_limit=0)
    body = transfer(bank, ann, 500)
    position = (await ledger.post("/transfers", body, expect=201))["position"]
    read = {"min_position": position}
    ledger.position = 0  # the header that the client sends: any answer
    well = await ledger.get(f"/accounts/{ann}", read)
    assert "stale" not in well
    assert all("stale" not in each for each in (await ledger.get("/accounts", read))["items"])
    lines = (await ledger.get(f"/accounts/{ann}/statement", read))["items"]
    with psycopg.connect(str(settings.database_url)) as connection:
        documents = [("accounts", ann), ("transfers", body["transfer_id"]), ("trial_balances", "EUR")]
        index = StatementLines.index(1)
        documents += [("statement_lines", row.id) async for row in ledger.runtime.read_store.scan(index)]
        columns = "projection, generation, key, position, error, owner"
        insert = f"INSERT INTO parked_keys ({columns}) VALUES (%s, 1, %s, %s, 'told', %s)"
        for projection, key in documents:
            connection.execute(insert, [projection, key, position, key])

    async def noticed() -> bool:
        return "stale" in await ledger.get(f"/accounts/{ann}")

    await eventually(noticed)
    assert await ledger.get(f"/accounts/{ann}") == {**well, "stale": True}
    assert {each["account_id"]: each.get("stale") for each in (await ledger.get("/accounts", read))["items"]} == {
        bank: None,
        ann: True,
    }
    assert (await ledger.get(f"/transfers/{body['transfer_id']}"))["stale"] is True
    assert [each["stale"] for each in (await ledger.get("/transfers", read))["items"]] == [True]
    assert [each["stale"] for each in (await ledger.get("/trial-balance", read))["currencies"]] == [True]
    stale = (await ledger.get(f"/accounts/{ann}/statement", read))["items"]
    assert stale == [{**line, "stale": True} for line in lines]
    refused = await ledger.get(f"/accounts/{ann}", read, expect=409)
    assert (refused["code"], "without a position" in refused["detail"]) == ("document_parked", True)
    assert (await ledger.get(f"/accounts/{bank}", read))["account_id"] == bank
