"""``ledger check``: prove the books."""

import sys
from contextlib import ExitStack
from typing import Self

import msgspec
import rich_click as click

from cqrskit import load_settings
from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.telemetry import configure_logging
from example_ledger.application import ledger
from example_ledger.checking import CheckReport, check_books
from example_ledger.cli.import_file import wait_until_level

__all__ = ["check_command"]

SHOWN_CHARACTERS_MAX = 300
"""Of what is found and what is due; --json has all of it."""


@click.command("check")
@click.option("--log-only", is_flag=True, help="Do not compare the read models' documents.")
@json_option("Write the report as JSON.")
@common_options
def check_command(log_only: bool, as_json: bool) -> None:
    """Check the ledger's invariants over the whole log, and every document against it; exit code 1 on a violation.

    Debits equal credits in every transfer and, after each decision, over all accounts, posted or held; counters follow
    from their events and never fall, no account is below the limit that it had, a frozen or closed one takes no
    postings, each transfer has one outcome, a hold ends once and is not exceeded, nor is what is reversed; positions
    and stream versions have no gap, receipts and documents are what the log says.

    Others may go on writing meanwhile. Memory stays flat: a temporary file, which TMPDIR can place elsewhere, takes
    about 200 bytes for each transfer. Of each kind of violation the first ten are shown, the others counted.

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
        with _Bars() as bars:
            report = await check_books(runtime, documents=documents, on_progress=bars.show)
    _show(report, as_json)
    return FAILED if report.violations else 0


class _Bars:
    """A progress bar for each thing that is done, one after another. Where the total is not known there is none."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._what = ""
        self._bar: ProgressBar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, what: str, done: int, total: int) -> None:
        """So much of it is done."""
        if what != self._what:
            self._stack.close()
            self._what = what
            self._bar = self._stack.enter_context(ProgressBar(what, total)) if total else None
        if self._bar is not None:
            self._bar.show(done, total=total)


def _show(report: CheckReport, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    looked_at = [
        counted(report.events, "event"),
        counted(report.accounts, "account"),
        counted(report.transfers, "transfer"),
        counted(report.receipts, "receipt"),
    ]
    if report.documents:
        looked_at.append(counted(sum(report.documents.values()), "document"))
    print(", ".join(looked_at))
    for kind, count in report.counts.items():
        cases = [each for each in report.violations if each.kind == kind]
        more = f", of which these are the first {len(cases)}" if count > len(cases) else ""
        print(f"invariant {cases[0].invariant}, {kind}: {count:,}{more}", file=sys.stderr)
        for each in cases:
            line = f"  at position {each.position}, {each.subject}: {_short(each.found)}; due: {_short(each.expected)}"
            print(line, file=sys.stderr)
    total = sum(report.counts.values())
    print("the books are in order" if not total else counted(total, "violation"))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]} ..."
