"""Bodies are read strictly: ``"5"`` and ``5.0`` are no whole numbers, and an error says where in the body it is.

Litestar converts bodies as leniently as query parameters; in a request that moves money a text in place of a number
is a mistake to be told of.
"""

import re
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, InternalServerException, ValidationException
from litestar.handlers import BaseRouteHandler

from cqrskit.errors import InvalidField

__all__ = ["StrictRequest"]

_NAMED = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded to the route's own type, strictly."""

    @property
    def content_length(self) -> int | None:
        """The length that was sent. Read off the headers, since Litestar would make an object of all of them first."""
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                try:
                    return int(value)
                except ValueError:
                    raise ClientException(f"Invalid content-length: {value.decode('latin-1')!r}") from None
        return None

    async def body(self) -> bytes:
        """The body. Raises ClientException if there is none where the route needs one, or if its sender hung up."""
        try:
            body = await super().body()
        except InternalServerException as error:  # what Litestar makes of a client that hangs up is no fault of ours
            raise ClientException("the connection ended before the body did") from error
        if not body:
            field = self.route_handler.parsed_data_field
            if field is not None and field.is_required:
                raise ClientException("the body is missing: this route reads JSON")
        return body

    async def json(self) -> Any:
        """The decoded body. Raises ClientException for malformed JSON, ValidationException for a wrong value."""
        return _decoded(await self.body(), _decoder_of(self.route_handler))


def _decoded(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(body or b"null")
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        message = _PLACE.sub("", str(error))
        named = _NAMED.search(message)
        names = [found[1] for found in (place, named) if found]
        if isinstance(error.__cause__, InvalidField):
            names.append(error.__cause__.field)
            message = error.__cause__.message
        field = ".".join(filter(None, names))
        raise ValidationException(extra=[{"key": field, "source": "body", "message": message}]) from None
    except msgspec.DecodeError as error:
        raise ClientException(f"the body is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise ClientException("the body is not JSON: it is not UTF-8") from None


_decoders: dict[BaseRouteHandler, msgspec.json.Decoder[Any]] = {}
"""By route and not by type: to hash an annotated type costs more than all the rest of a request."""


def _decoder_of(route_handler: BaseRouteHandler) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(route_handler)
    if decoder is None:
        data_field = route_handler.parsed_data_field
        decoder = _decoders[route_handler] = msgspec.json.Decoder(Any if data_field is None else data_field.raw)
    return decoder
