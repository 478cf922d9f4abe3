"""Who gets into the ledger: the routes are those of the application itself, so that a new one cannot be forgotten."""

import json
import re
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from litestar.routes import HTTPRoute

from cqrskit import Scope, Settings
from cqrskit.access import make_api_key
from example_ledger.app import create_app
from tests.acceptance.api import ACTOR, LedgerClient, bearer, key_for, transfer
from tests.acceptance.conftest import ledger_client
from tests.integration.running_processes import address_of, finish, ledger, start

OPEN = {"/health/live", "/health/ready"}
ADMIN: set[str] = set()
"""Routes that need `admin`; every other one is for reading or for writing, as its method says."""
READING = {"GET", "HEAD", "OPTIONS"}


def routes() -> list[tuple[str, str]]:
    """Method and path of all that the application answers, with ids filled in."""
    found = []
    for route in create_app(Settings()).routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is of a kind that this test does not know"
        path = re.sub(r"\{\w+:uuid\}", str(UUID(int=7)), route.path)
        path = re.sub(r"\{\w+(:\w+)?\}", "x", path)
        found += [(str(method), path) for method in sorted(route.methods)]
    return found


ROUTES = routes()
LOCKED = [each for each in ROUTES if each[1] not in OPEN]


def needed_by(method: str, path: str) -> Scope:
    if path in ADMIN:
        return Scope.ADMIN
    return Scope.READ if method in READING else Scope.WRITE


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    """Who gets in has nothing to do with where the documents are."""
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix, port=0)


@pytest.fixture
async def anonymous(ledger: LedgerClient) -> httpx.AsyncClient:
    """A client that shows no key unless told to."""
    del ledger.http.headers["Authorization"]
    return ledger.http


async def called(client: httpx.AsyncClient, method: str, path: str, header: str | None) -> tuple[int, str | None, str]:
    """Status, code of the problem, and what the reply says about getting in."""
    headers = {} if header is None else {"Authorization": header}
    body = {"content": b"{}", "headers": {**headers, "Content-Type": "application/json"}}
    reply = await client.request(method, path, **(body if method == "POST" else {"headers": headers}))
    is_problem = reply.headers.get("content-type") == "application/problem+json" and reply.content
    code = json.loads(reply.content)["code"] if is_problem else None
    return reply.status_code, code, reply.headers.get("WWW-Authenticate", "")


def test_the_application_has_the_routes_that_this_test_is_about() -> None:
    assert len(LOCKED) >= 12
    assert {("POST", "/transfers"), ("GET", "/accounts"), ("GET", "/schema/openapi.json")} <= set(LOCKED)


async def test_no_route_lets_anybody_in_without_a_usable_key(
    ledger: LedgerClient, anonymous: httpx.AsyncClient
) -> None:
    keys = ledger.runtime.api_keys
    usable, revoked = (await keys.make("shop", Scope)).text, await keys.make("shop", Scope)
    await keys.revoke(revoked.key.id)
    wrong = usable[:-1] + ("A" if usable[-1] != "A" else "B")
    shown = [
        None,
        "",
        "Bearer",
        f"Bearer {wrong}",
        f"Bearer {revoked.text}",
        f"Bearer {make_api_key('shop', Scope).text}",
    ]
    for method, path in LOCKED:
        for header in shown:
            status, code, challenge = await called(anonymous, method, path, header)
            assert (status, challenge[:6]) == (401, "Bearer"), (method, path, header)
            assert code in ("unauthenticated", None if method == "HEAD" else "unauthenticated")
    assert await ledger.runtime.event_store.head() == 0


async def test_no_route_takes_a_key_of_another_scope_and_each_takes_its_own(
    ledger: LedgerClient, anonymous: httpx.AsyncClient
) -> None:
    keys = ledger.runtime.api_keys
    for scope in Scope:
        only = f"Bearer {(await keys.make('shop', [scope])).text}"
        all_others = f"Bearer {(await keys.make('shop', set(Scope) - {scope})).text}"
        for method, path in LOCKED:
            if needed_by(method, path) is not scope:
                continue
            status, code, _ = await called(anonymous, method, path, all_others)
            assert (status, code) == (403, "forbidden"), (method, path, scope)
            status, _, _ = await called(anonymous, method, path, only)
            assert status not in (401, 403), (method, path, scope)


async def test_health_is_for_everybody(ledger: LedgerClient, anonymous: httpx.AsyncClient) -> None:
    for path in OPEN:
        assert (await anonymous.get(path)).status_code == 200


async def test_every_event_names_who_caused_it(ledger: LedgerClient, settings: Settings) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    await ledger.post("/transfers", transfer(bank, ann, 5))
    for mode in ("atomic", "independent"):
        batch = {"mode": mode, "transfers": [transfer(bank, ann, 5)]}
        await ledger.post("/transfers/batch", batch, expect=200)
    with psycopg.connect(str(settings.database_url)) as connection:
        found = connection.execute("SELECT metadata FROM events").fetchall()
    assert {json.loads(bytes(metadata))["actor"] for (metadata,) in found} == {ACTOR}
    assert len(found) == 11


async def test_a_transfer_of_another_actor_is_no_secret_but_its_idempotency_key_is_not_shared(
    ledger: LedgerClient, settings: Settings
) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    body = {name: value for name, value in transfer(bank, ann, 5).items() if name != "transfer_id"}
    other = bearer((await ledger.runtime.api_keys.make("other", Scope)).text)
    ids = []
    for headers in ({}, other, {}, other):
        reply = await ledger.http.post("/transfers", json=body, headers={**headers, "Idempotency-Key": "k"})
        ids.append(reply.json()["transfer_id"])
    assert (ids[:2], len(set(ids))) == (ids[2:], 2)


# --- the command


def variables_of(settings: Settings) -> dict[str, str]:
    return {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_INDEX_PREFIX": settings.index_prefix}


async def test_keys_are_made_listed_and_revoked_by_command(settings: Settings) -> None:
    variables = variables_of(settings)
    assert "ledger keys create" in (await ledger("keys", "list", variables=variables)).out
    made = await ledger("keys", "create", "shop", "--scopes", "write,read", variables=variables)
    assert made.code == 0, made.err
    assert "only now" in made.err
    text = made.out.strip()
    more = await ledger(
        *("keys", "create", "auditor", "--scopes", "admin", "--expires-in-days", "0.5", "--json"), variables=variables
    )
    second: dict[str, Any] = json.loads(more.out)
    async with ledger_client(settings) as client:
        for key in (text, second["key"]):
            reply = await client.http.get("/accounts", headers=bearer(key))
            assert reply.status_code == (200 if key == text else 403)
    listed = await ledger("keys", "list", "--json", variables=variables)
    rows = {row["name"]: row for row in json.loads(listed.out)}
    assert rows["shop"]["scopes"] == ["read", "write"]
    assert rows["auditor"] == {name: value for name, value in second.items() if name != "key"}
    assert text not in listed.out
    assert "key" not in rows["shop"]
    shown = await ledger("keys", "list", variables=variables)
    assert rows["shop"]["id"] in shown.out
    moments = set()
    for argument in (rows["shop"]["id"], text):
        revoked = await ledger("keys", "revoke", argument, "--json", variables=variables)
        assert (revoked.code, json.loads(revoked.out)["state"]) == (0, "revoked")
        moments.add(json.loads(revoked.out)["revoked_at"])
    assert len(moments) == 1
    async with ledger_client(settings) as client:
        assert (await client.http.get("/accounts", headers=bearer(text))).status_code == 401


async def test_wrong_uses_of_the_command_say_what_is_wrong_and_show_no_key(settings: Settings) -> None:
    variables = variables_of(settings)
    slip = make_api_key("shop", Scope).text[:-1]
    for arguments, code, said in (
        (("create", "shop", "--scopes", "reed"), 2, "'reed'"),
        (("create", "shop", "--scopes", ","), 2, "opens nothing"),
        (("create", "my shop", "--scopes", "read"), 2, "my shop"),
        (("create", "shop"), 2, "--scopes"),
        (("revoke", "0f3a9c51d2e84b76"), 2, "keys list"),
        (("revoke", slip), 2, "keys list"),
    ):
        finished = await ledger("keys", *arguments, variables=variables)
        assert (finished.code, said in finished.err) == (code, True), finished.err
        assert slip not in finished.err + finished.out


async def test_a_served_ledger_says_how_to_get_in_until_somebody_can(settings: Settings) -> None:
    variables = variables_of(settings)
    for has_key in (False, True):
        process = await start("serve", "--port", "0", module="example_ledger", variables=variables)
        address = await address_of(process)
        async with httpx.AsyncClient(base_url=address) as client:
            assert (await client.get("/accounts")).status_code == 401
            key = await key_for(settings, Scope.READ)
            assert (await client.get("/accounts", headers=bearer(key))).status_code == 200
            assert (await client.get(f"/accounts/{uuid4()}", headers=bearer(key))).status_code == 404
        process.terminate()
        finished = await finish(process)
        assert ("ledger keys create" in finished.out) is not has_key
        assert key not in finished.out + finished.err
