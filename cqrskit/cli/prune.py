"""``cqrskit prune``: delete documents that nobody goes back to."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
import rich_click as click

from cqrskit.application import Runtime
from cqrskit.checkpoints import Generation, GenerationState
from cqrskit.cli.operating import confirm, counted, opened, show_table, yes_option
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.projection import Projection

__all__ = ["prune_command"]

FORGOTTEN = "forgotten"
"""Said for the state of an index that no generation knows: somebody died, or its server did, before it was deleted."""


class Pruned(msgspec.Struct, frozen=True):
    """A generation that was deleted, would be, or was left alone since a worker moves it (`in_use`)."""

    projection: str
    generation: int
    state: str
    result: Literal["deleted", "would_be_deleted", "in_use"]


@click.command("prune")
@click.argument("name", required=False)
@app_option
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Retired generations of each projection to keep, those that a roll-back would take first.",
)
@click.option("--building", is_flag=True, help="Also those that are being built, or are ready but were never live.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@yes_option
@json_option("Write one JSON array; errors are JSON too.")
@common_options
def prune_command(
    name: str | None, app: str | None, keep: int, building: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Delete retired generations of all projections, or of one: their indices with the documents.

    An index that was left when its generation was deleted (`forgotten`) is deleted too. The live generation is never
    touched, nor one that a worker moves. Exit code 1 if one was left alone for that.

    \b
    Examples:
      cqrskit prune --app bank:app --dry-run
      cqrskit prune balances --app bank:app --keep 0 --yes
      cqrskit prune balances --app bank:app --building
    """
    application = application_of(app)
    wanted = application.projections if name is None else (application.projection_named(name),)
    projections = {each.name: each for each in wanted}

    async def prune() -> int:
        async with opened(application) as runtime:
            found, forgotten = await _forgotten(runtime, wanted)
            old = [each for projection in projections for each in _old(found, projection, keep, building)]
            due = [(each.projection, each.number, str(each.state)) for each in old]
            due += [(projection.name, number, FORGOTTEN) for projection, number in forgotten]
            if dry_run or not due:
                _show([Pruned(*each, "would_be_deleted") for each in due], as_json)
                return 0
            named = ", ".join(f"{projection} {number} ({state})" for projection, number, state in due)
            await confirm(f"{counted(len(due), 'generation')} will be deleted for good: {named}. Go on?", yes=yes)
            results = [await _prune(runtime, projections[each.projection], each) for each in old]
            for projection, number in forgotten:
                await runtime.read_store.drop(projection.index(number))
                results.append(Pruned(projection.name, number, FORGOTTEN, "deleted"))
            _show(results, as_json)
            return FAILED if any(each.result == "in_use" for each in results) else 0

    run(prune)


def _old(generations: Sequence[Generation], projection: str, keep: int, building: bool) -> list[Generation]:
    """What is to go: all but the newest retired ones, of which those that were rolled back are the first to go."""
    own = [each for each in generations if each.projection == projection]
    never = datetime.min.replace(tzinfo=UTC)
    retired = sorted(
        (each for each in own if each.state is GenerationState.RETIRED),
        key=lambda each: (not each.rolled_back, each.retired_at or never),
        reverse=True,
    )
    coming = [each for each in own if each.state in (GenerationState.BUILDING, GenerationState.READY)]
    return sorted([*retired[keep:], *(coming if building else [])], key=lambda each: each.number)


async def _prune(runtime: Runtime, projection: type[Projection], generation: Generation) -> Pruned:
    """Delete one, unless somebody holds a part of it, or has made it live since we looked.

    The row goes before the index, so that nobody can begin to work on documents that are being deleted. Should this
    process die in between, the index is left, which no later generation takes for its own; the next prune deletes it.
    """
    deleted = await runtime.checkpoints.delete_generation(projection.name, generation.number)
    if deleted:
        await runtime.read_store.drop(projection.index(generation.number))
    return Pruned(projection.name, generation.number, generation.state, "deleted" if deleted else "in_use")


async def _forgotten(
    runtime: Runtime, projections: Iterable[type[Projection]]
) -> tuple[Sequence[Generation], list[tuple[type[Projection], int]]]:
    """All generations there are, and indices of which none of them knows.

    The indices are looked for first: a generation is there before its index is.
    """
    found = [(each, number) for each in projections for number in await runtime.read_store.numbers_of(each.name)]
    generations = await runtime.checkpoints.generations()
    known = {(each.projection, each.number) for each in generations}
    return generations, [(each, number) for each, number in found if (each.name, number) not in known]


def _show(pruned: Sequence[Pruned], as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(pruned).decode())
        return
    if not pruned:
        print("there is nothing to delete")
        return
    words = {"deleted": "deleted", "would_be_deleted": "would be deleted", "in_use": "left alone: a worker moves it"}
    show_table(
        ("projection", "generation", "state", "result"),
        ((each.projection, each.generation, each.state, words[each.result]) for each in pruned),
    )
