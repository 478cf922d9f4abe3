"""In which fields two documents differ: what `verify` and `explain` tell people."""

from collections.abc import Iterator
from typing import Any

import msgspec

__all__ = ["ABSENT", "FieldDifference", "field_differences"]

ABSENT = "(absent)"
"""Stands for a value that one of the documents does not have."""


class FieldDifference(msgspec.Struct, frozen=True):
    """One field, by its dotted name, with both values as plain JSON values."""

    name: str
    expected: Any
    found: Any


def field_differences(expected: Any, found: Any) -> tuple[FieldDifference, ...]:
    """The innermost fields in which two documents differ; a list counts as one value. None if either is None."""
    if expected is None or found is None:
        return ()
    return tuple(_between("", _plain(expected), _plain(found)))


def _plain(document: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


def _between(name: str, expected: Any, found: Any) -> Iterator[FieldDifference]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in dict.fromkeys([*expected, *found]):
            inner = f"{name}.{key}" if name else str(key)
            yield from _between(inner, expected.get(key, ABSENT), found.get(key, ABSENT))
    elif expected != found or type(expected) is not type(found):
        yield FieldDifference(name, expected, found)
