"""A reader that brings the position of its own write never gets an older answer, while others write."""

import asyncio
import random
from typing import Any

import httpx
import msgspec

from cqrskit import Settings
from tests.acceptance.api import LedgerClient, transfer
from tests.acceptance.conftest import ledger_client
from tests.faults.checking import assert_books_and_documents_in_order

READERS, ROUNDS, ATTEMPTS = 6, 12, 20


async def answered(ledger: LedgerClient, path: str, after: httpx.Response, **parameters: Any) -> Any:
    """The answer to a query that brings the position of a reply; a refusal (503) is asked again, nothing else is."""
    headers = {"Consistency-Position": after.headers["Consistency-Position"]}
    for _ in range(ATTEMPTS):
        answer = await ledger.http.get(path, params=parameters, headers=headers)
        if answer.status_code == 200:
            found = answer.json()
            assert found["as_of_position"] >= int(headers["Consistency-Position"])
            return found
        assert (answer.status_code, answer.json()["code"]) == (503, "not_yet_visible"), answer.text
        assert "Retry-After" in answer.headers
    raise AssertionError(f"{path} was refused {ATTEMPTS} times")


async def test_every_writer_reads_its_own_writes_on_documents_lists_and_searches(settings: Settings) -> None:
    async with ledger_client(msgspec.structs.replace(settings, block_size_max=5_000)) as ledger:
        bank = await ledger.open("Bank", "asset")
        others = [await ledger.open(f"Other {number}") for number in range(4)]
        stop = asyncio.Event()

        async def write_on() -> None:
            randomness = random.Random(1)
            while not stop.is_set():
                bodies = [transfer(bank, randomness.choice(others), 1) for _ in range(50)]
                reply = await ledger.http.post("/transfers/batch", json={"mode": "independent", "transfers": bodies})
                assert reply.status_code == 200, reply.text
                await answered(ledger, "/transfers", reply, limit=1)  # no faster than read models can follow

        async def write_and_read(number: int) -> None:
            own = await ledger.open(f"reader{number}")
            for round_number in range(1, ROUNDS + 1):
                word = f"w{number}x{round_number}"
                body = transfer(bank, own, 1, description=f"payment {word}")
                reply = await ledger.http.post("/transfers", json=body)
                account, lines, search, listed = await asyncio.gather(
                    answered(ledger, f"/accounts/{own}", reply),
                    answered(ledger, f"/accounts/{own}/statement", reply, limit=1_000),
                    answered(ledger, "/transfers", reply, q=word),
                    answered(ledger, "/accounts", reply, q=f"reader{number}"),
                )
                assert account["credits_posted"] == round_number
                assert len(lines["items"]) == round_number
                assert [item["transfer_id"] for item in search["items"]] == [body["transfer_id"]]
                assert [item["balance"] for item in listed["items"]] == [round_number]

        writing = asyncio.create_task(write_on())
        await asyncio.gather(*(write_and_read(number) for number in range(READERS)))
        stop.set()
        await writing
        await assert_books_and_documents_in_order(ledger.runtime)
