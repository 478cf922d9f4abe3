"""Golden payloads made from an event's annotations: the same ones each time, with the edge cases first.

Every field runs through its own values (smallest, largest, null, empty, …) beside the others, so a class has as many
payloads as its most varied field has values, at most `EXAMPLES_MAX`. Values that annotations cannot tell, such as a
text for a pattern, are taken from ``msgspec.Meta(examples=[...])``, always before ours.
"""

import base64
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from cqrskit.errors import DefinitionError
from cqrskit.schema.shape import Records, fields_of

__all__ = ["EXAMPLES_MAX", "examples_of"]

EXAMPLES_MAX = 12
VALUES_MAX = 4
"""Most values of one simple type."""
LENGTH_MAX = 64
"""Longest text and bytes that are made, where more would be allowed."""
ITEMS_MAX = 3
DEPTH_MAX = 4
"""Records inside records that are filled; what would go deeper is left empty."""

TEXTS = [
    *(
        "",
        "a",
        "Grüße, 世界 ✓",
        'a "quoted"\nline',
        "A",
        "ABC",
        "EUR",
        "abc",
        "0",
        "123",
        "12",
        "a-b",
        "a_b",
        "A1",
        "a1",
    ),
    *("someone@example.org", "https://example.org/a?b=c", "2026-01-31", "example.org", "+49 30 123456", "en-GB"),
]
FIXED: dict[type[inspect.Type], list[Any]] = {
    inspect.AnyType: [None, 1, "a", {"a": [1.5]}],
    inspect.RawType: [None, 1, "a", {"a": [1.5]}],
    inspect.NoneType: [None],
    inspect.BoolType: [False, True],
    inspect.DateType: ["1970-01-01", "2261-12-31", "2024-02-29"],
    inspect.TimeDeltaType: ["PT0S", "P1DT1.5S", "-PT1S"],
    inspect.UUIDType: [f"{0:032x}", f"{2**128 - 1:032x}", "6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c"],
    inspect.DecimalType: ["0", "-12.50", "99999999999999999999.99"],
}
MOMENTS = ["1970-01-01T00:00:00", "2261-12-31T23:59:59.999999", "2026-03-29T02:30:00.5"]
TIMES = ["00:00:00", "23:59:59.999999"]


def examples_of(event_class: type[Any]) -> list[bytes]:
    """Payloads of an event class as they would be stored, different from each other.

    DefinitionError if a field has no value that can be made: its annotation then needs ``Meta(examples=[...])``.
    """
    columns: dict[str, list[Any]] = {}
    for field in fields_of(event_class):
        values = _values(field.type, 1)
        if not values:
            raise DefinitionError(
                f"no example can be made for {event_class.__qualname__}.{field.name}: give some in its annotation, "
                "such as Annotated[str, msgspec.Meta(pattern=..., examples=['EUR'])]"
            )
        columns[field.encode_name] = values
    decode, encode = msgspec.json.Decoder(event_class).decode, msgspec.json.Encoder().encode
    payloads: dict[bytes, None] = {}
    refused: Exception | None = None
    for row in _rows(columns) or [{}]:
        try:
            payloads[encode(decode(encode(row)))] = None
        except msgspec.MsgspecError as error:
            # A class may refuse some combinations in __post_init__; the others are examples all the same.
            refused = error
    if not payloads:
        raise DefinitionError(
            f"no example can be made for {event_class.__qualname__}, which refuses them all ({refused}): give values "
            "that go together in its annotations, as msgspec.Meta(examples=[...])"
        )
    return list(payloads)


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """One record per line, each field going through its own values again and again."""
    count = min(max(map(len, columns.values()), default=0), EXAMPLES_MAX)
    return [{name: values[line % len(values)] for name, values in columns.items()} for line in range(count)]


def _values(kind: inspect.Type, depth: int) -> list[Any]:
    """Values of a type as JSON has them, the smallest first; none if there is none to be found."""
    if isinstance(kind, inspect.Metadata):
        given = (kind.extra_json_schema or {}).get("examples", [])
        return _distinct([*msgspec.to_builtins(given), *_values(kind.type, depth)])
    if isinstance(kind, inspect.UnionType):
        parts = sorted(kind.types, key=lambda part: not isinstance(part, inspect.NoneType))
        return _distinct(list(itertools.chain.from_iterable(_values(part, depth) for part in parts)))
    if isinstance(kind, inspect.LiteralType):
        return list(kind.values)
    if isinstance(kind, inspect.EnumType):
        return [msgspec.to_builtins(member) for member in kind.cls]
    if isinstance(kind, Records):
        return _records(kind, depth)
    if isinstance(kind, inspect.DictType | inspect.FrozenDictType):
        return _dicts(kind, depth)
    if isinstance(kind, inspect.TupleType):
        columns = {str(number): _values(each, depth) for number, each in enumerate(kind.item_types)}
        return [list(row.values()) for row in _rows(columns)] if all(columns.values()) else []
    if hasattr(kind, "item_type"):
        return _lists(kind, depth)
    return _simple(kind)


def _records(kind: Records, depth: int) -> list[Any]:
    if depth > DEPTH_MAX:
        return []
    columns = {field.encode_name: _values(field.type, depth + 1) for field in kind.fields}
    if not all(columns.values()):
        return []
    rows: list[Any] = _rows(columns) or [{}]
    if isinstance(kind, inspect.NamedTupleType) or getattr(kind, "array_like", False):
        return [list(row.values()) for row in rows]
    tag = getattr(kind, "tag_field", None)
    return [{tag: getattr(kind, "tag", None), **row} for row in rows] if tag else rows


def _lists(kind: Any, depth: int) -> list[Any]:
    items = _values(kind.item_type, depth)
    return [
        list(itertools.islice(itertools.cycle(items), count))
        for count in _sizes(kind)
        if count == 0 or (items and (count <= len(items) or not isinstance(kind, inspect.SetType)))
    ]


def _dicts(kind: inspect.DictType | inspect.FrozenDictType, depth: int) -> list[Any]:
    keys = [key if isinstance(key, str) else msgspec.json.encode(key).decode() for key in _values(kind.key_type, depth)]
    values = _values(kind.value_type, depth)
    return [
        dict(zip(keys, itertools.islice(itertools.cycle(values), count), strict=False))
        for count in _sizes(kind)
        if count == 0 or (values and count <= len(keys))
    ]


def _sizes(kind: Any) -> list[int]:
    """How many items to put into a container: as few as may be, and a few."""
    least = kind.min_length or 0
    most = max(least, min(ITEMS_MAX, ITEMS_MAX if kind.max_length is None else kind.max_length))
    return _distinct([least, min(max(least, 1), most), most])


def _simple(kind: inspect.Type) -> list[Any]:
    """The first of the candidates for a simple type that its own constraints let through."""
    name = type(kind).__name__
    if type(kind) in FIXED:
        return FIXED[type(kind)]
    if isinstance(kind, inspect.DateTimeType | inspect.TimeType):
        zone = "" if kind.tz is False or (kind.tz is None and name == "TimeType") else "Z"
        return [f"{each}{zone}" for each in (MOMENTS if name == "DateTimeType" else TIMES)]
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        python: type[Any] = int if isinstance(kind, inspect.IntType) else float
        return _fitting(_numbers(kind, python), _annotated(python, kind))
    if isinstance(kind, inspect.StrType):
        return _fitting(_texts(kind), _annotated(str, kind))
    if isinstance(kind, inspect.BytesType | inspect.ByteArrayType | inspect.MemoryViewType):
        sizes = [kind.min_length or 0, min(LENGTH_MAX, LENGTH_MAX if kind.max_length is None else kind.max_length), 2]
        made = [base64.b64encode(bytes(range(size))).decode() for size in sizes]
        return _fitting(made, _annotated(bytes, kind))
    return []


def _numbers(kind: inspect.IntType | inspect.FloatType, python: type[Any]) -> Sequence[Any]:
    whole = python is int
    least = [kind.ge] if kind.ge is not None else [kind.gt + 1, kind.gt + 0.5] if kind.gt is not None else []
    most = [kind.le] if kind.le is not None else [kind.lt - 1, kind.lt - 0.5] if kind.lt is not None else []
    widest = [-(2**63), 2**63 - 1] if whole else [-1e300, 1e300]
    step = kind.multiple_of or (1 if whole else 0.5)
    multiples = [least[0] // step * step + step, most[0] // step * step] if least and most else []
    candidates = [*(least or widest[:1]), *(most or widest[1:]), 0, step, -step, 3 * step, *multiples]
    return [python(each) for each in candidates if each == python(each)]


def _texts(kind: inspect.StrType) -> Sequence[str]:
    least, most = kind.min_length, kind.max_length
    sized = ["a" * each for each in (least, most and min(most, max(LENGTH_MAX, least or 0))) if each]
    return [*sized, *TEXTS, *(letter * (least or 1) for letter in "A0")]


def _annotated(python: type[Any], kind: Any) -> Any:
    names = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
    given = {name: getattr(kind, name) for name in names if getattr(kind, name, None) is not None}
    return Annotated[python, msgspec.Meta(**given)] if given else python


def _fitting(candidates: Sequence[Any], annotation: Any) -> list[Any]:
    """The candidates that msgspec itself takes for such a field, in their order."""
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(annotation).decode
    fitting = []
    for candidate in _distinct(candidates):
        try:
            decode(msgspec.json.encode(candidate))
        except msgspec.ValidationError:
            continue
        fitting.append(candidate)
    return fitting[:VALUES_MAX]


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Without repetitions, told by their JSON, so that 1 and true differ."""
    found: dict[bytes, Any] = {}
    for value in values:
        found.setdefault(msgspec.json.encode(value), value)
    return list(found.values())
