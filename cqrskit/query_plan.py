"""Queries, checked against the documents they ask for: what an adapter translates into its server's words.

Every value in a plan is a plain JSON value of its field's kind, every field exists, and the cursor is unpacked.
"""

import difflib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cqrskit.cursors import MALFORMED, Cursor, fingerprint_of, pack, unpack
from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import LIMIT_MAX, All, Condition, Exists, Match, Not, Prefix, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.words import words_of

__all__ = [
    "AllNode",
    "AnyNode",
    "ExistsNode",
    "Node",
    "NotNode",
    "Plan",
    "RangeNode",
    "SortKey",
    "TermsNode",
    "WordNode",
    "described",
    "find_field",
    "plain_value",
    "plan_of",
    "where_of",
]

NESTING_MAX = 10
"""How deep conditions may stand in one another."""
CONDITIONS_MAX = 200
"""How many conditions one query may have, and how many words one `Match`."""
LAST_CHARACTER = "\U0010ffff"


class TermsNode(msgspec.Struct, frozen=True):
    """The field has one of these values."""

    field: Field
    values: tuple[Any, ...]


class RangeNode(msgspec.Struct, frozen=True):
    """The field has one value within all bounds: pairs of ``gt``, ``gte``, ``lt`` or ``lte`` and a value."""

    field: Field
    bounds: tuple[tuple[str, Any], ...]


class ExistsNode(msgspec.Struct, frozen=True):
    """The field has a value."""

    field: Field


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


Node = TermsNode | RangeNode | ExistsNode | WordNode | AllNode | AnyNode | NotNode


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


class Plan(msgspec.Struct, frozen=True):
    """A checked query. `after` holds one value per sort key of the last row before the page, or None.

    A `stable` one reads what the store keeps for it, `held`, which its first page does not have yet.
    """

    where: Node
    sort: tuple[SortKey, ...]
    limit: int
    after: tuple[Any, ...] | None
    fingerprint: str
    stable: bool = False
    held: str | None = None

    def cursor_after(self, document_id: str, document: msgspec.Struct, *, held: str | None = None) -> str:
        """The cursor of the page that begins after this row."""
        plain = msgspec.to_builtins(document)
        values = tuple(key.value_in(document_id, plain) for key in self.sort)
        return pack(Cursor(self.fingerprint, values, held))


def plan_of(query: Query, shape: DocumentShape) -> Plan:
    """Check a query against the shape of its documents; InvalidQuery or InvalidCursor says what is wrong."""
    if type(query.limit) is not int or not 1 <= query.limit <= LIMIT_MAX:
        raise InvalidQuery(f"limit is {query.limit!r}: ask for 1 to {LIMIT_MAX} rows")
    where = where_of(query.where, shape)
    sort = _sort_keys(query.sort, shape)
    keys = [[key.field.name if key.field else None, key.descending] for key in sort]
    fingerprint = fingerprint_of([shape.document.__name__, described(where), keys, query.stable])
    if query.cursor is None:
        return Plan(where, sort, query.limit, None, fingerprint, query.stable)
    cursor = unpack(query.cursor, fingerprint, len(sort))
    if query.stable != (cursor.held is not None):
        raise InvalidCursor(MALFORMED)
    after = tuple(_cursor_value(key, value) for key, value in zip(sort, cursor.values, strict=True))
    return Plan(where, sort, query.limit, after, fingerprint, query.stable, cursor.held)


def described(part: Any) -> Any:
    """A node as plain values."""
    if isinstance(part, Field):
        return part.name
    if isinstance(part, msgspec.Struct):
        return [type(part).__name__, *(described(getattr(part, name)) for name in part.__struct_fields__)]
    if isinstance(part, tuple):
        return [described(each) for each in part]
    return part


def _cursor_value(key: SortKey, value: Any) -> Any:
    field = key.field
    if key.absent or field is None:
        if not isinstance(value, bool if key.absent else str) or (isinstance(value, str) and "\0" in value):
            raise InvalidCursor(MALFORMED)
        return value
    if value is None and field.nullable:
        return None
    try:
        return plain_value(field, value)
    except InvalidQuery:
        raise InvalidCursor(MALFORMED) from None


def _sort_keys(sorts: Sequence[Sort], shape: DocumentShape) -> tuple[SortKey, ...]:
    _check_list("the parts of `sort`", sorts)
    keys: list[SortKey] = []
    for sort in sorts:
        field = find_field(shape, sort.field)
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
            return _terms(shape, find_field(shape, name), (value,))
        case Terms(name, values):
            return _terms(shape, find_field(shape, name), values)
        case Range():
            return _range(find_field(shape, condition.field), condition)
        case Prefix(name, text):
            return _prefix(find_field(shape, name), text)
        case Exists(name):
            return _exists(shape, find_field(shape, name))
        case Match(names, text):
            return _match(shape, names, text)
    raise InvalidQuery(
        f"{condition!r} is not a condition: use Term, Terms, Range, Prefix, Exists, Match, All, Any or Not"
    )


def find_field(shape: DocumentShape, name: str) -> Field:
    """The field of this name; InvalidQuery, with the names that are possible, if it cannot be searched."""
    field = shape.find(name) if isinstance(name, str) else None
    if field is not None and field.kind is not FieldKind.STORED and _storable_text(name):
        return field
    kept = field is not None and field.kind is FieldKind.STORED
    possible = sorted(known.name for known in shape.fields.values() if known.kind is not FieldKind.STORED)
    alike = difflib.get_close_matches(str(name), possible, n=1)
    hint = ", which is kept with the document only" if kept else f"; did you mean {alike[0]!r}?" if alike else ""
    raise InvalidQuery(
        f"{shape.document.__name__} has no searchable field {name!r}{hint}; it has: {', '.join(possible)}"
    )


def _terms(shape: DocumentShape, field: Field, values: Sequence[Any]) -> TermsNode:
    if field.kind is FieldKind.TEXT and not field.exact:
        raise InvalidQuery(f"{field.name!r} is full text: use Match, or annotate it with Text(keyword=True)")
    if field.kind is FieldKind.FLATTENED and field.name in shape.fields:
        raise InvalidQuery(f"{field.name!r} has keys: ask for one of them, as in '{field.name}.colour'")
    _check_list(f"the values of {field.name!r}", values)
    if len(values) > LIMIT_MAX:
        raise InvalidQuery(f"{len(values)} values for {field.name!r}: at most {LIMIT_MAX} are possible")
    return TermsNode(field, tuple(plain_value(field, value) for value in values))


def _check_list(what: str, given: Any) -> None:
    """A text is a sequence too, of characters; a set has no order, which a cursor's fingerprint rests on."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidQuery(f"{what} are {given!r}: give a list or a tuple")


def _range(field: Field, condition: Range) -> RangeNode:
    if not field.ordered:
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field, which has no order to compare by")
    given = [(name, getattr(condition, name)) for name in ("gt", "gte", "lt", "lte")]
    bounds = tuple((name, plain_value(field, value)) for name, value in given if value is not None)
    if {"gt", "gte"} <= {name for name, _ in bounds} or {"lt", "lte"} <= {name for name, _ in bounds}:
        raise InvalidQuery(f"the range of {field.name!r} has two bounds on one side: give gt or gte, and lt or lte")
    if not bounds:
        raise InvalidQuery(f"the range of {field.name!r} has no bound: give gt, gte, lt or lte")
    return RangeNode(field, bounds)


def _prefix(field: Field, text: str) -> RangeNode:
    """As a range, which the same indexes serve: keywords are in the order of their characters."""
    if field.kind is not FieldKind.KEYWORD and not field.exact:
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field: Prefix is for keywords")
    if not isinstance(text, str) or not text or not _storable_text(text):
        raise InvalidQuery(f"{field.name!r} cannot begin with {text!r}: give one character or more of Unicode")
    stem = text.rstrip(LAST_CHARACTER)
    if not stem:
        return RangeNode(field, (("gte", text),))
    following = ord(stem[-1]) + 1
    following = 0xE000 if following == 0xD800 else following
    return RangeNode(field, (("gte", text), ("lt", stem[:-1] + chr(following))))


def _exists(shape: DocumentShape, field: Field) -> ExistsNode:
    if field.kind is FieldKind.TEXT and not field.exact:
        raise InvalidQuery(f"{field.name!r} is full text: annotate it with Text(keyword=True) to ask whether it exists")
    if field.kind is FieldKind.FLATTENED and field.name in shape.fields:
        raise InvalidQuery(f"{field.name!r} has keys: ask for one of them, as in '{field.name}.colour'")
    return ExistsNode(field)


def _match(shape: DocumentShape, names: Sequence[str], text: str) -> Node:
    _check_list("the fields of Match", names)
    fields = tuple(find_field(shape, name) for name in names)
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


def plain_value(field: Field, value: Any) -> Any:
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
