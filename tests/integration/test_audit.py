"""``cqrskit audit``: who did what, and when, as the log tells it."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from cqrskit import Metadata, Settings
from tests.integration.bank import Credit, Open, bank
from tests.integration.running_processes import cqrskit


async def deeds(dsn: str, *options: str) -> list[dict[str, Any]]:
    finished = await cqrskit("audit", "--json", *options, variables={"CQRSKIT_DATABASE_URL": dsn})
    assert finished.code == 0, finished.err
    return [json.loads(line) for line in finished.out.splitlines()]


async def filled(dsn: str) -> tuple[UUID, UUID]:
    """Two accounts that two actors have opened and credited, some of it in one request."""
    ann, ben = uuid4(), uuid4()
    async with bank.open(Settings(database_url=dsn)) as runtime:
        execute = runtime.executor.execute
        await execute(Open(account_id=ann, owner="Ann"), Metadata(actor="shop", correlation_id="a"))
        await execute(Open(account_id=ben, owner="Ben"), Metadata(actor="shop", correlation_id="b"))
        credits_ = [Credit(account_id=each, amount=5) for each in (ann, ben, ann)]
        await runtime.executor.execute_many(credits_, Metadata(actor="till", correlation_id="c"))
        await execute(Credit(account_id=ben, amount=1))
    return ann, ben


async def test_the_log_tells_who_did_what_and_when(postgres_dsn: str) -> None:
    begun = datetime.now(UTC) - timedelta(seconds=1)
    ann, ben = await filled(postgres_dsn)
    found = await deeds(postgres_dsn)
    assert [(each.get("actor"), each["command"], each["first_position"], each["last_position"]) for each in found] == [
        ("shop", "Open", 1, 1),
        ("shop", "Open", 2, 2),
        ("till", "Credit", 3, 5),
        (None, "Credit", 6, 6),
    ]
    assert found[2]["events"] == {"Account.Credited": 3}
    assert (found[2]["streams"], found[2]["stream_ids"]) == (2, [str(ann), str(ben)])
    assert found[2]["correlation_id"] == "c"
    assert begun < datetime.fromisoformat(found[0]["at"]) < datetime.now(UTC)
    shown = await cqrskit("audit", variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    assert "3 × Account.Credited" in shown.out
    assert len(shown.out.splitlines()) == 5


async def test_what_is_asked_for_is_found_and_nothing_else(postgres_dsn: str) -> None:
    ann, _ = await filled(postgres_dsn)
    middle = (await deeds(postgres_dsn))[2]["at"]
    for options, positions in (
        (("--actor", "till"), [3]),
        (("--actor", "nobody"), []),
        (("--command", "Open"), [1, 2]),
        (("--stream", str(ann)), [1, 3, 5]),
        (("--since", middle), [3, 6]),
        (("--until", middle), [1, 2]),
        (("--since", "2999-01-01"), []),
        (("--limit", "1"), [1]),
        (("--actor", "shop", "--stream", str(ann)), [1]),
    ):
        found = await deeds(postgres_dsn, *options)
        assert [each["first_position"] for each in found] == positions, options


@pytest.mark.parametrize("option", ["--since", "--until"])
async def test_what_is_no_moment_is_refused(postgres_dsn: str, option: str) -> None:
    finished = await cqrskit("audit", option, "yesterday", variables={"CQRSKIT_DATABASE_URL": postgres_dsn})
    assert (finished.code, "'yesterday'" in finished.err) == (2, True)
