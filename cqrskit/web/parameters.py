"""Query parameters: those that a route does not know are refused, since a misspelt filter would find too much."""

import difflib
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

__all__ = ["only_known_parameters"]

_known: dict[BaseRouteHandler, frozenset[str]] = {}


async def only_known_parameters(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """A guard, ``Litestar(..., guards=[only_known_parameters])``: 400 for query parameters that nothing declares.

    It knows those that are annotated with `QueryParameter` (or ``FromQuery``), in the handler and in what it depends
    on, such as `min_position`. It is a coroutine function since Litestar runs any other guard in a thread.
    """
    sent = connection.query_params.keys()
    if not sent:
        return
    known = _known.get(handler)
    if known is None:
        known = _known[handler] = frozenset(_declared_by(handler))
    unknown = [name for name in dict.fromkeys(sent) if name not in known]
    if unknown:
        raise ValidationException(
            extra=[{"key": name, "source": "query", "message": _advice(name, known)} for name in unknown]
        )


def _advice(name: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown parameter; did you mean {near[0]}?"
    return f"unknown parameter; known are: {', '.join(sorted(known)) or 'none'}"


def _declared_by(handler: BaseRouteHandler) -> set[str]:
    signatures = [handler.parsed_fn_signature]
    wanted = set(handler.parsed_fn_signature.parameters)
    for name, provider in handler.resolve_dependencies().items():
        if name in wanted:
            signatures.append(provider.parsed_fn_signature)
    return {
        parameter.kwarg_definition.name or name
        for signature in signatures
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.kwarg_definition, QueryParameter)
    }
