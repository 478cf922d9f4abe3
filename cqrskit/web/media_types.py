"""Refuses bodies that are not of the media type that the route reads."""

from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException
from litestar.params import BodyKwarg
from litestar.types import Scope

__all__ = ["UnsupportedMediaType", "require_media_type"]


class UnsupportedMediaType(HTTPException):
    """The route reads another media type than the one that was sent."""

    status_code = 415


def require_media_type(scope: Scope, sent: bytes) -> None:
    """Raise UnsupportedMediaType when a route that reads JSON is sent something that says it is not JSON.

    A body without a Content-Type is taken for JSON, so that a bare ``curl -d`` needs a header but a test does not.
    """
    if sent != b"application/json" and not _is_json(sent.decode("latin-1")) and _reads_json(scope):
        media_type = sent.decode("latin-1").partition(";")[0]
        raise UnsupportedMediaType(detail=f"the body must be application/json, not {media_type}")


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
