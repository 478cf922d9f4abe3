"""Query parameters: those that a route does not know are refused, since a misspelt filter would find too much."""

import difflib
from urllib.parse import parse_qsl

from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import Scope
from litestar.utils.signature import ParsedSignature

__all__ = ["require_known_parameters", "signatures_of"]

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


def signatures_of(handler: BaseRouteHandler) -> list[ParsedSignature]:
    """The signature of a handler, and those of all that it depends on, at any depth."""
    providers = handler.resolve_dependencies()
    found = [handler.parsed_fn_signature]
    seen: set[str] = set()
    for signature in found:  # which grows on the way
        new = [name for name in signature.parameters if name in providers and name not in seen]
        seen.update(new)
        found += [providers[name].parsed_fn_signature for name in new]
    return found


def _declared_by(handler: BaseRouteHandler) -> set[str]:
    return {
        parameter.kwarg_definition.name or name
        for signature in signatures_of(handler)
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.kwarg_definition, QueryParameter)
    }
