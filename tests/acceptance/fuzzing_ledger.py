"""The ledger that the fuzzer meets: what is there from the beginning, so that most of what it asks for can be done."""

import asyncio
from typing import Any
from uuid import UUID

import httpx

__all__ = ["ACCOUNTS", "BESIDE", "CLOSED", "EMPTY", "FULL", "HOLDS", "OPEN", "RESTLESS", "TRANSFERS", "fill"]


def ids(first: int, count: int) -> list[str]:
    """Ids that are the same in each run."""
    return [str(UUID(int=number, version=4)) for number in range(first, first + count)]


OPEN = ids(1, 3)
"""Without overdraft limit; only small amounts move between them, so that they have room for ever."""
RICH, LIMITED, FROZEN, CLOSED, DOLLARS = ids(11, 2), ids(21, 1), ids(31, 1), ids(41, 1), ids(51, 1)
BESIDE = [*RICH, *LIMITED, *FROZEN, *CLOSED, *DOLLARS]
"""Those that have something about them; two of them take huge amounts."""
RESTLESS, EMPTY, FULL = ids(61, 2), ids(71, 3), ids(81, 1)
"""To be frozen and unfrozen, to be closed, and with money, so that it cannot be closed."""
ACCOUNTS = [*OPEN, *BESIDE, *RESTLESS, *EMPTY, *FULL]
TRANSFERS = ids(1_001, 200)
HOLDS = ids(2_001, 200)
"""So many that few requests meet one that was captured, voided or reversed before."""
AMOUNT = 1_000


async def fill(client: httpx.AsyncClient) -> dict[str, str]:
    """Put it all there; a cursor that is good for the list of each path that has one."""
    for number, account in enumerate(ACCOUNTS):
        limit = 1_000 if account in LIMITED else None
        currency = "USD" if account in DOLLARS else "EUR"
        opening = {"account_id": account, "name": f"account {number}", "type": ("asset", "liability")[number % 2]}
        await sent(client, "/accounts", {**opening, "currency": currency, "overdraft_limit": limit})
    transfers = [{"transfer_id": each, **sides(place)} for place, each in enumerate(TRANSFERS)]
    await sent(client, "/transfers/batch", {"mode": "atomic", "transfers": transfers})
    await asyncio.gather(
        *(sent(client, "/holds", {"hold_id": each, **sides(place)}) for place, each in enumerate(HOLDS))
    )
    await sent(client, "/transfers", {**sides(0), "credit_account_id": FULL[0]})
    await sent(client, f"/accounts/{CLOSED[0]}/close")
    position = await sent(client, f"/accounts/{FROZEN[0]}/freeze")
    lists = {"/accounts": "/accounts", "/transfers": "/transfers"}
    lists["/accounts/{account_id}/statement"] = f"/accounts/{OPEN[0]}/statement"
    return {path: await cursor_of(client, url, position) for path, url in lists.items()}


def sides(place: int) -> dict[str, Any]:
    """A transfer between accounts that have room for it."""
    sides = {"debit_account_id": OPEN[place % 3], "credit_account_id": OPEN[(place + 1) % 3]}
    return {**sides, "amount": AMOUNT, "currency": "EUR"}


async def sent(client: httpx.AsyncClient, path: str, body: object = None) -> str:
    """Have a command accepted; its position."""
    reply = await client.post(path, json=body)
    reply.raise_for_status()
    return reply.headers["Consistency-Position"]


async def cursor_of(client: httpx.AsyncClient, url: str, position: str) -> str:
    """The cursor of the second page, from a read model that has everything."""
    reply = await client.get(url, params={"limit": 1}, headers={"Consistency-Position": position})
    return str(reply.raise_for_status().json()["next"])
