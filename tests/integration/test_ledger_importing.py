"""Files of transfers on a real Postgres: what a row may look like, and what an import that went wrong leaves behind."""

import csv
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cqrskit import Runtime, Settings
from example_ledger.accounts import OpenAccount
from example_ledger.application import ledger
from example_ledger.files import RowReader, id_of
from example_ledger.importing import ImportReport, import_file

HEADER = "transfer_id,debit_account,credit_account,amount,currency\n"


@pytest.fixture
async def runtime(postgres_dsn: str) -> AsyncIterator[Runtime]:
    async with ledger.open(Settings(database_url=postgres_dsn), projections=[]) as opened:
        yield opened


async def imported(runtime: Runtime, path: Path, content: str, *, open_accounts: bool = True) -> ImportReport:
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    return await import_file(RowReader(path), runtime.executor, open_accounts=open_accounts)


def rejected(report: ImportReport) -> list[tuple[int, str]]:
    """Lines and codes."""
    if report.rejected_file is None:
        return []
    with open(report.rejected_file, newline="", encoding="utf-8") as file:
        return [(int(row["line"]), row["code"]) for row in csv.DictReader(file)]


async def test_amounts_are_digits_and_names_are_texts_or_the_line_is_named(runtime: Runtime, tmp_path: Path) -> None:
    rows = [
        "t2,a,b,5,EUR\n",
        "t3,a,b,1_000,EUR\n",
        "t4,a,b,+5,EUR\n",
        "t5,a,b,-5,EUR\n",
        "t6,a,b,\u0665,EUR\n",
        "t7,a,b, 7 ,EUR\n",
        "t8,a, ,5,EUR\n",
        " ,a,b,5,EUR\n",
        "t10,a\0b,b,5,EUR\n",
        "t\0,a,b,5,EUR\n",
        't12,a,b,5,"EUR\n"\n',
        "t\udcff,a,b,5,EUR\n",
        "t15,\udcff,b,5,EUR\n",
        f"t16,a,b,{'9' * 5_000},EUR\n",
    ]
    report = await imported(runtime, tmp_path / "rows.csv", HEADER + "".join(rows))
    assert rejected(report) == [
        (3, "invalid_amount"),
        (4, "invalid_amount"),
        (5, "invalid_amount"),
        (6, "invalid_amount"),
        (8, "malformed_row"),
        (9, "malformed_row"),
        (10, "malformed_row"),
        (11, "malformed_row"),
        (12, "malformed_row"),
        (14, "malformed_row"),
        (15, "malformed_row"),
        (16, "invalid_amount"),
    ]
    assert (report.posted, report.accounts_opened) == (2, 2)


async def test_names_in_json_are_texts_or_whole_numbers(runtime: Runtime, tmp_path: Path) -> None:
    good = {"transfer_id": "t", "debit_account": "a", "credit_account": "b", "amount": 5, "currency": "EUR"}
    rows = [
        good,
        {**good, "transfer_id": 2, "debit_account": 7},
        *(
            {**good, "transfer_id": f"t{number}", "credit_account": name}
            for number, name in enumerate([[], {}, True, 1.5])
        ),
        {**good, "transfer_id": "t7", "amount": 5.0},
        {**good, "transfer_id": "t8", "amount": "1_0"},
        {**good, "transfer_id": "t9", "credit_account": "a\0"},
    ]
    report = await imported(runtime, tmp_path / "rows.ndjson", "".join(json.dumps(row) + "\n" for row in rows))
    assert [line for line, _ in rejected(report)] == [3, 4, 5, 6, 7, 8, 9]
    assert (report.posted, report.accounts_opened) == (2, 3)


async def test_a_first_import_without_open_accounts_spoils_nothing(runtime: Runtime, tmp_path: Path) -> None:
    content = HEADER + "".join(f"t{number},a,{'b' if number % 2 else 'c'},5,EUR\n" for number in range(2_500))
    forgotten = await imported(runtime, tmp_path / "rows.csv", content, open_accounts=False)
    assert (forgotten.rows, forgotten.rejected, forgotten.posted, forgotten.accounts_missing) == (2_500, 2_500, 0, 3)
    assert set(rejected(forgotten)) == {(line, "account_not_found") for line in range(2, 2_502)}
    assert await runtime.event_store.head() == 0
    for name in ("a", "b"):
        opening = OpenAccount(account_id=id_of(name), name=name, type="asset", currency="EUR", overdraft_limit=None)
        await runtime.executor.execute(opening)
    some = await imported(runtime, tmp_path / "rows.csv", content, open_accounts=False)
    assert (some.posted, some.rejected, some.accounts_missing) == (1_250, 1_250, 1)
    rest = await imported(runtime, tmp_path / "rows.csv", content)
    assert (rest.posted, rest.replayed, rest.rejected, rest.accounts_opened) == (1_250, 1_250, 0, 1)


async def test_an_account_that_is_missing_is_so_in_each_spelling_of_its_id(runtime: Runtime, tmp_path: Path) -> None:
    missing = "6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c"
    await runtime.executor.execute(
        OpenAccount(account_id=id_of("a"), name="a", type="asset", currency="EUR", overdraft_limit=None)
    )
    content = HEADER + "".join(
        f"t{number},a,{spelt},5,EUR\n" for number, spelt in enumerate([missing, missing.upper(), f"{{{missing}}}"])
    )
    forgotten = await imported(runtime, tmp_path / "rows.csv", content, open_accounts=False)
    assert (forgotten.rejected, forgotten.accounts_missing) == (3, 1)
    opened = await imported(runtime, tmp_path / "rows.csv", content)
    assert (opened.posted, opened.rejected, opened.accounts_opened) == (3, 0, 1)
