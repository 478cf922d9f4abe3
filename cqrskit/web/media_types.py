"""Refuses bodies that are not of the media type that the route reads."""

from litestar.datastructures import Headers
from litestar.enums import RequestEncodingType, ScopeType
from litestar.exceptions import HTTPException
from litestar.params import BodyKwarg
from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["UnsupportedMediaType", "refuse_other_media_types"]


class UnsupportedMediaType(HTTPException):
    """The route reads another media type than the one that was sent."""

    status_code = 415


def refuse_other_media_types(app: ASGIApp) -> ASGIApp:
    """ASGI middleware: 415 when a route that reads JSON is sent something that says it is not JSON.

    A body without a Content-Type is taken for JSON, so that a bare ``curl -d`` needs a header but a test does not.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            sent = Headers.from_scope(scope).get("content-type")
            if sent is not None and not _is_json(sent) and _reads_json(scope):
                raise UnsupportedMediaType(detail=f"the body must be application/json, not {sent.partition(';')[0]}")
        await app(scope, receive, send)

    return middleware


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == RequestEncodingType.JSON or media_type.endswith("+json")


def _reads_json(scope: Scope) -> bool:
    fields = scope["route_handler"].parsed_fn_signature.parameters
    data = fields.get("data")
    if data is None:
        return False
    kwarg = data.kwarg_definition
    return not isinstance(kwarg, BodyKwarg) or kwarg.media_type == RequestEncodingType.JSON
