"""Programs that start while their servers are away: who waits, who goes on, and who ends at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from cqrskit import Settings
from cqrskit.testing import RestartablePostgres, eventually
from cqrskit.web import plugin_of
from tests.integration.bank import create_app
from tests.integration.guarded_database import guarded_database, url_with_password
from tests.integration.running_processes import (
    DEADLINE_SECONDS,
    address_of,
    bank_client,
    cqrskit,
    finish,
    ledger,
    start,
)

BANK, WEB = "tests.integration.bank:bank", "tests.integration.bank:create_app"
SERVE, PROJECT = ("serve", "--app", WEB, "--port", "0"), ("project", "--app", BANK)
SHORT = [
    ("status", "--app", BANK),
    ("verify", "balances", "--app", BANK),
    ("events",),
    ("rebuild", "balances", "--app", BANK),
]
CLOSED = "127.0.0.1:1"
"""Nobody listens there."""
NOWHERE = f"postgresql://ann@{CLOSED}/bank"
LONGER_THAN_WE_WAIT = "600"


@asynccontextmanager
async def waiting(*arguments: str, dsn: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """A program that waits for Postgres, and what it has logged of it; whatever is left of it in the end is killed."""
    variables = {"CQRSKIT_DATABASE_URL": dsn, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": LONGER_THAN_WE_WAIT}
    process = await start(*arguments, variables=variables)
    try:
        yield process, await _logged(process, "servers.waiting")
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _logged(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    """The next line of a process's log that tells of this event."""
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        while line := await process.stderr.readline():
            found: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {"event": line.decode()}
            if found["event"] == event:
                return found
    raise AssertionError(f"it has ended without {event}")


def events_of(errors: str) -> list[str]:
    """The log events on a program's standard error."""
    return [json.loads(line)["event"] for line in errors.splitlines() if line.startswith("{")]


# --- Postgres


async def test_serve_waits_for_a_postgres_that_comes_up_later_and_takes_commands(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    restartable_postgres.kill()
    async with waiting(*SERVE, dsn=restartable_postgres_dsn) as (process, told):
        assert (told["level"], told["server"], told["seconds"]) == ("warning", "Postgres", 600.0)
        assert urlsplit(restartable_postgres_dsn).path in told["address"]
        assert told["reason"]
        await asyncio.to_thread(restartable_postgres.start_again)
        async with httpx.AsyncClient(base_url=await address_of(process)) as client:
            assert (await client.post("/accounts", json={"owner": "Ann"})).status_code == 201
        process.terminate()
        finished = await finish(process)
        assert (finished.code, events_of(finished.err).count("servers.waiting")) == (0, 0), "it is said once"


async def test_project_waits_for_a_postgres_that_comes_up_later(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    restartable_postgres.kill()
    async with waiting(*PROJECT, dsn=restartable_postgres_dsn) as (process, _):
        await asyncio.to_thread(restartable_postgres.start_again)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        assert line == b"projecting balances\n"
        process.terminate()
        assert (await finish(process)).code == 0


@pytest.mark.parametrize("program", [SERVE, PROJECT], ids=["serve", "project"])
async def test_a_start_that_has_waited_in_vain_ends_with_exit_code_3(program: tuple[str, ...]) -> None:
    variables = {"CQRSKIT_DATABASE_URL": NOWHERE, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "2"}
    begun = time.monotonic()
    finished = await cqrskit(*program, variables=variables)
    assert time.monotonic() - begun >= 1.5, "it has not waited"
    assert (finished.code, finished.out) == (3, "")
    *lines, last = finished.err.splitlines()
    assert last.startswith(f"error: Postgres at {CLOSED}/bank cannot be reached: connection failed:")
    assert last.endswith("Start it, or correct the setting that names it.")
    assert events_of("\n".join(lines)) == ["servers.waiting"]


@pytest.mark.parametrize("program", [SERVE, PROJECT], ids=["serve", "project"])
async def test_a_start_that_waits_ends_when_it_is_stopped(program: tuple[str, ...]) -> None:
    async with waiting(*program, dsn=NOWHERE) as (process, _):
        process.terminate()
        finished = await finish(process)
        assert (finished.code, finished.out, finished.err) == (0, "", "")


@pytest.mark.parametrize("program", SHORT, ids=[each[0] for each in SHORT])
async def test_a_command_that_somebody_waits_for_does_not_wait(program: tuple[str, ...]) -> None:
    variables = {"CQRSKIT_DATABASE_URL": NOWHERE, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": LONGER_THAN_WE_WAIT}
    finished = await cqrskit(*program, variables=variables)
    assert (finished.code, events_of(finished.err)) == (3, [])


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    with guarded_database() as url:
        yield url


WRONG = {
    "password": 'password authentication failed for user "guarded"',
    "no password": "no password supplied",
    "role": 'role "nobody_at_all" does not exist',
    "database": 'database "nothing" does not exist',
    "port": "failed to resolve host",
    "not migrated": "run `cqrskit migrate`",
}


@pytest.mark.parametrize(
    ("program", "wrong"),
    [*((SERVE, each) for each in WRONG), (PROJECT, "password"), (PROJECT, "database")],
    ids=[*(f"serve-{each}" for each in WRONG), "project-password", "project-database"],
)
async def test_what_is_wrong_with_the_settings_of_the_database_ends_the_start_at_once(
    program: tuple[str, ...], wrong: str, guarded: str
) -> None:
    urls = {
        "password": url_with_password(guarded, "wrong"),
        "no password": guarded.replace("postgres@", "guarded@"),
        "role": guarded.replace("postgres@", "nobody_at_all@"),
        "database": guarded.replace(urlsplit(guarded).path, "/nothing"),
        "port": "postgresql://ann@localhost:port/bank",
        "not migrated": guarded,
    }
    if wrong == "not migrated":
        with psycopg.connect(guarded) as connection:
            connection.execute("DROP TABLE IF EXISTS _yoyo_migration")
    variables = {"CQRSKIT_DATABASE_URL": urls[wrong], "CQRSKIT_CONNECT_TIMEOUT_SECONDS": LONGER_THAN_WE_WAIT}
    finished = await cqrskit(*program, variables=variables)
    assert finished.code == (2 if wrong == "not migrated" else 3), finished.err
    assert WRONG[wrong] in finished.err
    assert events_of(finished.err) == []


# --- Elasticsearch


def settings_of(dsn: str, elasticsearch: str, **changes: Any) -> Settings:
    """With an Elasticsearch that is not to be waited for long."""
    url = f"http://ann:secret@{elasticsearch}"
    return Settings(database_url=dsn, elasticsearch_url=url, port=0, connect_timeout_seconds=1.0, **changes)


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """And say nothing."""
    await reader.read()
    writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """An address that takes connections and says nothing."""
    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"{host}:{port}"


@pytest.mark.parametrize("read_side", ["nobody listens", "somebody listens and says nothing"])
async def test_an_api_starts_without_elasticsearch_and_takes_commands(
    read_side: str, silent: str, postgres_dsn: str
) -> None:
    settings = settings_of(postgres_dsn, CLOSED if read_side == "nobody listens" else silent)
    with capture_logs() as logs:
        async with bank_client(settings) as client:
            opened = await client.post("/accounts", json={"owner": "Ann"}, headers={"Idempotency-Key": "a"})
            assert opened.status_code == 201
            again = await client.post("/accounts", json={"owner": "Ann"}, headers={"Idempotency-Key": "a"})
            assert (again.status_code, again.content) == (200, opened.content)
            for path in ("/accounts", f"/accounts/{opened.json()['account_id']}"):
                for headers in ({}, {"Consistency-Position": "1"}):
                    asked = await client.get(path, headers=headers)
                    assert (asked.status_code, asked.json()["code"]) == (503, "server_unavailable")
                    assert asked.headers["Retry-After"] == "1"
            beyond = await client.get("/accounts", headers={"Consistency-Position": "9"})
            assert beyond.status_code == 400
            assert (await client.get("/health/live")).status_code == 200
            assert_degraded(await client.get("/health/ready"))
    told = {entry["event"]: entry for entry in logs}
    address = settings.elasticsearch_url.rpartition("@")[2] if settings.elasticsearch_url else ""
    assert (told["read_store.away"]["log_level"], told["read_store.away"]["address"]) == ("warning", address)
    assert told["read_store.away"]["reason"]
    assert "secret" not in str(logs)


def assert_degraded(reply: httpx.Response) -> None:
    """As when Elasticsearch goes away later; and the projections could not be measured."""
    ready = reply.json()
    assert (reply.status_code, ready["status"], ready["projections"]) == (200, "degraded", [])
    assert any(problem.startswith("read_store: ") for problem in ready["problems"])
    assert [(each["name"], each["ok"]) for each in ready["dependencies"]] == [("postgres", True), ("read_store", False)]
    assert ready["due_commands"] is not None


async def test_what_is_on_the_write_side_is_measured_without_elasticsearch(postgres_dsn: str) -> None:
    async with bank_client(settings_of(postgres_dsn, CLOSED, metrics_open=True)) as client:
        shown = (await client.get("/metrics")).text
    assert 'cqrskit_due_commands{state="waiting"} 0.0' in shown
    assert "cqrskit_projection_lag_events{" not in shown


async def test_projections_have_nothing_to_do_without_elasticsearch_and_end_with_exit_code_3(postgres_dsn: str) -> None:
    variables = {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_ELASTICSEARCH_URL": f"http://ann:secret@{CLOSED}",
        "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "1",
    }
    finished = await cqrskit(*PROJECT, variables=variables)
    assert (finished.code, finished.out) == (3, "")
    assert events_of(finished.err).count("servers.waiting") == 1
    assert f"error: Elasticsearch at {CLOSED} cannot be reached" in finished.err
    assert "secret" not in finished.err


async def test_an_import_that_could_not_show_its_rows_ends_before_any_is_in(postgres_dsn: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("transfer_id,debit_account,credit_account,amount,currency\n1,asset:cash,ann,5,EUR\n")
    variables = {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_ELASTICSEARCH_URL": f"http://{CLOSED}",
        "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "1",
    }
    arguments = ("import", str(rows), "--open-accounts")
    refused = await ledger(*arguments, variables=variables)
    assert (refused.code, "read_store.away" in events_of(refused.err)) == (3, True), refused
    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    apart = await ledger(*arguments, "--no-projections", "--json", variables=variables)
    assert (apart.code, json.loads(apart.out)["posted"]) == (0, 1), apart


@asynccontextmanager
async def answering(status: int, body: dict[str, Any]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The address of a server that says it is an Elasticsearch, and what it answers, to be changed at will."""
    answer: dict[str, Any] = {"status": status, "body": body}

    async def handle(_: web.Request) -> web.Response:
        headers = {"X-Elastic-Product": "Elasticsearch"}
        return web.json_response(answer["body"], status=answer["status"], headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"{host}:{port}", answer
    finally:
        await runner.cleanup()


NINE = {"cluster_uuid": "a", "version": {"number": "9.0.1"}}
REFUSED = {"error": {"type": "security_exception", "reason": "unable to authenticate user"}, "status": 401}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(200, NINE, "is version 9.0.1; cqrskit needs 8.x"), (401, REFUSED, "does not let us in")],
)
async def test_an_elasticsearch_that_answers_and_cannot_be_used_ends_the_start_at_once(
    status: int, body: dict[str, Any], said: str, postgres_dsn: str
) -> None:
    async with answering(status, body) as (address, _):
        variables = {
            "CQRSKIT_DATABASE_URL": postgres_dsn,
            "CQRSKIT_ELASTICSEARCH_URL": f"http://ann:secret@{address}",
            "CQRSKIT_CONNECT_TIMEOUT_SECONDS": LONGER_THAN_WE_WAIT,
        }
        finished = await cqrskit(*SERVE, variables=variables)
    assert (finished.code, events_of(finished.err)) == (2, [])
    assert said in finished.err


async def test_an_elasticsearch_that_comes_back_and_cannot_be_used_is_told_once_and_tried_again(
    postgres_dsn: str,
) -> None:
    unavailable = {"error": {"type": "unavailable", "reason": "starting"}, "status": 503}
    async with answering(503, unavailable) as (address, answer):
        settings = settings_of(postgres_dsn, address)
        app = create_app(settings)
        plugin_of(app).projections = ()
        with capture_logs() as logs:
            async with bank_client(settings, app) as client:
                answer.update(status=200, body=NINE)
                await eventually(lambda: _told(logs, "read_store.unusable"))
                assert "is version 9.0.1" in _told(logs, "read_store.unusable")[0]["reason"]
                assert (await client.get("/accounts")).status_code == 503
                assert (await client.post("/accounts", json={"owner": "Ann"})).status_code == 201
                answer.update(body={**NINE, "version": {"number": "8.12.2"}})
                await eventually(lambda: _told(logs, "read_store.back"))
        assert len(_told(logs, "read_store.unusable")) == 1


def _told(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]
