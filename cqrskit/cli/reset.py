"""``cqrskit reset``: begin a projection's documents again, from nothing."""

import msgspec
import rich_click as click

from cqrskit.cli.operating import confirm, opened, yes_option
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.fingerprint import fingerprint_of
from cqrskit.generations import live_generation, make_live

__all__ = ["reset_command"]


class Reset(msgspec.Struct, frozen=True):
    """The new generation of a projection, and the one that it has replaced, if there was any."""

    projection: str
    generation: int
    retired: int | None


@click.command("reset")
@click.argument("name")
@app_option
@yes_option
@json_option("Write the result as JSON; errors are JSON too.")
@common_options
def reset_command(name: str, app: str | None, yes: bool, as_json: bool) -> None:
    """Begin a projection's documents again from nothing: queries find no documents until they are folded again.

    A new generation is live at once, and empty; the old one is kept until `cqrskit prune`. Readers that name a
    position wait for it, or are refused. The way without that is `cqrskit rebuild`, which builds the documents first.

    \b
    Examples:
      cqrskit reset balances --app bank:app
      cqrskit reset balances --app bank:app --yes
    """
    application = application_of(app)
    projection = application.projection_named(name)

    async def reset() -> None:
        async with opened(application) as runtime:
            await confirm(
                f"Queries of {name} will find no documents until all events are folded again; `cqrskit rebuild {name}` "
                "does that without a gap. Begin from nothing all the same?",
                yes=yes,
            )
            before = live_generation(
                [each for each in await runtime.checkpoints.generations() if each.projection == name]
            )
            number = await runtime.checkpoints.reset(name, fingerprint_of(projection), projection.partitions)
            identity = await runtime.read_store.prepare(projection.index(number))
            await runtime.checkpoints.set_index(name, number, identity)
            await make_live(runtime.read_store, runtime.checkpoints, projection)
            retired = None if before is None else before.number
            if as_json:
                print(msgspec.json.encode(Reset(name, number, retired)).decode())
                return
            kept = "" if retired is None else f"; generation {retired} is kept until `cqrskit prune {name}`"
            print(f"generation {number} of {name} is live and empty{kept}")

    run(reset)
