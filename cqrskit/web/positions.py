"""Consistency over HTTP: the position that a reader brings back, and the one that a reply carries."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from litestar import Litestar, Request, Response
from litestar.di import NamedDependency
from litestar.enums import MediaType
from litestar.exceptions import ValidationException
from litestar.params import HeaderParameter, QueryParameter
from litestar.response.base import ASGIResponse
from litestar.serialization import get_serializer
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED

from cqrskit.application import Runtime

__all__ = ["CONSISTENCY_POSITION", "POSITION_MAX", "MinPosition", "PositionGuard", "at_position", "position_in"]

T = TypeVar("T")

CONSISTENCY_POSITION = "Consistency-Position"
"""The header in which a command's reply names its position, and a reader sends it back."""
POSITION_MAX = 2**63 - 1
MinPosition = NamedDependency[int | None]
"""Type of the handler parameter `min_position`: the answer must contain every event up to it; None: any answer."""

_AS_TEXT: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}
"""Positions are read by `position_in`: Litestar would take the text ``null`` for none, and answer without waiting."""
PositionInHeader = Annotated[
    str | None,
    HeaderParameter(
        name=CONSISTENCY_POSITION,
        required=False,
        description="Answer only from read models that contain every event up to this position.",
        schema_extra=_AS_TEXT,
    ),
]
PositionInQuery = Annotated[
    str | None,
    QueryParameter(
        name="min_position",
        required=False,
        description="The same as the Consistency-Position header; the larger of the two counts.",
        schema_extra=_AS_TEXT,
    ),
]


def position_in(text: str | None, source: str) -> int | None:
    """The position that was sent in a ``header`` or ``query``, None if none was. Raises ValidationException (400)."""
    if text is None or (_DIGITS.fullmatch(text) and int(text) <= POSITION_MAX):
        return None if text is None else int(text)
    name = CONSISTENCY_POSITION if source == "header" else "min_position"
    message = f"must be a whole number from 0 to {POSITION_MAX}"
    raise ValidationException(extra=[{"key": name, "source": source, "message": message}])


_DIGITS = re.compile("[0-9]{1,19}")


class _Encoded(ASGIResponse):
    """A JSON body with its headers, ready to be sent. Litestar's own response looks at each header several times."""

    __slots__ = ("_headers",)

    def __init__(self, body: bytes, status_code: int, headers: Mapping[str, str]) -> None:
        self.background = None
        self.body = body
        self.is_head_response = False
        self.status_code = status_code
        self._headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()),
        ]

    def encode_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as they are sent."""
        return self._headers


class _JSONReply(Response[T]):
    """A response that takes a short way where nothing but a JSON body and headers is asked of it."""

    def to_asgi_response(self, app: Litestar | None, request: Request[Any, Any, Any], **options: Any) -> ASGIResponse:
        """What is sent; see Litestar's `Response`."""
        asked = self.cookies or self.background or self.media_type or any(map(options.get, _NEEDS_THE_LONG_WAY))
        status_code = self.status_code or options.get("status_code") or HTTP_200_OK
        if asked or status_code in _WITHOUT_BODY or options.get("media_type") not in _JSON_OR_UNSAID:
            return super().to_asgi_response(app, request, **options)
        body = self.render(self.content, MediaType.JSON, get_serializer(options.get("type_encoders")))
        return _Encoded(body, status_code, self.headers)


_JSON_OR_UNSAID = (None, "", MediaType.JSON)
_WITHOUT_BODY = (HTTP_204_NO_CONTENT, HTTP_304_NOT_MODIFIED)
_NEEDS_THE_LONG_WAY = ("background", "cookies", "encoded_headers", "headers", "is_head_response")


def at_position(content: T, position: int, status_code: int | None = None) -> Response[T]:
    """A reply that names its position in the ``Consistency-Position`` header; by default with the route's status."""
    return _JSONReply(content, status_code=status_code, headers={CONSISTENCY_POSITION: str(position)})


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
