"""The benchmarks run and say what they should. How fast anything is, is not asserted: that is what they are for."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import PostgresServer
from example_ledger.application import ledger
from example_ledger.checking import check_books
from tests.benchmarks.figures import Row, Side, at_least, at_most, interleaved, percentile
from tests.benchmarks.ledger_log import fill_with_transfers
from tests.benchmarks.pace import arrivals, at_moments
from tests.benchmarks.peers.row_locks import BY_FUNCTION, BY_STATEMENTS, RowLocks

ROOT = Path(__file__).parents[2]
TINY = "0.002"
DEADLINE_SECONDS = 300


async def benchmarks(server: PostgresServer, *arguments: str, **variables: str) -> tuple[int, Any]:
    """Exit code and JSON of a tiny run."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks", "--share", TINY, "--json", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CQRSKIT_TEST_DATABASE_URL": server.url, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode is not None
    assert out, err.decode()
    return process.returncode, json.loads(out)


async def test_a_group_alone_shows_each_figure_beside_its_peer_and_its_limit(postgres_server: PostgresServer) -> None:
    code, found = await benchmarks(postgres_server, "--only", "writes")

    assert code == 0
    assert set(found["machine"]) == {"machine", "load at the start", "Postgres", "Python", "fdatasync"}
    assert list(found["groups"]) == ["writes"]
    rows = found["groups"]["writes"]
    assert [row["limit"] for row in rows if row["limit"]] == ["≥ 0.7", "≥ 4", "≥ 15", "≤ 1.5"]
    for row in rows:
        assert row["value"] > 0
        assert row["other"] > 0
        assert row["ratio"] == pytest.approx(row["value"] / row["other"])
        assert (row["ok"] is None) == (row["limit"] is None)


async def test_the_read_path_shows_its_figures_beside_their_limits(
    postgres_server: PostgresServer, elasticsearch_url: str
) -> None:
    groups = ("projections", "visibility", "rebuilds", "failover")
    only = [argument for group in groups for argument in ("--only", group)]
    code, found = await benchmarks(postgres_server, *only, ELASTICSEARCH_URL=elasticsearch_url)

    assert code == 0
    limits = {group: [row["limit"] for row in rows if row["limit"]] for group, rows in found["groups"].items()}
    assert limits == {
        "projections": ["≥ 0.85", "≥ 2.5", "≥ 3", "≥ 60,000"],
        "visibility": ["≤ 500"],
        "failover": ["≤ 1"],
        "rebuilds": ["≤ 2"],  # those of memory count in a full run only
    }
    assert all(row["value"] > 0 for rows in found["groups"].values() for row in rows)


async def test_the_log_that_projections_are_measured_with_is_one_that_commands_could_have_written(
    postgres_dsn: str,
) -> None:
    accounts = fill_with_transfers(postgres_dsn, accounts=20, events=500)

    async with ledger.open(Settings(database_url=postgres_dsn), executor=False) as runtime:
        report = await check_books(runtime, documents=False)
    assert report.violations == []
    assert (report.accounts, report.events) == (len(accounts), 500)
    assert report.transfers == 160


@pytest.mark.parametrize("script", [BY_FUNCTION, BY_STATEMENTS])
async def test_the_row_lock_peer_keeps_its_books(postgres_server: PostgresServer, script: str) -> None:
    url = postgres_server.create_database(migrated=False)
    locks = RowLocks(url, accounts=10)
    await locks.open()
    assert await locks.by_pgbench(script, 40) > 0
    await locks.by_function(40)
    await locks.by_statements(40)
    await locks.close()

    with psycopg.connect(url) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM transfers), (SELECT count(*) FROM entries), "
            "(SELECT sum(balance) FROM accounts)"
        ).fetchone()
        wrong = connection.execute(
            "SELECT id FROM accounts WHERE balance <> "
            "(SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = accounts.id)"
        ).fetchall()
    postgres_server.drop_database(url)
    assert (counts, wrong) == ((120, 240, 0), [])


def test_a_limit_is_held_against_the_ratio_and_without_a_peer_against_the_value() -> None:
    assert Row("", "/s", 30.0, "peer", 10.0, at_least(3)).kept is True
    assert Row("", "/s", 29.0, "peer", 10.0, at_least(3)).kept is False
    assert Row("", "ms", 12.0, "peer", 10.0, at_most(1.1)).kept is False
    assert Row("", "/s", 2_999.0, limit=at_least(3_000)).kept is False
    assert Row("", "", 0.0, limit=at_most(0)).kept is True
    assert Row("", "/s", 1.0, "peer", 2.0).kept is None


def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() -> None:
    values = [float(number) for number in range(1, 1_001)]

    assert [percentile(values, part) for part in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1_000]
    assert percentile([7.0], 0.5) == 7


async def test_sides_are_measured_in_turns_and_stand_for_their_median() -> None:
    seen: list[str] = []
    values = {"a": iter([1.0, 9.0, 2.0]), "b": iter([5.0, 5.0, 5.0])}

    async def measure(name: str) -> float:
        seen.append(name)
        return next(values[name])

    sides = [Side(name, lambda name=name: measure(name)) for name in values]  # type: ignore[misc]
    await interleaved(3, *sides)

    assert "".join(seen) == "abbaab"
    assert [side.value for side in sides] == [2.0, 5.0]


async def test_an_open_loop_begins_each_arrival_in_order_with_the_moment_at_which_it_was_due() -> None:
    moments = arrivals(2_000, 0.1)
    due: list[float] = []

    await at_moments(moments, due.append)

    assert len(moments) > 100
    assert [moment - due[0] for moment in due] == pytest.approx([moment - moments[0] for moment in moments])


async def test_an_open_loop_ends_with_the_error_of_an_arrival() -> None:
    def fail(due: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await at_moments([0.0, 0.001], fail)
