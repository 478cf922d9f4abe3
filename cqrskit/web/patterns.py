"""What a text must be like, in words: few people who call an API want to read a regular expression.

Words are said beside the pattern: ``msgspec.Meta(pattern="^[A-Z]{3}$", extra={"in_words": "three capital letters"})``.
"""

from collections.abc import Iterator

from litestar.handlers import BaseRouteHandler
from msgspec import inspect

from cqrskit.web.parameters import signatures_of

__all__ = ["IN_WORDS", "in_words"]

IN_WORDS = "in_words"
MISMATCH = "Expected `str` matching regex "


def in_words(message: str, handler: BaseRouteHandler) -> str:
    """A decoder's message about a value of the route, with the words for a pattern in its place, where it has some."""
    if not message.startswith(MISMATCH):
        return message
    pattern = message.removeprefix(MISMATCH)
    for signature in signatures_of(handler):
        for field in signature.parameters.values():
            for known, words in _patterns_in(field.raw):
                if repr(known) == pattern:
                    return f"must be {words}"
    return message


def _patterns_in(annotation: object) -> Iterator[tuple[str, str]]:
    """Each pattern with its words, in a type and all that it is made of."""
    try:
        waiting: list[object] = [inspect.type_info(annotation)]
    except (TypeError, NameError):  # no type of a value that is decoded
        return
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        elif isinstance(node, inspect.Type | inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            waiting += [getattr(node, name) for name in node.__struct_fields__]
            if isinstance(node, inspect.Metadata) and isinstance(node.type, inspect.StrType):
                words = (node.extra or {}).get(IN_WORDS)
                if words is not None and node.type.pattern is not None:
                    yield node.type.pattern, words
