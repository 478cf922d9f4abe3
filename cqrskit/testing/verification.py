"""Whether every document equals the fold of the log: the promise that a read model rests on, checked from outside."""

from cqrskit.application import Runtime
from cqrskit.projection import Projection
from cqrskit.verification import Difference

__all__ = ["assert_projection_exact"]

TOLD_MAX = 10


async def assert_projection_exact(runtime: Runtime, projection: type[Projection], *, until: int | None = None) -> None:
    """Raise AssertionError, with the first differences, unless every document equals the fold of the log.

    The projection must have reached `until` (default: the log's head); it and writers may go on meanwhile.
    """
    verifier = await runtime.verifier(projection, until=until)
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
