"""The API's contract: what a fuzzer that reads the OpenAPI document finds, and what the document says."""

import asyncio
import json
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
from tests.acceptance.fuzzing_ledger import ACCOUNTS, TRANSFERS, fill
from tests.integration.running_processes import address_of, environment, finish, start

SEED = "20260131"
CASES_PER_OPERATION = "10"
MORE = os.environ.get("LEDGER_FUZZ_OPTIONS", "").split()
"""Options for a longer search by hand, such as ``--seed 7 --max-examples 1000``; the last one counts."""
REPLIES = "replies.json"
"""The file in which the fuzzer leaves how many replies of each kind each operation gave."""
DEADLINE_SECONDS = 3_600 if MORE else 300
CONFIGURATION = """\
[checks]
# What fits the document is done, or refused by the domain: 404, 409 and 422 are about what is there, which no document
# says. It is never called malformed.
positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
"""
PATHS: dict[str, dict[str, Any]] = create_app(Settings()).openapi_schema.to_schema()["paths"]
OPERATIONS = [(method.upper(), path, operation) for path, item in PATHS.items() for method, operation in item.items()]


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    """What requests and replies look like has nothing to do with where the documents are."""
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix, port=0)


async def fuzz(address: str, key: str, folder: Path, cursors: dict[str, str]) -> tuple[int, str]:
    """Run the fuzzer over all operations; its exit code and what it says."""
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.acceptance.fuzzing_checks",
        "LEDGER_FUZZ_CURSORS": json.dumps(cursors),
        "LEDGER_FUZZ_REPLIES": str(folder / REPLIES),
    }
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("--config-file", str(configuration), "--no-color"),
        *("run", f"{address}/schema/openapi.json", "--header", f"Authorization: Bearer {key}"),
        *("--seed", SEED, "--generation-database", "none", "--warnings", "off"),
        *("--max-examples", CASES_PER_OPERATION, "--continue-on-failure", *MORE),
        cwd=folder,
        env=environment(hooks),
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


async def test_a_fuzzer_gets_something_done_by_every_operation_and_finds_no_reply_beside_the_document(
    settings: Settings, tmp_path: Path
) -> None:
    key = await key_for(settings, *Scope)
    variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_INDEX_PREFIX": settings.index_prefix}
    server = await start("serve", "--port", "0", module="example_ledger", variables=variables)
    try:
        address = await address_of(server)
        async with httpx.AsyncClient(base_url=address, headers=bearer(key)) as client:
            cursors = await fill(client)
        code, said = await fuzz(address, key, tmp_path, cursors)
    finally:
        server.terminate()
        finished = await finish(server)
    assert code == 0, said
    assert "No issues found" in said
    assert "request.failed" not in finished.err
    replies: dict[str, dict[str, int]] = json.loads((tmp_path / REPLIES).read_text())
    names = [f"{method} {path}" for method, path, _ in OPERATIONS]
    refused = {name: replies.get(name) for name in names if not replies.get(name, {}).get("accepted")}
    assert not refused, f"the fuzzer got nothing but refusals: {refused}"


def errors_of(reply: httpx.Response) -> list[tuple[str, str]]:
    """Where the wrong values of a malformed request are."""
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request"), reply.text
    return [(each["in"], each["field"]) for each in reply.json()["errors"]]


async def test_every_route_refuses_a_misspelt_query_parameter_by_its_name(ledger: LedgerClient) -> None:
    assert len(OPERATIONS) > 20
    for method, path, operation in OPERATIONS:
        body: dict[str, Any] | None = {} if "requestBody" in operation else None
        url = re.sub(r"\{\w+\}", ACCOUNTS[0], path)
        reply = await ledger.http.request(method, url, params={"min_posission": "1"}, json=body)
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
