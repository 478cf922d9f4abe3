"""Which generation a program works with, when several are there.

Programs of different age run side by side during a deployment, and a rebuild makes a generation with one of them. Each
program follows the generation that was folded by its own code: so old programs go on with the old documents and new
ones with the new, until the old are gone, and nobody reads documents that it does not understand.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from cqrskit.checkpoints import Checkpoints, Generation, GenerationState, Lease
from cqrskit.errors import ProjectionStopped, RebuildRequired
from cqrskit.fingerprint import Fingerprint
from cqrskit.projection import Projection
from cqrskit.read_store import IndexSpec, ReadStore

__all__ = [
    "check_index",
    "coming_generation",
    "generation_for",
    "index_of",
    "live_generation",
    "make_live",
    "previous_generation",
]


def index_of(projection: type[Projection], generation: Generation) -> IndexSpec:
    """Where a generation's documents are."""
    return projection.index(generation.number)


def generation_for(
    projection: type[Projection], code: Fingerprint, generations: Sequence[Generation]
) -> Generation | None:
    """The generation of this projection that a program with this code reads and moves; None if there is none yet.

    That is the live one if it was begun by this code; else the newest that was, unless it was rolled back; else the
    live one, as long as its documents have the same fields. RebuildRequired if they do not.
    """
    own = [each for each in generations if each.projection == projection.name]
    live = live_generation(own)
    if live is not None and live.code == code:
        return live
    kept = [each for each in own if each.state is GenerationState.RETIRED and each.fits(code) and not each.rolled_back]
    if kept:
        return kept[-1]
    if live is not None and live.code.shape != code.shape:
        raise RebuildRequired(projection.name, live.number)
    return live


def live_generation(generations: Sequence[Generation]) -> Generation | None:
    """The live one among a projection's generations."""
    return next((each for each in generations if each.state is GenerationState.LIVE), None)


def coming_generation(generations: Sequence[Generation]) -> Generation | None:
    """The one that is being built, or is ready to be swapped in."""
    coming = (GenerationState.BUILDING, GenerationState.READY)
    return next((each for each in generations if each.state in coming), None)


def previous_generation(generations: Sequence[Generation]) -> Generation | None:
    """The one that a roll-back would make live: the last that was live and was not itself given up."""
    kept = [each for each in generations if each.state is GenerationState.RETIRED and not each.rolled_back]
    return max(kept, key=lambda each: each.retired_at or datetime.min.replace(tzinfo=UTC), default=None)


# --- what a generation's documents are in


async def check_index(read_store: ReadStore, projection: type[Projection], lease: Lease) -> None:
    """Let the read store know which index this process writes to; ProjectionStopped if the lease is for another."""
    identity = await read_store.prepare(projection.index(lease.generation))
    if identity != lease.index_identity:
        raise ProjectionStopped(
            f"the index of generation {lease.generation} of projection {projection.name!r} is not the one that its "
            f"checkpoints speak of, so it is to be filled anew: `cqrskit rebuild {projection.name}` does that, or a "
            "worker that moves it"
        )


async def make_live(read_store: ReadStore, checkpoints: Checkpoints, projection: type[Projection]) -> None:
    """Show the live generation under the projection's own name, also if another is made live meanwhile."""
    shown: int | None = None
    while True:
        own = [each for each in await checkpoints.generations() if each.projection == projection.name]
        live = live_generation(own)
        if live is None or live.number == shown:
            return
        await read_store.make_live(projection.index(live.number))
        shown = live.number
