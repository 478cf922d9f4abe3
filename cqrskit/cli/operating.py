"""What the commands that look after projections share: an open application, questions to people, tables."""

import asyncio
import difflib
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import rich_click as click
from rich.console import Console
from rich.table import Table

from cqrskit.application import Application, Runtime
from cqrskit.checkpoints import Generation
from cqrskit.errors import ConfigurationError, CqrskitError
from cqrskit.fingerprint import fingerprint_of
from cqrskit.generations import generation_for
from cqrskit.projection import Projection
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging

__all__ = [
    "confirm",
    "console",
    "counted",
    "generation_of",
    "near_to",
    "opened",
    "show_table",
    "table_of",
    "yes_option",
]

WIDTH_IN_FILES = 160

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
"""Add ``--yes`` (parameter `yes`): the answer to what `confirm` would ask."""


@asynccontextmanager
async def opened(application: Application) -> AsyncIterator[Runtime]:
    """The application without an executor and without projections, to look after it."""
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    async with application.open(settings, executor=False) as runtime:
        yield runtime


async def generation_of(runtime: Runtime, projection: type[Projection], number: int | None) -> Generation:
    """The generation of this number; without one, that which this code reads. ConfigurationError if there is none."""
    generations = await runtime.checkpoints.generations()
    if number is None:
        found = generation_for(projection, fingerprint_of(projection), generations)
    else:
        own = (each for each in generations if each.projection == projection.name)
        found = next((each for each in own if each.number == number), None)
    if found is None:
        what = "no generation" if number is None else f"no generation {number}"
        raise ConfigurationError(
            f"projection {projection.name!r} has {what}: see `cqrskit generations {projection.name}`"
        )
    return found


async def confirm(question: str, *, yes: bool) -> None:
    """Go on only if a person says yes, or has said so by ``--yes``.

    Where nobody can be asked ConfigurationError is raised, and CqrskitError for any other answer.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError(f"{question} Nobody can be asked here: say --yes if that is what you want")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await _line()
    if answer.strip().lower() not in ("y", "yes"):
        raise CqrskitError("nothing was changed")


async def _line() -> str:
    """A line of standard input; a signal ends the wait, which it would not do in a thread."""
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline()


def near_to(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'balances'?``, or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def counted(count: int, noun: str) -> str:
    """``1 key``, ``2 keys``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def console() -> Console:
    """Standard output: as wide as the terminal, and wide enough in files."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES, highlight=False)


def table_of(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table; numbers stand to the right."""
    cells = list(rows)
    table = Table(title=title)
    for place, heading in enumerate(headings):
        numbers = any(isinstance(row[place], int | float) for row in cells)
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(_cell, row))
    return table


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table on standard output."""
    console().print(table_of(headings, rows, title=title))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
