"""``cqrskit explain``: the events behind one document."""

import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.explanation import ExplainedEvent, Explanation
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["explain_command"]

WIDTH_IN_FILES = 160


class _Moment(click.ParamType[int | datetime]):
    """A position, or a moment in ISO 8601."""

    name = "position or time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | datetime:
        """An int or a datetime with a time zone (UTC where none is named)."""
        if isinstance(value, int | datetime):
            return value
        if value.isdigit():
            return int(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a position nor a time such as 2026-11-25T03:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.command("explain")
@click.argument("name")
@click.argument("document_id", metavar="ID")
@app_option
@click.option("--as-of", type=_Moment(), metavar="POSITION|TIME", help="The document as it was then.")
@json_option("Write one JSON object; errors are JSON too.")
@common_options
def explain_command(name: str, document_id: str, app: str | None, as_of: int | datetime | None, as_json: bool) -> None:
    """Show the events behind one document, the document folded from them, as stored, and where they differ.

    Exit code 1 if the stored document is not what the log says.

    \b
    Examples:
      cqrskit explain balances 8f14e45f-ceea-467f-9f0a-8f4b8f0f5c11 --app bank:app
      cqrskit explain balances 8f14e45f-ceea-467f-9f0a-8f4b8f0f5c11 --app bank:app --as-of 1200
      cqrskit explain balances 8f14e45f-ceea-467f-9f0a-8f4b8f0f5c11 --app bank:app --as-of 2026-11-25T03:00:00Z
    """
    application = application_of(app)
    projection = application.projection_named(name)

    async def explain() -> int:
        settings = load_settings()
        configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
        async with application.open(settings, executor=False) as runtime:
            with ProgressBar(f"{name}: reading the log", 1, quiet=as_json) as bar:
                explainer = await runtime.explainer(
                    projection, on_progress=lambda done, total: bar.show(done, total=total)
                )
                explanation = await explainer.explain(document_id, as_of=as_of)
        _show(explanation, as_json)
        return FAILED if explanation.equal is False else 0

    run(explain)


def _show(explanation: Explanation, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(explanation).decode())
        return
    console = Console(width=None if sys.stdout.isatty() else WIDTH_IN_FILES)
    if explanation.events:
        console.print(_table(explanation))
    else:
        console.print(f"{explanation.projection} {explanation.id}: no event is behind it", markup=False)
    missing = explanation.events_count - len(explanation.events)
    if missing:
        console.print(f"... and {counted(missing, 'earlier event')}")
    console.print(f"by the log (version {explanation.version}): {_json(explanation.document)}", markup=False)
    if explanation.equal is None:
        return
    stored = explanation.stored
    if stored is None:
        console.print("stored: nothing")
    else:
        console.print(f"stored (version {stored.version}): {_json(stored.document)}", markup=False)
    if explanation.equal:
        console.print("they are equal")
        return
    console.print("THEY DIFFER")
    for each in explanation.differences:
        console.print(f"  {each.name}: stored {_json(each.found)}, by the log {_json(each.expected)}", markup=False)


def _table(explanation: Explanation) -> Table:
    table = Table(title=f"{explanation.projection} {explanation.id}")
    for heading in ("position", "event", "recorded at", "data", "document after it"):
        table.add_column(heading, justify="right" if heading == "position" else "left", overflow="fold")
    for event in explanation.events:
        cells = (f"{event.position:,}", event.type, event.recorded_at.isoformat(), _json(event.data), _after(event))
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _after(event: ExplainedEvent) -> str:
    if event.failure is not None:
        return f"FAILED: {event.failure}"
    return "waits behind the one that failed" if event.waits else _json(event.document)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
