"""Whether every document equals the fold of the log: the promise that a read model rests on, checked from outside."""

from cqrskit.application import Runtime
from cqrskit.projection import Projection
from cqrskit.verification import Difference, Verifier

__all__ = ["assert_projection_exact", "verifier_of"]

TOLD_MAX = 10


async def verifier_of(runtime: Runtime, projection: type[Projection], *, until: int | None = None) -> Verifier:
    """A full verification of a projection, which must have reached `until` (default: the log's head)."""
    head = await runtime.event_store.head() if until is None else until
    made = projection()
    index = made.index
    parked = await runtime.checkpoints.parked_keys(index.name, index.generation)
    return Verifier(
        made,
        index,
        event_store=runtime.event_store,
        read_store=runtime.read_store,
        registry=runtime.application.registry,
        until=head,
        parked={each.key: each.position for each in parked},
        block_size=runtime.settings.block_size_max,
    )


async def assert_projection_exact(runtime: Runtime, projection: type[Projection], *, until: int | None = None) -> None:
    """Raise AssertionError, with the first differences, unless every document equals the fold of the log.

    The projection must have reached `until` (default: the log's head); it and writers may go on meanwhile.
    """
    verifier = await verifier_of(runtime, projection, until=until)
    differences: list[Difference] = []
    async for difference in verifier.differences():
        if len(differences) < TOLD_MAX:
            differences.append(difference)
    if differences:
        lines = [_line(each) for each in differences]
        raise AssertionError(
            f"{verifier.report.differences} documents of projection {projection.name} are not the fold of the log up "
            f"to position {verifier.report.head}:\n" + "\n".join(lines)
        )


def _line(difference: Difference) -> str:
    return (
        f"{difference.kind} {difference.id}: version {difference.found_version} is {difference.found}, "
        f"{difference.expected} at {difference.expected_version} is due"
        + (f" ({difference.reason})" if difference.reason else "")
    )
