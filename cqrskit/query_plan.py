"""Queries, checked against the documents they ask for: what an adapter translates into its server's words.

Every value in a plan is a plain JSON value of its field's kind, every field exists, and the cursor is unpacked.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import LIMIT_MAX, All, Condition, Match, Not, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.words import words_of

__all__ = [
    "AllNode",
    "AnyNode",
    "NotNode",
    "Plan",
    "RangeNode",
    "SortKey",
    "TermsNode",
    "WordNode",
    "plan_of",
    "where_of",
]

NESTING_MAX = 10
"""How deep conditions may stand in one another."""
CONDITIONS_MAX = 200
"""How many conditions one query may have, and how many words one `Match`."""

MALFORMED = "the cursor is malformed: send back the `next` of a page as it came"


class TermsNode(msgspec.Struct, frozen=True):
    """The field has one of these values."""

    field: Field
    values: tuple[Any, ...]


class RangeNode(msgspec.Struct, frozen=True):
    """The field has one value within all bounds: pairs of ``gt``, ``gte``, ``lt`` or ``lte`` and a value."""

    field: Field
    bounds: tuple[tuple[str, Any], ...]


class WordNode(msgspec.Struct, frozen=True):
    """The word occurs in one of the text fields."""

    fields: tuple[Field, ...]
    word: str


class AllNode(msgspec.Struct, frozen=True):
    """Every one fits."""

    nodes: tuple[Any, ...]


class AnyNode(msgspec.Struct, frozen=True):
    """At least one fits."""

    nodes: tuple[Any, ...]


class NotNode(msgspec.Struct, frozen=True):
    """It does not fit."""

    node: Any


Node = TermsNode | RangeNode | WordNode | AllNode | AnyNode | NotNode


class SortKey(msgspec.Struct, frozen=True):
    """One part of the order; without a field it is the document's id, which is always the last part.

    A nullable field has two parts: first whether the value is `absent` (so that nulls come last, in either
    direction), then the value.
    """

    field: Field | None
    descending: bool
    absent: bool = False

    def value_in(self, document_id: str, plain: Any) -> Any:
        """What this part of the order is for a document (as plain JSON values)."""
        if self.field is None:
            return document_id
        value = next(self.field.values_in(plain), None)
        return value is None if self.absent else value


class _Cursor(msgspec.Struct, array_like=True):
    fingerprint: str
    values: tuple[Any, ...]


class Plan(msgspec.Struct, frozen=True):
    """A checked query. `after` holds one value per sort key of the last row before the page, or None."""

    where: Node
    sort: tuple[SortKey, ...]
    limit: int
    after: tuple[Any, ...] | None
    fingerprint: str

    def cursor_after(self, document_id: str, document: msgspec.Struct) -> str:
        """The cursor of the page that begins after this row."""
        plain = msgspec.to_builtins(document)
        values = tuple(key.value_in(document_id, plain) for key in self.sort)
        content = msgspec.json.encode(_Cursor(self.fingerprint, values))
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def plan_of(query: Query, shape: DocumentShape) -> Plan:
    """Check a query against the shape of its documents; InvalidQuery or InvalidCursor says what is wrong."""
    if type(query.limit) is not int or not 1 <= query.limit <= LIMIT_MAX:
        raise InvalidQuery(f"limit is {query.limit!r}: ask for 1 to {LIMIT_MAX} rows")
    where = where_of(query.where, shape)
    sort = _sort_keys(query.sort, shape)
    fingerprint = _fingerprint(shape, where, sort)
    after = None if query.cursor is None else _unpack(query.cursor, fingerprint, sort)
    return Plan(where, sort, query.limit, after, fingerprint)


def _fingerprint(shape: DocumentShape, where: Node, sort: Sequence[SortKey]) -> str:
    keys = [[key.field.name if key.field else None, key.descending] for key in sort]
    content = msgspec.json.encode([shape.document.__name__, _described(where), keys])
    return hashlib.sha256(content).hexdigest()[:12]


def _described(part: Any) -> Any:
    """A node as plain values."""
    if isinstance(part, Field):
        return part.name
    if isinstance(part, msgspec.Struct):
        return [type(part).__name__, *(_described(getattr(part, name)) for name in part.__struct_fields__)]
    if isinstance(part, tuple):
        return [_described(each) for each in part]
    return part


def _unpack(cursor: str, fingerprint: str, sort: Sequence[SortKey]) -> tuple[Any, ...]:
    try:
        content = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        unpacked = msgspec.json.decode(content, type=_Cursor)
    except (ValueError, AttributeError, msgspec.MsgspecError):
        raise InvalidCursor(MALFORMED) from None
    if unpacked.fingerprint != fingerprint or len(unpacked.values) != len(sort):
        raise InvalidCursor("the cursor belongs to another query: keep the same conditions and sort, or begin anew")
    return tuple(_cursor_value(key, value) for key, value in zip(sort, unpacked.values, strict=True))


def _cursor_value(key: SortKey, value: Any) -> Any:
    field = key.field
    if key.absent or field is None:
        if not isinstance(value, bool if key.absent else str) or (isinstance(value, str) and "\0" in value):
            raise InvalidCursor(MALFORMED)
        return value
    if value is None and field.nullable:
        return None
    try:
        return _value(field, value)
    except InvalidQuery:
        raise InvalidCursor(MALFORMED) from None


def _sort_keys(sorts: Sequence[Sort], shape: DocumentShape) -> tuple[SortKey, ...]:
    keys: list[SortKey] = []
    for sort in sorts:
        field = _find(shape, sort.field)
        if not field.ordered:
            raise InvalidQuery(f"{sort.field!r} is a {field.kind} field, which has no order to sort by")
        if field.many:
            raise InvalidQuery(f"{sort.field!r} may have several values, so it cannot be sorted by")
        if field.nullable:
            keys.append(SortKey(field, descending=False, absent=True))
        keys.append(SortKey(field, sort.descending))
    return (*keys, SortKey(None, bool(sorts) and sorts[-1].descending))


def where_of(condition: Condition, shape: DocumentShape) -> Node:
    """Check conditions; InvalidQuery says what is wrong."""
    node = _node(condition, shape, NESTING_MAX)
    if _size(node) > CONDITIONS_MAX:
        raise InvalidQuery(f"the query has more than {CONDITIONS_MAX} conditions: ask for less at once")
    return node


def _size(node: Node) -> int:
    match node:
        case AllNode(nodes) | AnyNode(nodes):
            return 1 + sum(_size(each) for each in nodes)
        case NotNode(inner):
            return 1 + _size(inner)
    return 1


def _node(condition: Condition, shape: DocumentShape, depth: int) -> Node:
    if depth == 0:
        raise InvalidQuery(f"conditions stand more than {NESTING_MAX} deep in one another")
    match condition:
        case All(conditions):
            return AllNode(tuple(_node(each, shape, depth - 1) for each in conditions))
        case AnyOf(conditions):
            return AnyNode(tuple(_node(each, shape, depth - 1) for each in conditions))
        case Not(inner):
            return NotNode(_node(inner, shape, depth - 1))
        case Term(name, value):
            return _terms(shape, _find(shape, name), (value,))
        case Terms(name, values):
            return _terms(shape, _find(shape, name), values)
        case Range():
            return _range(_find(shape, condition.field), condition)
        case Match(names, text):
            return _match(shape, names, text)
    raise InvalidQuery(f"{condition!r} is not a condition: use Term, Terms, Range, Match, All, Any or Not")


def _find(shape: DocumentShape, name: str) -> Field:
    field = shape.find(name)
    if field is None or field.kind is FieldKind.STORED or not _storable_text(name):
        possible = ", ".join(
            sorted(known.name for known in shape.fields.values() if known.kind is not FieldKind.STORED)
        )
        raise InvalidQuery(f"{shape.document.__name__} has no searchable field {name!r}; it has: {possible}")
    return field


def _terms(shape: DocumentShape, field: Field, values: Sequence[Any]) -> TermsNode:
    if field.kind is FieldKind.TEXT and not field.exact:
        raise InvalidQuery(f"{field.name!r} is full text: use Match, or annotate it with Text(keyword=True)")
    if field.kind is FieldKind.FLATTENED and field.name in shape.fields:
        raise InvalidQuery(f"{field.name!r} has keys: ask for one of them, as in '{field.name}.colour'")
    if len(values) > LIMIT_MAX:
        raise InvalidQuery(f"{len(values)} values for {field.name!r}: at most {LIMIT_MAX} are possible")
    return TermsNode(field, tuple(_value(field, value) for value in values))


def _range(field: Field, condition: Range) -> RangeNode:
    if not field.ordered:
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field, which has no order to compare by")
    given = [(name, getattr(condition, name)) for name in ("gt", "gte", "lt", "lte")]
    bounds = tuple((name, _value(field, value)) for name, value in given if value is not None)
    if {"gt", "gte"} <= {name for name, _ in bounds} or {"lt", "lte"} <= {name for name, _ in bounds}:
        raise InvalidQuery(f"the range of {field.name!r} has two bounds on one side: give gt or gte, and lt or lte")
    if not bounds:
        raise InvalidQuery(f"the range of {field.name!r} has no bound: give gt, gte, lt or lte")
    return RangeNode(field, bounds)


def _match(shape: DocumentShape, names: Sequence[str], text: str) -> Node:
    fields = tuple(_find(shape, name) for name in names)
    for field in fields:
        if field.kind is not FieldKind.TEXT:
            raise InvalidQuery(f"{field.name!r} is a {field.kind} field: Match searches fields annotated with Text()")
    if not fields:
        raise InvalidQuery("Match needs at least one text field")
    words = sorted(set(words_of(text)))
    if len(words) > CONDITIONS_MAX:
        raise InvalidQuery(f"the text has {len(words)} words: at most {CONDITIONS_MAX} are possible")
    if not words:
        return AnyNode(())
    return AllNode(tuple(WordNode(fields, word) for word in words))


def _value(field: Field, value: Any) -> Any:
    """The plain JSON value, as it would be stored; InvalidQuery if it is not of the field's kind."""
    try:
        plain = msgspec.to_builtins(_utc(msgspec.convert(value, field.value_type, strict=True)))
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidQuery(f"{field.name!r} cannot be compared with {value!r}: {error}") from None
    if isinstance(plain, str) and not _storable_text(plain):
        raise InvalidQuery(f"{field.name!r} cannot be compared with text that no document can have: {value!r}")
    if plain is None or (isinstance(plain, float) and not math.isfinite(plain)):
        raise InvalidQuery(f"{field.name!r} cannot be compared with {value!r}, a value that is never stored")
    return plain + 0.0 if isinstance(plain, float) else plain  # no negative zero


def _utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _storable_text(text: str) -> bool:
    """Whether it is Unicode without NUL and without halves of surrogate pairs."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
