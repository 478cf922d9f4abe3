"""``ledger check``: prove the books."""

import sys

import msgspec
import rich_click as click

from cqrskit import load_settings
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.telemetry import configure_logging
from example_ledger.application import ledger
from example_ledger.checking import CheckReport, check_books
from example_ledger.cli.import_file import wait_until_level

__all__ = ["check_command"]


@click.command("check")
@click.option("--log-only", is_flag=True, help="Do not compare the read models' documents.")
@json_option("Write the report as JSON.")
@common_options
def check_command(log_only: bool, as_json: bool) -> None:
    """Check the ledger's invariants over the whole log, and every document against it; exit code 1 on a violation.

    Debits equal credits in every transfer and over all accounts, posted or held; counters never fall, no account is
    below the limit that it had, a closed account takes no postings, each transfer was posted once, a hold ends once
    and is not exceeded, nor is what is reversed; positions and stream versions have no gap, documents are what the
    log says.

    \b
    Examples:
      ledger check
      ledger check --log-only --json
    """
    run(lambda: _check(not log_only, as_json))


async def _check(documents: bool, as_json: bool) -> int:
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    projections = [projection.name for projection in ledger.projections] if documents else []
    async with ledger.open(settings, executor=False, projections=projections) as runtime:
        if documents:
            await wait_until_level(runtime)
        with ProgressBar("checking the log", await runtime.event_store.head()) as bar:
            report = await check_books(runtime, documents=documents, on_progress=lambda done, _: bar.show(done))
    _show(report, as_json)
    return FAILED if report.violations else 0


def _show(report: CheckReport, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    compared = f", {sum(report.documents.values()):,} documents" if report.documents else ""
    print(f"{report.events:,} events, {report.accounts:,} accounts, {report.transfers:,} transfers{compared}")
    for violation in report.violations:
        print(f"invariant {violation.invariant} at position {violation.position}: {violation.message}", file=sys.stderr)
    print("the books are in order" if not report.violations else f"{len(report.violations)} violations")
