"""Bodies are read strictly: ``"5"`` and ``5.0`` are no whole numbers, and an error says where in the body it is.

Litestar converts bodies as leniently as query parameters; in a request that moves money a text in place of a number
is a mistake to be told of.
"""

import re
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, ValidationException

__all__ = ["StrictRequest"]

_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded to the route's own type, strictly."""

    async def json(self) -> Any:
        """The decoded body. Raises ClientException for malformed JSON, ValidationException for a wrong value."""
        data_field = self.route_handler.parsed_data_field
        body = await self.body()
        if data_field is None:
            return _decoded(body, Any)
        return _decoded(body, data_field.raw)


def _decoded(body: bytes, body_type: Any) -> Any:
    try:
        return _decoder_of(body_type).decode(body or b"null")
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        field = place.group(1) if place else ""
        raise ValidationException(
            extra=[{"key": field, "source": "body", "message": _PLACE.sub("", message)}]
        ) from None
    except msgspec.DecodeError as error:
        raise ClientException(f"the body is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise ClientException("the body is not JSON: it is not UTF-8") from None


@lru_cache(maxsize=1_000)
def _decoder_of(body_type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(body_type)
