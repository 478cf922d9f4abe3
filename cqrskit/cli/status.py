"""``cqrskit status``: how each projection is, once or all the time."""

import asyncio
import contextlib
import sys
from collections.abc import Sequence

import msgspec
import rich_click as click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from cqrskit.application import Application, Runtime
from cqrskit.cli.operating import console, opened, table_of
from cqrskit.cli.running import FAILED, common_options, json_option, run, run_until_stopped
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.due_commands import DueCommandsStatus
from cqrskit.errors import ServerUnavailable
from cqrskit.status import PartitionStatus, ProjectionStatus

__all__ = ["status_command"]

WATCH_INTERVAL_SECONDS = 1.0
HEADINGS = ("projection", "generation", "position", "lag (events)", "lag (s)", "documents", "parked keys", "moved by")


@click.command("status")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@app_option
@click.option("--watch", is_flag=True, help="Show it anew every second, until SIGINT or SIGTERM.")
@click.option("--check", is_flag=True, help="Exit code 1 if a projection has problems; for monitoring.")
@json_option("Write one JSON array (with --watch: one a line, every second); errors are JSON too.")
@common_options
def status_command(names: tuple[str, ...], app: str | None, watch: bool, check: bool, as_json: bool) -> None:
    """Show how projections are (all, or those named): generation, position, lag, documents, parked keys, workers.

    Below the table stands what somebody should look at: a lag or parked keys beyond the limits in the settings, a
    partition that nobody moves, a failure; and what else is going on, such as a rebuild that is due.

    \b
    Examples:
      cqrskit status --app bank:app
      cqrskit status balances --app bank:app --watch
      cqrskit status --app bank:app --json
      cqrskit status --app bank:app --check
    """
    application = application_of(app)
    wanted = [application.projection_named(name).name for name in names]
    if watch and check:
        raise click.UsageError("--check looks once, --watch all the time: choose one")

    async def once() -> int:
        async with opened(application) as runtime:
            found = await _statuses(runtime, wanted)
            _print(application, found, as_json)
            if not as_json and not wanted:
                print("\n".join([*_due(await runtime.due_commands.status()), *await _reactions(runtime)]))
            return FAILED if check and any(each.problems for each in found) else 0

    async def all_the_time(stop: asyncio.Event) -> None:
        async with opened(application) as runtime:
            await _watch(application, runtime, wanted, stop, as_json)

    if watch:
        run_until_stopped(all_the_time)
    run(once)


async def _statuses(runtime: Runtime, wanted: Sequence[str]) -> list[ProjectionStatus]:
    return [each for each in await runtime.status() if not wanted or each.name in wanted]


async def _watch(
    application: Application, runtime: Runtime, wanted: Sequence[str], stop: asyncio.Event, as_json: bool
) -> None:
    """On a terminal the table is drawn over; elsewhere each stands below the last. A lost server is waited for."""
    output = console()
    draws = output.is_terminal and not output.is_dumb_terminal and not as_json
    live = Live(console=output, auto_refresh=False) if draws else None
    with live or contextlib.nullcontext():
        while not stop.is_set():
            try:
                found = await _statuses(runtime, wanted)
            except ServerUnavailable as error:
                if live is None:
                    print(str(error), file=sys.stderr, flush=True)
                else:
                    live.update(Text(str(error)), refresh=True)
            else:
                if live is None:
                    _print(application, found, as_json)
                else:
                    live.update(_drawn(application, found), refresh=True)
            try:
                async with asyncio.timeout(WATCH_INTERVAL_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue


def _print(application: Application, projections: Sequence[ProjectionStatus], as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(projections).decode(), flush=True)
    else:
        console().print(_drawn(application, projections))
        sys.stdout.flush()


def _drawn(application: Application, projections: Sequence[ProjectionStatus]) -> RenderableType:
    rows = [
        (
            each.name,
            f"{each.generation} ({each.state})" if each.state else "none",
            each.position,
            each.lag_events,
            each.lag_seconds,
            each.documents,
            each.parked_keys,
            _moved_by(each.partitions),
        )
        for each in projections
    ]
    notes = [Text(f"{each.name}: {note}") for each in projections for note in _notes(each)]
    return Group(table_of(HEADINGS, rows, title=application.name), *notes)


def _due(status: DueCommandsStatus) -> list[str]:
    """How the commands are that wait for their time."""
    late = f", the oldest overdue by {status.overdue_seconds:,.0f} s" if status.overdue_seconds >= 1 else ""
    lines = [f"due commands: {status.waiting:,} waiting{late}, {status.parked:,} parked"]
    if status.parked:
        lines.append("due commands: see `cqrskit due list --parked`")
    return lines


async def _reactions(runtime: Runtime) -> list[str]:
    """How far each reaction is; what it parked is among the due commands."""
    names = [each.name for each in runtime.application.reactions]
    found = await runtime.due_commands.positions(names) if names else {}
    positions = {name: min(types.values()) for name, types in found.items()}
    head = await runtime.event_store.head()
    return [
        f"reaction {name}: position {positions[name]:,}, lag {head - positions[name]:,} events"
        if name in positions
        else f"reaction {name}: it was never started: run `cqrskit serve`"
        for name in names
    ]


def _moved_by(partitions: Sequence[PartitionStatus]) -> str:
    """Who moves the partitions; each with its position, where there are several."""
    if len(partitions) == 1:
        return partitions[0].worker or "nobody"
    return "\n".join(f"{each.number}: {each.worker or 'nobody'} at {each.position:,}" for each in partitions)


def _notes(status: ProjectionStatus) -> list[str]:
    """What somebody should look at, and what else is going on."""
    notes = list(status.problems)
    if status.rebuild_due is not None:
        notes.append(status.rebuild_due)
    if status.coming is not None:
        notes.append(f"generation {status.coming} is coming")
    return notes
