"""``ledger import``: post the transfers of a file."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import rich_click as click

from cqrskit import Runtime, load_settings
from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, die_with_parent, json_option, run
from cqrskit.telemetry import configure_logging
from example_ledger.application import ledger
from example_ledger.files import RowReader
from example_ledger.importing import ImportReport, import_file

__all__ = ["import_command", "wait_until_level"]

CHECK_INTERVAL_SECONDS = 0.1


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--open-accounts", is_flag=True, help="Open accounts that rows name, without overdraft limit.")
@click.option(
    "--no-projections",
    is_flag=True,
    help="Leave the read models to a `ledger serve` or `cqrskit project` that runs already.",
)
@json_option("Write the report as JSON.")
@common_options
def import_command(file: Path, open_accounts: bool, no_projections: bool, as_json: bool) -> None:
    """Post the transfers of FILE (CSV or NDJSON), each once, however often the file is imported.

    Columns: transfer_id, debit_account, credit_account, amount (minor units), currency, and optionally effective_at
    and description. Accounts and transfers are named by a UUID or by any text, which gets a stable id; an account
    named like "asset:cash" has the type before the colon, any other is a liability.

    Rows that are refused are written with their line and code to FILE.rejected.csv, and the exit code is 1. A row of an
    account that does not exist is not sent at all: once the account is there, the next import posts it.

    \b
    Examples:
      ledger import transfers.csv --open-accounts
      ledger import transfers.ndjson --json
    """
    reader = RowReader(file)
    run(lambda: _import(reader, open_accounts, not no_projections, as_json))


async def _import(reader: RowReader, open_accounts: bool, with_projections: bool, as_json: bool) -> int:
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    async with ledger.open(settings) as runtime, _projections_beside(runtime, with_projections):
        with ProgressBar(f"importing {reader.path.name}", reader.size) as bar:
            report = await import_file(
                reader,
                runtime.executor,
                open_accounts=open_accounts,
                on_progress=lambda report: bar.show(reader.bytes_read, f"{report.rows_per_second:,.0f} rows/s"),
            )
        if with_projections:
            await wait_until_level(runtime)
    _show(report, as_json)
    return FAILED if report.rejected else 0


def _show(report: ImportReport, as_json: bool) -> None:
    if as_json:
        shown = {**msgspec.structs.asdict(report), "rows_per_second": round(report.rows_per_second, 1)}
        print(msgspec.json.encode(shown).decode())
        return
    print(
        f"{counted(report.rows, 'row')} in {report.seconds:.1f} s ({report.rows_per_second:,.0f} rows/s): "
        f"{report.posted:,} posted, {report.replayed:,} known already, {report.rejected:,} rejected; "
        f"{counted(report.accounts_opened, 'account')} opened"
    )
    if report.accounts_missing:
        print(
            f"missing accounts: {report.accounts_missing:,}; import the file again with --open-accounts to open them",
            file=sys.stderr,
        )
    if report.rejected_file is not None:
        print(f"the rejected rows are named in {report.rejected_file}", file=sys.stderr)


@asynccontextmanager
async def _projections_beside(runtime: Runtime, wanted: bool) -> AsyncIterator[None]:
    """Run the projections in a process of their own meanwhile, so that they have a core to themselves.

    ServerUnavailable, before anything is imported, if they would have nowhere to write.
    """
    if not wanted:
        yield
        return
    await runtime.read_store.ping()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cqrskit", "project", "--app", "example_ledger.application:ledger"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "CQRSKIT_LOG_LEVEL": "debug" if runtime.settings.log_level == "debug" else "warning"},
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def wait_until_level(runtime: Runtime, *, quiet: bool = False) -> None:
    """Show how the read models catch up with the log as it is now, and return when all have."""
    goal = await runtime.event_store.head()
    first = min(each.visible_position for each in await runtime.status(count_documents=False))
    with ProgressBar("read models", goal - first, quiet=quiet) as bar:
        while True:
            found = {each.name: each.visible_position for each in await runtime.status(count_documents=False)}
            slowest = min(found, key=found.__getitem__)
            bar.show(found[slowest] - first, slowest)
            if found[slowest] >= goal:
                return
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
