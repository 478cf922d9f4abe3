"""The API's contract: what a fuzzer that reads the OpenAPI document finds, and what the document says."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from cqrskit import Scope, Settings
from example_ledger.app import create_app
from tests.acceptance.api import LedgerClient, bearer, key_for
from tests.acceptance.fuzzing_checks import ACCOUNTS, TRANSFERS
from tests.integration.running_processes import address_of, environment, finish, start

SEED = "20260131"
CASES_PER_OPERATION = "10"
MORE = os.environ.get("LEDGER_FUZZ_OPTIONS", "").split()
"""Options for a longer search by hand, such as ``--seed 7 --max-examples 1000``; the last one counts."""
REACHED = {"OpenAccount", "PostTransfer", "PlaceHold", "SetOverdraftLimit", "SetAccountMetadata", "UnfreezeAccount"}
"""Commands that are accepted at least once, so that success is looked at too."""
DEADLINE_SECONDS = 3_600 if MORE else 300
ROOT = Path(__file__).parents[2]
CONFIGURATION = """\
[checks]
# The domain refuses much that is well-formed; `what_fits_the_document_is_not_called_malformed` asks more closely.
positive_data_acceptance.enabled = false
# Litestar's own answer to OPTIONS names the methods of one handler where a path has several.
allow_header_conformance.enabled = false

[[operations]]
# A transfer in a batch that cannot be posted is `rejected` in a reply that is 200.
include-operation-id = "post_batch"
checks.negative_data_rejection.enabled = false
"""


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    """What requests and replies look like has nothing to do with where the documents are."""
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix, port=0)


async def fill(client: httpx.AsyncClient) -> None:
    """Accounts with and without limit, a frozen and a closed one; transfers and holds among them."""
    for number, account in enumerate(ACCOUNTS):
        opening = {"account_id": account, "name": f"account {number}", "type": ("asset", "liability")[number % 2]}
        limits = {"currency": "EUR", "overdraft_limit": None if number < 3 else 1_000 * number}
        (await client.post("/accounts", json={**opening, **limits})).raise_for_status()
    for number, transfer in enumerate(TRANSFERS):
        sides = {"debit_account_id": ACCOUNTS[number % 3], "credit_account_id": ACCOUNTS[number % 3 + 1]}
        body = {**sides, "amount": 500, "currency": "EUR"}
        path, name = ("/transfers", "transfer_id") if number % 2 else ("/holds", "hold_id")
        (await client.post(path, json={name: transfer, **body})).raise_for_status()
    (await client.post(f"/accounts/{ACCOUNTS[5]}/close")).raise_for_status()
    (await client.post(f"/accounts/{ACCOUNTS[4]}/freeze")).raise_for_status()


async def fuzz(address: str, key: str, folder: Path, *options: str) -> tuple[int, str]:
    """Run the fuzzer over all operations; its exit code and what it says."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("--config-file", str(configuration), "--no-color"),
        *("run", f"{address}/schema/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--seed", SEED, "--generation-database", "none", "--warnings", "off"),
        *("--max-examples", CASES_PER_OPERATION, "--continue-on-failure", *options),
        cwd=folder,
        env={**environment({}), "SCHEMATHESIS_HOOKS": "tests.acceptance.fuzzing_checks"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(program.communicate(), DEADLINE_SECONDS)
    except TimeoutError:
        program.kill()
        raise
    assert program.returncode is not None
    return program.returncode, out.decode()


async def test_a_fuzzer_finds_no_failure_no_reply_beside_the_document_and_no_unknown_code(
    settings: Settings, tmp_path: Path
) -> None:
    key = await key_for(settings, *Scope)
    variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_INDEX_PREFIX": settings.index_prefix}
    server = await start("serve", "--port", "0", module="example_ledger", variables=variables)
    try:
        address = await address_of(server)
        async with httpx.AsyncClient(base_url=address, headers=bearer(key)) as client:
            await fill(client)
        code, said = await fuzz(address, key, tmp_path, *MORE)
        async with httpx.AsyncClient(base_url=address, headers=bearer(key)) as client:
            metrics = (await client.get("/metrics")).text
    finally:
        server.terminate()
        finished = await finish(server)
    assert code == 0, said
    assert "No issues found" in said
    assert "request.failed" not in finished.err
    accepted = set(re.findall(r'^cqrskit_commands_total{command="(\w+)",outcome="accepted"}', metrics, re.MULTILINE))
    assert accepted >= REACHED, "the fuzzer got no further than refusals"


OPERATIONS = [
    (method.upper(), re.sub(r"\{\w+\}", ACCOUNTS[0], path), operation)
    for path, item in create_app(Settings()).openapi_schema.to_schema()["paths"].items()
    for method, operation in item.items()
]


def errors_of(reply: httpx.Response) -> list[tuple[str, str]]:
    """Where the wrong values of a malformed request are."""
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), reply.text
    return [(each["in"], each["field"]) for each in reply.json()["errors"]]


async def test_every_route_refuses_a_misspelt_query_parameter_by_its_name(ledger: LedgerClient) -> None:
    assert len(OPERATIONS) > 20
    for method, path, operation in OPERATIONS:
        body: dict[str, Any] | None = {} if "requestBody" in operation else None
        reply = await ledger.http.request(method, path, params={"min_posission": "1"}, json=body)
        assert errors_of(reply) == [("query", "min_posission")], path


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=null", "status"),
        ("currency=EUR&currency=USD", "currency"),
        ("min_position=null", "min_position"),
        ("min_position=-1", "min_position"),
        ("limit=0", "limit"),
    ],
)
async def test_a_filter_is_never_taken_for_none(ledger: LedgerClient, query: str, field: str) -> None:
    assert errors_of(await ledger.http.get(f"/accounts?{query}")) == [("query", field)]


@pytest.mark.parametrize("moment", ["2026", "2026-01-31T12:00:00", "null", ""])
async def test_a_moment_is_a_date_and_a_time_with_a_zone(ledger: LedgerClient, moment: str) -> None:
    assert errors_of(await ledger.http.get("/transfers", params={"from": moment})) == [("query", "from")]


async def test_a_position_of_null_is_no_position(ledger: LedgerClient) -> None:
    reply = await ledger.http.get("/accounts", headers={"Consistency-Position": "null"})
    assert errors_of(reply) == [("header", "Consistency-Position")]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/accounts", {"name": "Ann", "type": "asset", "curency": "EUR"}, "curency"),
        ("/transfers", {"amuont": 5}, "amuont"),
        ("/transfers/batch", {"mode": "atomic", "transfers": [{"amuont": 5}]}, "transfers[0].amuont"),
        ("/entries", {"legs": [{"acount_id": ACCOUNTS[0]}]}, "legs[0].acount_id"),
        (f"/holds/{TRANSFERS[0]}/capture", {"amuont": 5}, "amuont"),
    ],
)
async def test_a_misspelt_field_of_a_body_is_named(ledger: LedgerClient, path: str, body: object, field: str) -> None:
    assert errors_of(await ledger.http.post(path, json=body)) == [("body", field)]


async def test_a_refusal_about_an_id_made_from_the_key_speaks_of_the_key(ledger: LedgerClient) -> None:
    bank, ann = await ledger.open("Bank", "asset"), await ledger.open("Ann")
    sides = {"debit_account_id": bank, "credit_account_id": ann, "currency": "EUR"}
    legs = [[{"account_id": bank, "direction": "debit", "amount": n}, credit(ann, n)] for n in (5, 6)]
    entries = [{"legs": each, "currency": "EUR"} for each in legs]
    openings = [{"name": name, "type": "asset", "currency": "EUR"} for name in ("Till", "Safe")]
    original = (await ledger.post("/transfers", {**sides, "amount": 100}))["transfer_id"]
    requests: list[tuple[str, Any, Any, str]] = [
        ("/transfers", {**sides, "amount": 5}, {**sides, "amount": 6}, "amount"),
        ("/holds", {**sides, "amount": 5}, {**sides, "amount": 6}, "amount"),
        ("/entries", entries[0], entries[1], "legs"),
        (f"/transfers/{original}/reverse", {"amount": 5}, {"amount": 6}, "amount"),
        ("/accounts", openings[0], openings[1], "name"),
    ]
    for path, first, second, field in requests:
        key = {"Idempotency-Key": f"key of {path}"}
        assert (await ledger.http.post(path, json=first, headers=key)).status_code == 201
        conflict = await ledger.http.post(path, json=second, headers=key)
        assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict"), conflict.text
        assert conflict.json()["details"] == {"key": f"key of {path}", "field": field}


def credit(account: str, amount: int) -> dict[str, object]:
    """The leg of an entry."""
    return {"account_id": account, "direction": "credit", "amount": amount}
