"""``ledger generate``: a sample file of transfers."""

import csv
import os
import sys
from pathlib import Path
from typing import cast

import rich_click as click

from cqrskit import ConfigurationError
from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import common_options
from example_ledger.files import Skew, generate

__all__ = ["generate_command"]

STEP = 5_000


@click.command("generate")
@click.option(
    "--accounts", type=click.IntRange(2, 10_000_000), default=1_000, show_default=True, help="How many accounts."
)
@click.option("--transfers", type=click.IntRange(min=0), default=10_000, show_default=True, help="How many transfers.")
@click.option(
    "--skew",
    type=click.Choice(["uniform", "zipf"]),
    default="zipf",
    show_default=True,
    help="Whether all accounts are used alike, or few of them most of the time.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write; - is standard output.")
@common_options
def generate_command(accounts: int, transfers: int, skew: str, seed: int, out: Path) -> None:
    """Write a CSV file of transfers that `ledger import FILE --open-accounts` takes.

    \b
    Examples:
      ledger generate --out transfers.csv
      ledger generate --accounts 1000 --transfers 100000 --skew zipf --seed 1 --out transfers.csv
      ledger generate --transfers 10 --out -
    """
    rows = generate(accounts, transfers, cast(Skew, skew), seed)
    if str(out) == "-":
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    beside = out.with_name(out.name + ".part")
    try:
        with beside.open("w", newline="", encoding="utf-8") as file, ProgressBar("generating", transfers) as bar:
            writer = csv.writer(file, lineterminator="\n")
            for number, row in enumerate(rows):
                writer.writerow(row)
                if number % STEP == 0:
                    bar.show(number)
        os.replace(beside, out)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    print(f"wrote {counted(transfers, 'transfer')} among {counted(accounts, 'account')} to {out}")
