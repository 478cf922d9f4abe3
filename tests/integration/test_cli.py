"""The ``cqrskit`` command as a real process: what it prints, its exit codes, and how it stops."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import httpx
import psycopg
import pytest

from cqrskit.testing import eventually
from tests.integration.running_processes import address_of, cqrskit, finish, processes_left, start

BANK = "tests.integration.bank:bank"
WEB = "tests.integration.bank:create_app"
DOWN = {
    "CQRSKIT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "2",
}


@pytest.fixture
def empty_postgres_dsn(postgres_dsn: str) -> str:
    """URL of a database without any of our tables."""
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_dsn


async def filled(dsn: str, accounts: int = 3) -> None:
    """Open accounts through a server process."""
    process = await start("serve", "--app", WEB, "--port", "0", variables={"CQRSKIT_DATABASE_URL": dsn})
    async with httpx.AsyncClient(base_url=await address_of(process)) as client:
        for number in range(accounts):
            reply = await client.post("/accounts", json={"owner": f"owner {number}"})
            assert reply.status_code == 201
    process.terminate()
    assert (await finish(process)).code == 0


async def in_flight(client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """A slow request that the server has begun to work on."""
    slow = asyncio.create_task(client.get("/slow"))

    async def begun() -> bool:
        return bool((await client.get("/slow/begun")).json())

    await eventually(begun)
    return slow


async def test_serve_answers_finishes_requests_in_flight_and_leaves_nothing_behind(postgres_dsn: str) -> None:
    process = await start("serve", "--app", WEB, "--port", "0", variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    async with httpx.AsyncClient(base_url=await address_of(process)) as client:
        slow = await in_flight(client)
        process.send_signal(signal.SIGTERM)
        assert (await slow).json() == {"finished": True}
    finished = await finish(process)
    assert finished.code == 0, finished.err
    assert not processes_left(process)
    assert "Traceback" not in finished.err


async def test_a_second_signal_ends_the_process_at_once(postgres_dsn: str) -> None:
    process = await start("serve", "--app", WEB, "--port", "0", variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    async with httpx.AsyncClient(base_url=await address_of(process)) as client:
        slow = await in_flight(client)
        process.send_signal(signal.SIGINT)

        async def refuses() -> bool:
            async with httpx.AsyncClient(base_url=client.base_url) as another:
                try:
                    await another.get("/health/live")
                except httpx.ConnectError:
                    return True
            return False

        await eventually(refuses)
        process.send_signal(signal.SIGTERM)
        assert (await finish(process)).code == 128 + signal.SIGTERM
        with pytest.raises(httpx.HTTPError):
            await slow


async def test_a_port_in_use_is_a_clear_error(postgres_dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = await cqrskit(
            "serve", "--app", WEB, "--port", port, variables={"CQRSKIT_DATABASE_URL": postgres_dsn}
        )
    assert finished.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in finished.err
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("serve", "--app", WEB, "--port", "0"), ("status", "--app", BANK), ("events",), ("migrate",)]
)
async def test_a_database_that_is_down_is_said_at_the_start(arguments: tuple[str, ...]) -> None:
    finished = await cqrskit(*arguments, variables=DOWN)
    assert finished.code == 3
    assert "error: Postgres at 127.0.0.1:1/nothing cannot be reached" in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("bank", "not of the form module:attribute"),
        ("tests.integration.bnk:bank", "there is no module"),
        ("tests.integration.bank:bnak", "did you mean bank?"),
        ("tests.integration.bank:NOT_AN_APPLICATION", "is of type int"),
        ("tests.integration.bank:command_reply", "needs content, result"),
        (BANK, "serve needs a Litestar app"),
    ],
)
async def test_a_wrong_app_is_explained(app: str, said: str) -> None:
    finished = await cqrskit("serve", "--app", app)
    assert finished.code == 2
    assert said in finished.err
    assert finished.err.count("\n") == 1


async def test_an_app_that_cannot_be_imported_is_explained(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "wrong.py").write_text("raise RuntimeError('not today')\n")
    missing = await cqrskit("status", "--app", "broken:app", folder=tmp_path)
    assert (missing.code, "imports nothing_of_this_name" in missing.err) == (2, True)
    wrong = await cqrskit("status", "--app", "wrong:app", folder=tmp_path)
    assert (wrong.code, "RuntimeError: not today" in wrong.err) == (2, True)
    near = await cqrskit("status", "--app", "wrnog:app", folder=tmp_path)
    assert (near.code, "did you mean wrong?" in near.err) == (2, True)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("status", "--app bank:bank for `bank = Application(...)`"),
        ("serve", "--app bank:app for `app = Litestar([...], plugins=[CqrskitPlugin(bank)])`"),
    ],
)
async def test_a_command_without_an_app_says_what_it_needs_with_an_example(command: str, example: str) -> None:
    unnamed = await cqrskit(command)
    assert unnamed.code == 2
    assert example in unnamed.err
    assert "CQRSKIT_APP" in unnamed.err


async def test_wrong_use_is_one_line_and_json_where_json_was_asked_for() -> None:
    unknown = await cqrskit("status", "--colour")
    assert unknown.code == 2
    assert unknown.err.count("\n") == 1
    setting = await cqrskit("status", "--app", BANK, "--json", variables={"CQRSKIT_PORT": "many"})
    assert setting.code == 2
    assert json.loads(setting.err)["error"]["code"] == "configuration"
    no_such = await cqrskit("project", "ledger", "--app", BANK)
    assert (no_such.code, "the projections are: balances" in no_such.err) == (2, True)


async def test_debug_shows_the_traceback() -> None:
    finished = await cqrskit("status", "--app", "nothing:here", "--debug")
    assert finished.code == 2
    assert "Traceback" in finished.err


async def test_an_unmigrated_database_is_refused_until_it_is_migrated(empty_postgres_dsn: str) -> None:
    variables = {"CQRSKIT_DATABASE_URL": empty_postgres_dsn}
    for command in (("serve", "--app", WEB, "--port", "0"), ("status", "--app", BANK), ("events",)):
        finished = await cqrskit(*command, variables=variables)
        assert (finished.code, "cqrskit migrate" in finished.err) == (2, True), finished.err
    first = await cqrskit("migrate", variables=variables)
    assert (first.code, "applied 0001.event-log" in first.out) == (0, True)
    again = await cqrskit("migrate", "--app", BANK, variables=variables)
    assert (again.code, "applied" in again.out) == (0, False)
    assert (await cqrskit("status", variables={**variables, "CQRSKIT_APP": BANK})).code == 0


async def test_events_and_status_show_what_was_written(postgres_dsn: str) -> None:
    await filled(postgres_dsn)
    variables = {"CQRSKIT_DATABASE_URL": postgres_dsn}
    level = await cqrskit("project", "--app", BANK, "--until-level", variables=variables)
    assert level.code == 0, level.err
    status = await cqrskit("status", "--app", BANK, "--json", variables=variables)
    (balances,) = json.loads(status.out)["projections"]
    assert balances["name"] == "balances"
    assert (balances["position"], balances["visible_position"], balances["head"]) == (3, 3, 3)
    assert (balances["lag_events"], balances["documents"], balances["parked_keys"]) == (0, 3, 0)
    table = await cqrskit("status", "--app", BANK, variables=variables)
    assert (table.code, "balances" in table.out, "\x1b" in table.out) == (0, True, False)

    lines = (await cqrskit("events", "--json", variables=variables)).out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [each["position"] for each in events] == [1, 2, 3]
    assert events[0]["data"] == {"owner": "owner 0"}
    stream = events[1]["stream_id"]
    of_stream = (await cqrskit("events", "--json", "--stream", stream, variables=variables)).out.splitlines()
    assert [json.loads(line)["position"] for line in of_stream] == [2]
    after = (await cqrskit("events", "--json", "--after", "1", "--limit", "1", variables=variables)).out.splitlines()
    assert [json.loads(line)["position"] for line in after] == [2]
    none = await cqrskit("events", "--json", "--type", "Account.Credited", variables=variables)
    assert (none.code, none.out) == (0, "")
    wrong = await cqrskit("events", "--type", "Account.Opend", "--app", BANK, variables=variables)
    assert (wrong.code, "Account.Opened" in wrong.err) == (2, True)


async def test_a_reader_that_goes_away_is_no_error(postgres_dsn: str) -> None:
    await filled(postgres_dsn, 20)
    reading, writing = os.pipe()
    os.close(reading)
    command = await start("events", "--json", stdout=writing, variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    os.close(writing)
    assert command.stderr is not None
    err = await command.stderr.read()
    assert (await command.wait(), err) == (0, b"")


async def test_project_runs_until_it_is_told_to_stop(postgres_dsn: str) -> None:
    process = await start("project", "--app", BANK, variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    assert process.stdout is not None
    assert b"projecting balances" in await process.stdout.readline()
    process.terminate()
    finished = await finish(process)
    assert finished.code == 0, finished.err


async def test_help_has_examples_for_every_command() -> None:
    for command in ("migrate", "serve", "project", "status", "events"):
        shown = await cqrskit(command, "--help")
        assert (shown.code, f"cqrskit {command}" in shown.out) == (0, True)
    assert (await cqrskit("--version")).code == 0


@pytest.mark.parametrize("read_side", ["nobody listens", "somebody listens and says nothing"])
async def test_an_elasticsearch_that_is_down_is_named_in_time(postgres_dsn: str, read_side: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if "says nothing" in read_side else 1
        variables = {
            "CQRSKIT_DATABASE_URL": postgres_dsn,
            "CQRSKIT_ELASTICSEARCH_URL": f"http://ann:secret@127.0.0.1:{port}",
            "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "1",
        }
        finished = await cqrskit("status", "--app", BANK, variables=variables)
    assert finished.code == 3
    assert f"Elasticsearch at 127.0.0.1:{port} cannot be reached" in finished.err
    assert "secret" not in finished.err
    assert "Traceback" not in finished.err
