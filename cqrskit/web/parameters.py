"""Query parameters: those that a route does not know are refused, since a misspelt filter would find too much."""

import difflib
from urllib.parse import parse_qsl

from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import Scope

__all__ = ["require_known_parameters"]

_known: dict[BaseRouteHandler, frozenset[str]] = {}


def require_known_parameters(scope: Scope) -> None:
    """Raise ValidationException (400) for query parameters that nothing declares.

    Known are those that are annotated with `QueryParameter` (or ``FromQuery``), in the handler and in what it depends
    on, such as `min_position`.
    """
    handler = scope["route_handler"]
    known = _known.get(handler)
    if known is None:
        known = _known[handler] = frozenset(_declared_by(handler))
    sent = (name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
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
