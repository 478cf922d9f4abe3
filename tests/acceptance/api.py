"""The ledger's API in the words of the tests."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import httpx

from cqrskit import Runtime, Scope, Settings
from example_ledger.application import ledger as application

ACTOR = "tests"
"""Name of the API key that tests show, unless they say otherwise."""


def bearer(key: str) -> dict[str, str]:
    """The header that shows an API key."""
    return {"Authorization": f"Bearer {key}"}


async def key_for(settings: Settings, *scopes: Scope, name: str = ACTOR) -> str:
    """A new API key of the ledger with these settings, for all scopes unless told otherwise."""
    async with application.open(settings, executor=False) as runtime:
        return (await runtime.api_keys.make(name, scopes or Scope)).text


class LedgerClient:
    """Calls the API; reads wait for the last position that a command's reply had."""

    def __init__(self, http: httpx.AsyncClient, runtime: Runtime) -> None:
        self.http = http
        self.runtime = runtime
        self.position = 0

    async def post(self, path: str, body: object, *, expect: int = 201) -> Any:
        """Send a command and return the reply's body."""
        reply = await self.http.post(path, json=body)
        assert reply.status_code == expect, reply.text
        if "Consistency-Position" in reply.headers:
            self.position = max(self.position, int(reply.headers["Consistency-Position"]))
        return reply.json()

    async def get(self, path: str, parameters: Mapping[str, Any] | None = None, *, expect: int = 200) -> Any:
        """Ask for something that contains what was commanded before."""
        headers = {"Consistency-Position": str(self.position)}
        reply = await self.http.get(path, params=parameters, headers=headers)
        assert reply.status_code == expect, reply.text
        return reply.json()

    async def open(self, name: str, kind: str = "liability", **fields: object) -> str:
        """Open an account, in EUR and without overdraft limit unless told otherwise; its id."""
        body = {"name": name, "type": kind, "currency": "EUR", "overdraft_limit": None, **fields}
        return str((await self.post("/accounts", body))["account_id"])


def transfer(debit: str, credit: str, amount: int, **fields: object) -> dict[str, Any]:
    """The body of a transfer with an id of its own, in EUR."""
    return {
        "transfer_id": str(uuid4()),
        "debit_account_id": debit,
        "credit_account_id": credit,
        "amount": amount,
        "currency": "EUR",
        **fields,
    }
