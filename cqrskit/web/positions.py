"""Consistency over HTTP: the position that a reader brings back, and the one that a reply carries."""

from typing import Annotated, TypeVar

from litestar import Response
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.params import HeaderParameter, QueryParameter

from cqrskit.application import Runtime

__all__ = ["CONSISTENCY_POSITION", "MinPosition", "PositionGuard", "at_position"]

T = TypeVar("T")

CONSISTENCY_POSITION = "Consistency-Position"
"""The header in which a command's reply names its position, and a reader sends it back."""
POSITION_MAX = 2**63 - 1

MinPosition = NamedDependency[int | None]
"""Type of the handler parameter `min_position`: the answer must contain every event up to it; None: any answer."""

PositionInHeader = Annotated[
    int | None,
    HeaderParameter(
        name=CONSISTENCY_POSITION,
        ge=0,
        le=POSITION_MAX,
        required=False,
        description="Answer only from read models that contain every event up to this position.",
    ),
]
PositionInQuery = Annotated[
    int | None,
    QueryParameter(
        name="min_position",
        ge=0,
        le=POSITION_MAX,
        required=False,
        description="The same as the Consistency-Position header; the larger of the two counts.",
    ),
]


def at_position(content: T, position: int, status_code: int | None = None) -> Response[T]:
    """A reply that names its position in the ``Consistency-Position`` header; by default with the route's status."""
    return Response(content, status_code=status_code, headers={CONSISTENCY_POSITION: str(position)})


class PositionGuard:
    """Refuses positions that the log has not given out yet: waiting for them would be waiting for nothing.

    The head is asked for only when a position is beyond the last one seen, so most requests cost no query.
    """

    def __init__(self) -> None:
        self._known_head = 0

    async def check(self, position: int, runtime: Runtime) -> None:
        """Raise ValidationException (400) for a position beyond the log's head."""
        if position <= self._known_head:
            return
        self._known_head = max(self._known_head, await runtime.event_store.head())
        if position > self._known_head:
            message = f"position {position} is beyond the log, whose last position is {self._known_head}"
            raise ValidationException(
                extra=[{"key": "min_position", "source": f"query or {CONSISTENCY_POSITION} header", "message": message}]
            )
