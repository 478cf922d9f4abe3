"""The shape of an event's stored JSON, as text for people and for comparison.

A shape names no class, since code may move: the fields of a nested Struct are written out where it is used.
"""

from typing import Any

import msgspec
from msgspec import inspect

__all__ = ["adds_only_defaults", "difference", "fields_of", "shape_of"]

CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
STORED_ALIKE = {"frozenset": "set", "vartuple": "list", "collection": "list", "frozendict": "dict", "raw": "any"}
EMPTY_FACTORIES: tuple[Any, ...] = (list, dict, set, frozenset, tuple, bytearray)
Records = inspect.StructType | inspect.DataclassType | inspect.TypedDictType | inspect.NamedTupleType


def shape_of(event_class: type[Any]) -> dict[str, str]:
    """The stored fields of an event class with their types, constraints and defaults, such as ``str | null = null``."""
    return {field.encode_name: _field(field, (event_class,)) for field in fields_of(event_class)}


def fields_of(event_class: type[Any]) -> tuple[inspect.Field, ...]:
    """What msgspec knows about the fields of an event class."""
    info = inspect.type_info(event_class)
    assert isinstance(info, inspect.StructType), "events are Structs"
    return info.fields


def adds_only_defaults(frozen: dict[str, str], event_class: type[Any]) -> bool:
    """Whether the class has all frozen fields as they were, and each further one has a default.

    Then every payload of the frozen shape can be read by the class, and none loses a field.
    """
    shape = shape_of(event_class)
    optional = {field.encode_name for field in fields_of(event_class) if not field.required}
    return all(shape.get(name) == text for name, text in frozen.items()) and shape.keys() - frozen.keys() <= optional


def difference(frozen: dict[str, str], shape: dict[str, str]) -> str:
    """What has changed from the one to the other, in words."""
    changes = [
        f"{name} is gone" if name not in shape else f"{name} was {text}, is {shape[name]}"
        for name, text in frozen.items()
        if shape.get(name) != text
    ]
    return "; ".join([*changes, *(f"{name} is new: {text}" for name, text in shape.items() if name not in frozen)])


def _field(field: inspect.Field, outer: tuple[Any, ...]) -> str:
    text = _text(field.type, outer)
    if field.required:
        return text
    if field.default is not msgspec.NODEFAULT:
        return f"{text} = {_json(field.default)}"
    if field.default_factory in EMPTY_FACTORIES:
        return f"{text} = {_json(field.default_factory())}"
    return f"{text} = {getattr(field.default_factory, '__name__', 'made')}()"


def _text(kind: inspect.Type, outer: tuple[Any, ...]) -> str:
    """A type as text; `outer` are the Structs around it, outermost first."""
    if isinstance(kind, inspect.Metadata):
        return _text(kind.type, outer)
    if isinstance(kind, inspect.NoneType):
        return "null"
    if isinstance(kind, inspect.UnionType):
        parts = {_text(part, outer) for part in kind.types}
        return " | ".join(sorted(parts, key=lambda part: (part == "null", part)))
    if isinstance(kind, inspect.LiteralType):
        return " | ".join(sorted(_json(value) for value in kind.values))
    if isinstance(kind, inspect.EnumType):
        return " | ".join(sorted(_json(member) for member in kind.cls))
    if isinstance(kind, Records):
        return _record(kind, outer)
    if isinstance(kind, inspect.CustomType):
        return f"custom {kind.cls.__qualname__}"
    name = type(kind).__name__.removesuffix("Type").lower()
    return f"{STORED_ALIKE.get(name, name)}{_parts(kind, outer)}{_constraints(kind)}"


def _parts(kind: inspect.Type, outer: tuple[Any, ...]) -> str:
    if isinstance(kind, inspect.DictType | inspect.FrozenDictType):
        return f"[{_text(kind.key_type, outer)}, {_text(kind.value_type, outer)}]"
    if isinstance(kind, inspect.TupleType):
        return f"[{', '.join(_text(each, outer) for each in kind.item_types)}]"
    item = getattr(kind, "item_type", None)
    return "" if item is None else f"[{_text(item, outer)}]"


def _constraints(kind: inspect.Type) -> str:
    given = {name: getattr(kind, name, None) for name in CONSTRAINTS}
    said = ", ".join(f"{name}={_json(value)}" for name, value in given.items() if value is not None)
    return f"({said})" if said else ""


def _record(kind: Records, outer: tuple[Any, ...]) -> str:
    """The fields of a nested record; inside itself it is written as ``^1``, counting the records up to it."""
    if kind.cls in outer:
        return f"^{len(outer) - outer.index(kind.cls)}"
    inner = (*outer, kind.cls)
    said = [f"{field.encode_name}: {_field(field, inner)}" for field in kind.fields]
    if isinstance(kind, inspect.NamedTupleType) or getattr(kind, "array_like", False):
        return f"[{', '.join(said)}]"
    tag = getattr(kind, "tag_field", None)
    tagged = [f"{tag}: {_json(getattr(kind, 'tag', None))}"] if tag else []
    closed = ["nothing else"] if getattr(kind, "forbid_unknown_fields", False) else []
    return f"{{{', '.join([*tagged, *sorted(said), *closed])}}}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
