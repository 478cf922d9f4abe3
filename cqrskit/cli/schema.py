"""``cqrskit schema``: keep the stored versions of events in files, and hold the code to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import rich_click as click

from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError
from cqrskit.events import EventRegistry
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.postgres.migrate import require_migrated
from cqrskit.schema import CheckReport, Finding, FreezeReport, check, check_log, freeze, payloads_of_log
from cqrskit.schema.checking import FINDINGS_MAX
from cqrskit.schema.frozen import path_of
from cqrskit.servers import database_url
from cqrskit.settings import Settings, load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["schema_group"]

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("schema"),
    show_default=False,
    help="Where the files are (default: schema in the current folder).",
)


@click.group("schema")
def schema_group() -> None:
    """Keep the stored versions of events in files, and hold the code to them.

    \b
    Examples:
      cqrskit schema freeze --app bank:app
      cqrskit schema check --app bank:app
      cqrskit schema check --app bank:app --log --sample 100000
    """


@schema_group.command("freeze")
@app_option
@folder_option
@click.option(
    "--compatible",
    is_flag=True,
    help="Also take over events that only got fields with defaults since.",
)
@click.option(
    "--from-log", is_flag=True, help="Add up to 3 real payloads of each version; they may hold personal data."
)
@json_option("Write the report as JSON; errors are JSON too.")
@common_options
def freeze_command(app: str | None, folder: Path, compatible: bool, from_log: bool, as_json: bool) -> None:
    """Write a file for each stored version of an event that has none: its fields, and golden payloads.

    A version that was frozen and has changed since is refused, with exit code 1, and its file stays: a changed event
    needs a new version and an upcaster. Commit the files.

    \b
    Examples:
      cqrskit schema freeze --app bank:app
      cqrskit schema freeze --app bank:app --folder bank/schema --from-log
    """
    registry = application_of(app).registry

    async def work() -> int:
        payloads = await _payloads(registry) if from_log else None
        report = freeze(registry, folder, compatible=compatible, payloads=payloads)
        _show_freeze(report, folder, as_json)
        return FAILED if report.refused else 0

    run(work)


@schema_group.command("check")
@app_option
@folder_option
@click.option("--log", "with_log", is_flag=True, help="Also read all events of the log as the application would.")
@click.option("--sample", type=click.IntRange(min=1), help="With --log: only about so many, spread evenly over it.")
@json_option("Write the report as JSON; errors are JSON too.")
@common_options
def check_command(app: str | None, folder: Path, with_log: bool, sample: int | None, as_json: bool) -> None:
    """Check that events are as they were frozen, and that every golden payload can be read; exit code 1 if not.

    It needs no server, except with --log.

    \b
    Examples:
      cqrskit schema check --app bank:app
      cqrskit schema check --app bank:app --log --sample 100000 --json
    """
    if sample is not None and not with_log:
        raise ConfigurationError("--sample says how much of the log is read: add --log")
    registry = application_of(app).registry

    async def work() -> int:
        report = check(registry, folder)
        if with_log:
            found = await _check_log(registry, sample)
            report.events = found.events
            report.findings += found.findings
        _show_check(report, with_log, as_json)
        return FAILED if report.findings else 0

    run(work)


@asynccontextmanager
async def _log_opened(what: str) -> AsyncIterator[tuple[PostgresEventStore, Settings, Callable[[int, int], None]]]:
    """The log, the settings, and a function that shows how far the reading is."""
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    async with database_url(settings) as url:
        await asyncio.to_thread(require_migrated, url, settings.connect_timeout_seconds)
        pool = await open_pool(url, connections_max=1, timeout_seconds=settings.connect_timeout_seconds)
        store = PostgresEventStore(pool, url, connect_timeout_seconds=settings.connect_timeout_seconds)
        try:
            with ProgressBar(what, await store.head()) as bar:
                yield store, settings, lambda position, _: bar.show(position)
        finally:
            await store.close()
            await pool.close()


async def _payloads(registry: EventRegistry) -> dict[str, list[bytes]]:
    async with _log_opened("looking for payloads") as (store, settings, show):
        return await payloads_of_log(registry, store, block_size=settings.block_size_max, on_progress=show)


async def _check_log(registry: EventRegistry, sample: int | None) -> CheckReport:
    async with _log_opened("reading the log") as (store, settings, show):
        return await check_log(registry, store, block_size=settings.block_size_max, sample=sample, on_progress=show)


def _show_freeze(report: FreezeReport, folder: Path, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    for name in report.written:
        print(f"wrote {path_of(folder, name)}")
    _show_findings(report.refused)
    counts = f"{len(report.written)} written, {len(report.unchanged)} unchanged"
    print(f"{counts}, {len(report.refused)} refused" if report.refused else counts)


def _show_check(report: CheckReport, with_log: bool, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    _show_findings(report.findings)
    looked_at = [counted(report.versions, "version"), counted(report.payloads, "payload")]
    if with_log:
        looked_at.append(counted(report.events, "event"))
    count = len(report.findings)
    answer = counted(count, "finding") if count else "all can be read"
    print(f"{', '.join(looked_at)}: {answer}{' or more' if count >= FINDINGS_MAX else ''}")


def _show_findings(findings: list[Finding]) -> None:
    for finding in findings:
        place = "" if finding.position is None else f" at position {finding.position}"
        payload = "" if finding.payload is None else f": {finding.payload}"
        print(f"{finding.stored_name}{place}: {finding.message}{payload}")
