"""``cqrskit generations``: the documents of a projection that there are, new and old."""

from datetime import datetime

import msgspec
import rich_click as click

from cqrskit.application import Application
from cqrskit.checkpoints import Generation
from cqrskit.cli.operating import opened, show_table
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.fingerprint import fingerprint_of

__all__ = ["generations_command"]


class GenerationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One generation; `fits`: all its documents were folded by this code (None: not a projection of this code)."""

    projection: str
    generation: int
    state: str
    rolled_back: bool
    fits: bool | None
    position: int
    visible_position: int
    partitions: int
    workers: list[str]
    parked_keys: int
    created_at: datetime
    live_at: datetime | None
    retired_at: datetime | None


@click.command("generations")
@click.argument("name", required=False)
@app_option
@json_option("Write one JSON array; errors are JSON too.")
@common_options
def generations_command(name: str | None, app: str | None, as_json: bool) -> None:
    """List the generations of all projections, or of one: building, ready, live, or retired.

    Each is an index full of documents. Queries are answered from the live one; a retired one is kept to go back to.

    \b
    Examples:
      cqrskit generations --app bank:app
      cqrskit generations balances --app bank:app --json
    """
    application = application_of(app)
    if name is not None:
        application.projection_named(name)

    async def generations() -> None:
        async with opened(application) as runtime:
            found = await runtime.checkpoints.generations()
            rows = [_row(application, each) for each in found if name in (None, each.projection)]
            if as_json:
                print(msgspec.json.encode(rows).decode())
            elif rows:
                _show(rows)
            else:
                print("no projection was ever started")

    run(generations)


def _row(application: Application, generation: Generation) -> GenerationRow:
    known = {each.name: each for each in application.projections}.get(generation.projection)
    return GenerationRow(
        projection=generation.projection,
        generation=generation.number,
        state=generation.state.value,
        rolled_back=generation.rolled_back,
        fits=None if known is None else generation.fits(fingerprint_of(known)),
        position=generation.position,
        visible_position=generation.visible_position,
        partitions=len(generation.partitions),
        workers=sorted(
            {each.worker for each in generation.partitions if each.worker and (each.leased_seconds or 0) > 0}
        ),
        parked_keys=generation.parked_keys,
        created_at=generation.created_at,
        live_at=generation.live_at,
        retired_at=generation.retired_at,
    )


def _show(rows: list[GenerationRow]) -> None:
    show_table(
        (
            "projection",
            "generation",
            "state",
            "folded by",
            "position",
            "parked keys",
            "created",
            "live",
            "retired",
            "moved by",
        ),
        (
            (
                row.projection,
                row.generation,
                f"{row.state}{', rolled back' if row.rolled_back else ''}",
                "unknown" if row.fits is None else "this code" if row.fits else "other code",
                row.position,
                row.parked_keys,
                *(_moment(moment) for moment in (row.created_at, row.live_at, row.retired_at)),
                "\n".join(row.workers) or "nobody",
            )
            for row in rows
        ),
    )


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
