"""Events that older code has written: loaded, folded and projected by newer code, and checked by the command line."""

import json
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import Query, Settings
from cqrskit.errors import UnknownEventType
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.changed_bank import Balance, Balances, Credit, OldCredit, new_bank, old_bank
from tests.integration.running_processes import Finished, cqrskit

NEW = "tests.integration.changed_bank:new_bank"
OLD = "tests.integration.changed_bank:old_bank"


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


async def written_by_the_old_code(settings: Settings, *amounts: int) -> UUID:
    account_id = uuid4()
    async with old_bank.open(settings) as runtime:
        for amount in amounts:
            await runtime.executor.execute(OldCredit(account_id=account_id, amount=amount))
    return account_id


def types_in_the_log(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("SELECT type FROM events ORDER BY position").fetchall()]


async def schema(command: str, dsn: str, folder: Path, *arguments: str, app: str = NEW) -> Finished:
    variables = {"CQRSKIT_DATABASE_URL": dsn, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "2"}
    return await cqrskit("schema", command, "--app", app, "--folder", str(folder), *arguments, variables=variables)


async def test_new_code_loads_and_projects_what_old_code_has_written(settings: Settings, postgres_dsn: str) -> None:
    account_id = await written_by_the_old_code(settings, 5, 7)
    async with new_bank.open(settings, projections=["balances"]) as runtime:
        result = await runtime.executor.execute(Credit(account_id=account_id, cents=1))
        assert result.reply == 1201
        page = await runtime.reader.search(Balances, Query(), min_position=result.position)
        (stored,) = page.value.items
        assert stored.document == Balance(
            1201, ["EUR of Account.Credited", "EUR of Account.Credited", "EUR of Account.Credited@3"]
        )
        await assert_projection_exact(runtime, Balances)
    expected = ["Account.Opened", *["Account.Greeted", "Account.Credited"] * 2, "Account.Credited@3"]
    assert types_in_the_log(postgres_dsn) == expected


async def test_old_versions_are_frozen_from_the_log_and_the_whole_log_is_checked(
    settings: Settings, postgres_dsn: str, tmp_path: Path
) -> None:
    await written_by_the_old_code(settings, 5, 5, 7, 8, 9)
    frozen = await schema("freeze", postgres_dsn, tmp_path, "--from-log")
    assert frozen.code == 0, frozen.err
    old = json.loads((tmp_path / "Account.Credited.json").read_text())
    assert old == {"stored_name": "Account.Credited", "from_log": [{"amount": 5}, {"amount": 7}, {"amount": 8}]}
    checked = await schema("check", postgres_dsn, tmp_path, "--log")
    assert (checked.code, checked.out) == (
        1,
        "Account.Credited@2: is an old version that is not frozen: freeze it with the code that declared it, or run "
        f"`cqrskit schema freeze --from-log`, or write {tmp_path}/Account.Credited@2.json with its stored_name and "
        "examples\n3 versions, 12 payloads, 11 events: 1 finding\n",
    )
    (tmp_path / "Account.Credited@2.json").write_text('{"stored_name":"Account.Credited@2","examples":[{"cents":5}]}')
    checked = await schema("check", postgres_dsn, tmp_path, "--log")
    assert (checked.code, checked.out) == (0, "4 versions, 13 payloads, 11 events: all can be read\n")


async def test_what_cannot_be_read_in_a_log_is_found_once_with_its_first_position(
    settings: Settings, postgres_dsn: str, tmp_path: Path
) -> None:
    account_id = await written_by_the_old_code(settings, 5)
    bad = [("Account.Credited@2", b'{"cents":"5"}'), ("Account.Credited@2", b'{"cents":"6"}'), ("Account.Gone", b"{}")]
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("UPDATE log_head SET position = position + 3")
        for number, (name, data) in enumerate(bad, start=4):
            connection.execute(
                "INSERT INTO events (position, stream_id, stream_version, type, data, metadata, recorded_at) "
                "VALUES (%s, %s, %s, %s, %s, '{}', now())",
                (number, account_id, number, name, data),
            )
    await schema("freeze", postgres_dsn, tmp_path)
    for version in ("Account.Credited", "Account.Credited@2"):
        payload = '{"amount":5}' if version == "Account.Credited" else '{"cents":5}'
        (tmp_path / f"{version}.json").write_text(f'{{"stored_name":"{version}","examples":[{payload}]}}')
    checked = await schema("check", postgres_dsn, tmp_path, "--log", "--json")
    assert checked.code == 1
    report = json.loads(checked.out)
    assert report["events"] == 6
    assert [(each["code"], each["stored_name"], each["position"]) for each in report["findings"]] == [
        ("undecodable", "Account.Credited@2", 4),
        ("unknown_type", "Account.Gone", 6),
    ]
    assert "upcaster in_euro made what does not fit Account.Credited@3" in report["findings"][0]["message"]
    sampled = await schema("check", postgres_dsn, tmp_path, "--log", "--sample", "3", "--json")
    assert json.loads(sampled.out)["events"] == 3


async def test_a_log_that_cannot_be_reached_is_exit_code_3(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    assert (await schema("freeze", nowhere, tmp_path, app=OLD)).code == 0
    assert (await schema("check", nowhere, tmp_path, app=OLD)).code == 0
    assert (await schema("check", nowhere, tmp_path, "--log", app=OLD)).code == 3
    assert (await schema("freeze", nowhere, tmp_path, "--from-log", app=OLD)).code == 3


async def test_old_code_stops_at_what_newer_code_has_written_and_misses_nothing(settings: Settings) -> None:
    account_id = await written_by_the_old_code(settings, 5)
    async with new_bank.open(settings) as runtime:
        await runtime.executor.execute(Credit(account_id=account_id, cents=1))
    async with old_bank.open(settings, projections=["old_balances"]) as runtime:

        async def stopped() -> bool:
            return runtime.stopped_projections == ["old_balances"]

        await eventually(stopped)
        failure = runtime.failures["old_balances"]
        assert failure is not None
        assert "'Account.Credited@3', which newer code has written" in failure
        (status,) = await runtime.status()
        assert status.position == 0
        with pytest.raises(UnknownEventType, match="newer code"):
            await runtime.executor.execute(OldCredit(account_id=account_id, amount=1))


async def test_events_are_listed_by_name_in_all_versions_or_in_one(settings: Settings, postgres_dsn: str) -> None:
    account_id = await written_by_the_old_code(settings, 5)
    async with new_bank.open(settings) as runtime:
        await runtime.executor.execute(Credit(account_id=account_id, cents=1))
    variables = {"CQRSKIT_DATABASE_URL": postgres_dsn}
    for name, count in [("Account.Credited", 2), ("Account.Credited@3", 1), ("Account.Greeted", 1)]:
        for where in ((), ("--stream", str(account_id))):
            listed = await cqrskit("events", "--app", NEW, "--type", name, *where, "--json", variables=variables)
            assert (listed.code, len(listed.out.splitlines())) == (0, count)
    refused = await cqrskit("events", "--app", NEW, "--type", "Account.Credited@4", variables=variables)
    assert refused.code == 2
