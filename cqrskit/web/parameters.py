"""Query parameters, read strictly: a filter that is misspelt, sent twice or taken for nothing would find too much.

Litestar takes the text ``null`` for a parameter that was not sent, and any number for a moment.
"""

import difflib
from collections.abc import Iterator
from types import NoneType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter
from litestar.types import Scope
from litestar.typing import FieldDefinition
from litestar.utils.signature import ParsedSignature

__all__ = ["require_known_parameters", "signatures_of", "without_none"]


class _Parameter(msgspec.Struct, frozen=True):
    """How the text of one parameter is read. `kind` is None for one that is for others to judge."""

    kind: Any
    repeats: bool
    lax: bool

    def mistake_in(self, text: str) -> str | None:
        """What is wrong with a text; None: nothing, or it is for others to judge."""
        if self.kind is None:
            return None
        try:
            msgspec.convert(text, self.kind, strict=not self.lax)
        except msgspec.ValidationError as error:
            return str(error)
        return None


_known: dict[BaseRouteHandler, dict[str, _Parameter]] = {}


def require_known_parameters(scope: Scope) -> None:
    """Raise ValidationException (400) for query parameters that nothing declares, or that are sent otherwise.

    Known are those that are annotated with `QueryParameter` (or ``FromQuery``), in the handler and in what it depends
    on, such as `min_position`.
    """
    handler = scope["route_handler"]
    known = _known.get(handler)
    if known is None:
        known = _known[handler] = dict(_declared_by(handler))
    errors: dict[str, str] = {}
    seen: set[str] = set()
    for name, text in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        message = _mistake(name, text, known, seen)
        if message is not None:
            errors.setdefault(name, message)
        seen.add(name)
    if errors:
        raise ValidationException(
            extra=[{"key": name, "source": "query", "message": message} for name, message in errors.items()]
        )


def _mistake(name: str, text: str, known: dict[str, _Parameter], seen: set[str]) -> str | None:
    parameter = known.get(name)
    if parameter is None:
        return _advice(name, known)
    if name in seen and not parameter.repeats:
        return "sent more than once"
    return parameter.mistake_in(text)


def _advice(name: str, known: dict[str, _Parameter]) -> str:
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


def _declared_by(handler: BaseRouteHandler) -> Iterator[tuple[str, _Parameter]]:
    for signature in signatures_of(handler):
        for name, field in signature.parameters.items():
            if isinstance(field.kwarg_definition, QueryParameter):
                yield field.kwarg_definition.name or name, _parameter(field)


def _parameter(field: FieldDefinition) -> _Parameter:
    kind = without_none(field.raw)
    if any(part.is_non_string_collection for part in (field, *field.inner_types)):
        return _Parameter(None, repeats=True, lax=True)
    try:
        msgspec.json.schema(kind)
    except (TypeError, RuntimeError):
        return _Parameter(None, repeats=False, lax=True)
    return _Parameter(kind, repeats=False, lax=_has_number(kind))


def _has_number(kind: Any) -> bool:
    """Whether a text must be taken for something that JSON would not write as text."""
    return kind in (int, float, bool) or any(_has_number(part) for part in get_args(kind))


def without_none(kind: Any) -> Any:
    """The type without None, and without what is not msgspec's in its annotations."""
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        kept = [each for each in metadata if isinstance(each, msgspec.Meta)]
        inner = without_none(inner)
        return Annotated[(inner, *kept)] if kept else inner
    parts = get_args(kind)
    if NoneType not in parts:
        return kind
    return Union[tuple(part for part in parts if part is not NoneType)]  # noqa: UP007, its parts are known only now
