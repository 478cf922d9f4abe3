"""The ledger: transfers of three events each, over accounts of which few are used most of the time."""

import csv
import tempfile
from pathlib import Path

from cqrskit import Settings
from cqrskit.testing import PostgresServer
from example_ledger.application import ledger
from example_ledger.files import RowReader, generate
from example_ledger.importing import import_file
from tests.benchmarks.figures import Figure

__all__ = ["measure"]

GOAL = 3_000.0


async def measure(postgres: PostgresServer, scale: int) -> list[Figure]:
    """Rows of a file in each second, the first time and again."""
    url = postgres.create_database()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transfers.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(generate(1_000, 100_000 // scale, "zipf", 1))
        async with ledger.open(Settings(database_url=url)) as runtime:
            first = await import_file(RowReader(path), runtime.executor, open_accounts=True)
            again = await import_file(RowReader(path), runtime.executor, open_accounts=True)
    postgres.drop_database(url)
    assert (first.rejected, again.posted) == (0, 0)
    return [
        Figure("ledger import, 3 events per transfer, zipf", "transfers", first.rows_per_second, {"goal": GOAL}),
        Figure("the same file again, nothing to do", "rows", again.rows_per_second),
    ]
