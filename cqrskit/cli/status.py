"""``cqrskit status``: how far each projection is."""

import sys
from collections.abc import Sequence

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table

from cqrskit.application import Application
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.settings import load_settings
from cqrskit.status import ProjectionStatus
from cqrskit.telemetry import configure_logging

__all__ = ["status_command"]

WIDTH_IN_FILES = 160
COLUMNS = {
    "projection": "name",
    "position": "position",
    "visible": "visible_position",
    "head": "head",
    "lag (events)": "lag_events",
    "lag (s)": "lag_seconds",
    "documents": "documents",
    "parked keys": "parked_keys",
}


@click.command("status")
@app_option
@json_option("Write one JSON array; errors are JSON too.")
@common_options
def status_command(app: str | None, as_json: bool) -> None:
    """Show each projection's position, lag, documents and parked keys.

    \b
    Examples:
      cqrskit status --app bank:app
      cqrskit status --app bank:app --json
    """
    application = application_of(app)

    async def status() -> None:
        settings = load_settings()
        configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
        async with application.open(settings, executor=False) as runtime:
            _show(application, await runtime.status(), as_json)

    run(status)


def _show(application: Application, projections: Sequence[ProjectionStatus], as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(projections).decode())
        return
    table = Table(title=application.name)
    for heading in COLUMNS:
        table.add_column(heading, justify="left" if heading == "projection" else "right")
    for projection in projections:
        table.add_row(*(_cell(getattr(projection, field)) for field in COLUMNS.values()))
    Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES).print(table)


def _cell(value: object) -> str:
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
