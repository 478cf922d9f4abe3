"""``cqrskit status``: how projections, reactions and due commands are, once or all the time."""

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
from cqrskit.cli.operating import console, counted, opened, table_of
from cqrskit.cli.running import FAILED, common_options, json_option, run, run_until_stopped
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.due_commands import DueCommandsStatus
from cqrskit.errors import ServerUnavailable
from cqrskit.reactions import ReactionStatus
from cqrskit.status import PartitionStatus, ProjectionStatus

__all__ = ["status_command"]

WATCH_INTERVAL_SECONDS = 1.0
HEADINGS = ("projection", "generation", "position", "lag (events)", "lag (s)", "documents", "parked keys", "moved by")


@click.command("status")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@app_option
@click.option("--watch", is_flag=True, help="Show it anew every second, until SIGINT or SIGTERM.")
@click.option("--check", is_flag=True, help="Exit code 1 if there are problems; for monitoring.")
@json_option("Write one JSON object (with --watch: one a line, every second); errors are JSON too.")
@common_options
def status_command(names: tuple[str, ...], app: str | None, watch: bool, check: bool, as_json: bool) -> None:
    """Show how projections are (all, or those named): generation, position, lag, documents, parked keys, workers.

    Below the table stands what somebody should look at: a lag or parked keys beyond the limits in the settings, a
    partition that nobody moves, a failure; and what else is going on, such as a rebuild that is due. If no projection
    is named, reactions and due commands follow: position and lag, what waits, what is overdue, and what is parked.

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
            found = await _status(runtime, wanted)
            _print(application, found, as_json)
            return FAILED if check and found.has_problems else 0

    async def all_the_time(stop: asyncio.Event) -> None:
        async with opened(application) as runtime:
            await _watch(application, runtime, wanted, stop, as_json)

    if watch:
        run_until_stopped(all_the_time)
    run(once)


class Status(msgspec.Struct, frozen=True):
    """What is shown; of named projections nothing else is."""

    projections: list[ProjectionStatus]
    reactions: list[ReactionStatus] = []
    due_commands: DueCommandsStatus | None = None

    @property
    def has_problems(self) -> bool:
        """Whether somebody should look at anything."""
        due = self.due_commands
        of_projections = any(each.problems for each in self.projections)
        return of_projections or any(each.problems for each in self.reactions) or bool(due and due.problems)


async def _status(runtime: Runtime, wanted: Sequence[str]) -> Status:
    found = await runtime.status()
    if wanted:
        return Status([each for each in found if each.name in wanted])
    return Status(found, await runtime.reaction_statuses(), await runtime.due_status())


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
                found = await _status(runtime, wanted)
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


def _print(application: Application, found: Status, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(found).decode(), flush=True)
    else:
        console().print(_drawn(application, found))
        sys.stdout.flush()


def _drawn(application: Application, found: Status) -> RenderableType:
    projections = found.projections
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
    return Group(table_of(HEADINGS, rows, title=application.name), *notes, *_of_the_write_side(found))


def _of_the_write_side(found: Status) -> list[Text]:
    """How the commands are that wait for their time, and how far each reaction is."""
    lines = [
        f"reaction {each.name}: position {each.position:,}, lag {counted(each.lag_events, 'event')} "
        f"({each.lag_seconds:,.0f} s), {each.parked_events:,} parked"
        for each in found.reactions
    ]
    lines += [f"reaction {each.name}: {problem}" for each in found.reactions for problem in each.problems]
    due = found.due_commands
    if due is not None:
        late = f", the oldest overdue by {due.overdue_seconds:,.0f} s" if due.overdue_seconds >= 1 else ""
        lines.append(f"due commands: {due.waiting:,} waiting{late}, {due.parked:,} parked")
        lines += [f"due commands: {problem}" for problem in due.problems]
    return [Text(line) for line in lines]


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
