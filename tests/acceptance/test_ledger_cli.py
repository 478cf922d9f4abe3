"""The ``ledger`` command in processes of its own: generate, import, check, demo."""

import asyncio
import csv
import json
import os
import re
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger as application
from example_ledger.files import id_of
from example_ledger.read_models import Accounts, TrialBalances
from tests.integration.running_processes import ledger, processes_left, start

ROWS = 3_000


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix)


def variables_of(settings: Settings) -> dict[str, str]:
    found = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_INDEX_PREFIX": settings.index_prefix}
    if settings.elasticsearch_url is not None:
        found["CQRSKIT_ELASTICSEARCH_URL"] = settings.elasticsearch_url
    return found


async def generated(folder: Path, rows: int = ROWS) -> Path:
    path = folder / "transfers.csv"
    finished = await ledger("generate", "--accounts", "50", "--transfers", str(rows), "--out", str(path))
    assert finished.code == 0, finished.err
    return path


async def imported(path: Path, settings: Settings, *options: str, code: int = 0) -> dict[str, Any]:
    finished = await ledger(
        "import", str(path), "--open-accounts", "--json", *options, variables=variables_of(settings)
    )
    assert finished.code == code, finished.err
    report: dict[str, Any] = json.loads(finished.out)
    return report


def rejected_in(report: dict[str, Any]) -> list[tuple[int, str]]:
    with Path(report["rejected_file"]).open(newline="") as file:
        return [(int(row["line"]), row["code"]) for row in csv.DictReader(file)]


async def test_the_same_seed_gives_the_same_file_and_another_one_another(tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        path = tmp_path / name
        arguments = ("--accounts", "9", "--transfers", "100", "--skew", "uniform", "--seed", seed, "--out", str(path))
        assert (await ledger("generate", *arguments)).code == 0
        contents.append(path.read_text())
    assert contents[0] == contents[1] != contents[2]
    assert len(contents[0].splitlines()) == 101


async def test_an_import_gives_what_the_file_says_and_a_second_one_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    path = await generated(tmp_path)
    report = await imported(path, settings)
    assert (report["rows"], report["posted"], report["rejected"]) == (ROWS, ROWS, 0)
    debits: Counter[str] = Counter()
    credits_: Counter[str] = Counter()
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            debits[str(id_of(row["debit_account"]))] += int(row["amount"])
            credits_[str(id_of(row["credit_account"]))] += int(row["amount"])
    expected = {key: (debits[key], credits_[key]) for key in debits.keys() | credits_.keys()}
    async with application.open(settings, executor=False) as runtime:
        index = Accounts.index(1)
        documents = {row.id: row.document async for row in runtime.read_store.scan(index)}
        found = {key: (document.debits_posted, document.credits_posted) for key, document in documents.items()}
        assert found == expected
        (trial,) = [row.document async for row in runtime.read_store.scan(TrialBalances.index(1))]
        assert trial.totals.debits == trial.totals.credits == sum(debits.values())
        head = await runtime.event_store.head()
        again = await imported(path, settings)
        assert (again["posted"], again["replayed"], again["accounts_opened"]) == (0, ROWS, 0)
        assert await runtime.event_store.head() == head
    checked = await ledger("check", "--json", variables=variables_of(settings))
    assert checked.code == 0, checked.err
    verdict = json.loads(checked.out)
    assert verdict["violations"] == []
    assert (verdict["transfers"], verdict["documents"]["statement_lines"]) == (ROWS, 2 * ROWS)


async def test_broken_rows_are_named_with_their_line_and_code_and_the_good_ones_are_posted(
    postgres_dsn: str, tmp_path: Path
) -> None:
    settings = Settings(database_url=postgres_dsn)
    good = "{id},a,b,5,EUR,2026-01-01T00:00:00Z,fine\n"
    path = tmp_path / "mixed.csv"
    lines = [
        "transfer_id,debit_account,credit_account,amount,currency,effective_at,description\n",
        good.format(id="t2"),
        "t3,a,b,0,EUR,,\n",
        "t4,a,b,1.5,EUR,,\n",
        "t5,a,b,9223372036854775808,EUR,,\n",
        "t6,a,a,5,EUR,,\n",
        "t7,a,b,5,USD,,\n",
        "t8,a,b,5\n",
        "t9,a,,5,EUR,,\n",
        "t10,a,b,5,EUR,yesterday,\n",
        '"t11",a,b,5,EUR,,"two\nlines"\n',
        "t2,a,b,6,EUR,2026-01-01T00:00:00Z,fine\n",
        good.format(id="t2"),
        "\n",
        'o"dd,a,b,5,EUR,,"x"y\n',
        good.format(id="t16"),
        "t18,a,b,5,eur,,\n",
    ]
    path.write_bytes("".join(lines).encode() + b"t17,a,b,5,EUR,,caf\xe9\n")
    report = await imported(path, settings, code=1)
    assert rejected_in(report) == [
        (3, "invalid_amount"),
        (4, "invalid_amount"),
        (5, "invalid_amount"),
        (6, "same_account"),
        (7, "currency_mismatch"),
        (8, "malformed_row"),
        (9, "malformed_row"),
        (10, "malformed_row"),
        (13, "transfer_conflict"),
        (16, "malformed_row"),
        (18, "malformed_row"),
        (19, "malformed_row"),
    ]
    assert (report["posted"], report["replayed"]) == (3, 1)
    told = Path(report["rejected_file"]).read_text()
    assert "the currency 'eur' must be three capital letters A to Z, as in ISO 4217, or" in told
    mended = tmp_path / "mixed.csv"
    mended.write_text(lines[0] + good.format(id="t2"))
    await imported(mended, settings)
    assert not (tmp_path / "mixed.csv.rejected.csv").exists()


async def test_ndjson_is_taken_too(postgres_dsn: str, tmp_path: Path) -> None:
    path = tmp_path / "transfers.ndjson"
    rows = [
        {"transfer_id": "t1", "debit_account": "asset:a", "credit_account": "b", "amount": 5, "currency": "EUR"},
        {"transfer_id": "t2", "debit_account": "asset:a", "credit_account": "b", "amount": 2.5, "currency": "EUR"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n[]\n")
    report = await imported(path, Settings(database_url=postgres_dsn), code=1)
    assert (report["posted"], report["rejected"]) == (1, 3)
    assert rejected_in(report) == [(2, "invalid_amount"), (3, "malformed_row"), (4, "malformed_row")]


async def test_what_there_is_one_of_is_told_in_the_singular(postgres_dsn: str, tmp_path: Path) -> None:
    path, variables = tmp_path / "one.csv", {"CQRSKIT_DATABASE_URL": postgres_dsn}
    made = await ledger("generate", "--accounts", "2", "--transfers", "1", "--out", str(path))
    assert made.out == f"wrote 1 transfer among 2 accounts to {path}\n"
    came = await ledger("import", str(path), "--open-accounts", variables=variables)
    assert came.out.startswith("1 row in ")
    assert came.out.endswith("1 posted, 0 known already, 0 rejected; 2 accounts opened\n")
    checked = await ledger("check", "--log-only", variables=variables)
    assert checked.out == "5 events, 2 accounts, 1 transfer, 3 receipts\nthe books are in order\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"transfer_id,debit_account\n", "lacks the columns credit_account, amount, currency"),
        (b"transfer_id,debit_account,credit_account,amount,currency,colour\n", "unknown columns colour"),
    ],
)
async def test_a_file_that_is_none_of_ours_is_refused_before_anything_starts(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "transfers.csv"
    if content is not None:
        path.write_bytes(content)
    finished = await ledger("import", str(path))
    assert finished.code == 2
    assert message in finished.err
    assert "Traceback" not in finished.err


async def test_check_finds_what_is_wrong_in_the_log_and_in_a_document(postgres_dsn: str, tmp_path: Path) -> None:
    settings = Settings(database_url=postgres_dsn)
    await imported(await generated(tmp_path, 50), settings)
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            "UPDATE read_models.cqrskit_accounts_1 SET document = jsonb_set(document, '{balance}', '1') "
            "WHERE id = (SELECT min(id) FROM read_models.cqrskit_accounts_1)"
        )
    finished = await ledger("check", "--json", variables=variables_of(settings))
    assert (finished.code, [each["invariant"] for each in json.loads(finished.out)["violations"]]) == (1, [10])
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            "INSERT INTO events SELECT (SELECT max(position) FROM events) + 2, stream_id, stream_version + 3, type, "
            "data, metadata, recorded_at FROM events WHERE type = 'Account.Debited' ORDER BY position DESC LIMIT 1"
        )
        connection.execute("UPDATE log_head SET position = (SELECT max(position) FROM events)")
    finished = await ledger("check", "--log-only", variables=variables_of(settings))
    assert finished.code == 1
    assert {"invariant 9", "invariant 3", "invariant 2"} <= set(re.findall(r"invariant \d", finished.err))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that other users may enter, as the embedded Postgres needs where we are root."""
    with tempfile.TemporaryDirectory(prefix="cqrskit-demo-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("read_models", ["postgres", "elasticsearch"])
async def test_the_demo_fills_itself_says_what_works_and_leaves_nothing_behind(
    request: pytest.FixtureRequest, open_folder: Path, index_prefix: str, read_models: str
) -> None:
    variables = {"CQRSKIT_DATA_FOLDER": str(open_folder / "data"), "CQRSKIT_INDEX_PREFIX": index_prefix}
    if read_models == "elasticsearch":
        variables["CQRSKIT_ELASTICSEARCH_URL"] = request.getfixturevalue("elasticsearch_url")
    process = await start(
        *("demo", "--port", "0", "--read-models", read_models),
        module="example_ledger",
        folder=open_folder,
        variables=variables,
    )
    assert process.stdout is not None
    shown = ""
    async with asyncio.timeout(120):
        while "Ctrl-C" not in shown:
            line = (await process.stdout.readline()).decode()
            assert line, shown + (await process.stderr.read()).decode() if process.stderr else ""
            shown += line
    assert "10,000 transfers posted" in shown
    (key,) = re.findall(r"^  KEY=(\S+)$", shown, re.MULTILINE)
    commands = re.findall(r"^  (curl .*)$", shown, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        curl = await asyncio.create_subprocess_shell(
            f"KEY={key}; {command} -w '\\n%{{http_code}}'", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await curl.communicate()
        body, _, status = out.decode().rpartition("\n")
        assert status in ("200", "201"), (command, out)
        assert '"items":[]' not in body, command
    process.send_signal(signal.SIGTERM)
    _, logged = await process.communicate()
    assert process.returncode == 0
    assert b"access.no_keys" not in logged
    assert b"service.started" in logged
    assert not processes_left(process)

    def left() -> list[str]:
        running = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
        return [line for line in running if str(open_folder) in line]

    await eventually(lambda: not left())  # the guardian of its Postgres ends a moment after it
    assert os.listdir(open_folder) == ["data"]
