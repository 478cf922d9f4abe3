"""The ledger: transfers of three events each, over accounts of which few are used most of the time."""

import csv
import tempfile
from pathlib import Path

from cqrskit import Settings
from example_ledger.application import ledger
from example_ledger.files import RowReader, generate
from example_ledger.importing import import_file
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_least

__all__ = ["measure"]

GOAL = 3_000.0


async def measure(bench: Bench) -> list[Row]:
    """Rows of a file in each second, the first time and again."""
    count = bench.amount(100_000, at_least=100)
    bench.say(f"importing a file of {count:,} transfers, twice")
    with tempfile.TemporaryDirectory() as folder, bench.database() as url:
        path = Path(folder) / "transfers.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(generate(1_000, count, "zipf", 1))
        async with ledger.open(Settings(database_url=url)) as runtime:
            first = await import_file(RowReader(path), runtime.executor, open_accounts=True)
            again = await import_file(RowReader(path), runtime.executor, open_accounts=True)
    assert (first.rejected, again.posted) == (0, 0)
    return [
        Row("ledger import of a file, zipf", "transfers/s", first.rows_per_second, limit=at_least(GOAL)),
        Row("the same file again, nothing to do", "rows/s", again.rows_per_second),
    ]
