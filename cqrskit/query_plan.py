"""Queries, checked against the documents they ask for: what an adapter translates into its server's words.

Every value in a plan is a plain JSON value of its field's kind, every field exists, and the cursor is unpacked.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.document_codec import DATETIME_MAX, DATETIME_MIN
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import LIMIT_MAX, All, Condition, Match, Not, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.words import words_of

__all__ = ["AllNode", "AnyNode", "NotNode", "Plan", "RangeNode", "SortKey", "TermsNode", "WordNode", "plan_of", "where_of"]

COMPARABLE = {FieldKind.KEYWORD, FieldKind.LONG, FieldKind.DOUBLE, FieldKind.DATETIME, FieldKind.DATE}


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
    """One part of the order; without a field it is the document's id, which is always the last part."""

    field: Field | None
    descending: bool


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
        values = tuple(
            document_id if key.field is None else next(key.field.values_in(plain)) for key in self.sort
        )
        content = msgspec.json.encode(_Cursor(self.fingerprint, values))
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def plan_of(query: Query, shape: DocumentShape) -> Plan:
    """Check a query against the shape of its documents; InvalidQuery or InvalidCursor says what is wrong."""
    if not isinstance(query.limit, int) or not 1 <= query.limit <= LIMIT_MAX:
        raise InvalidQuery(f"limit is {query.limit}: ask for 1 to {LIMIT_MAX} rows")
    where = where_of(query.where, shape)
    sort = _sort_keys(query.sort, shape)
    fingerprint = _fingerprint(query, shape)
    after = None if query.cursor is None else _unpack(query.cursor, fingerprint, sort)
    return Plan(where, sort, query.limit, after, fingerprint)


def _fingerprint(query: Query, shape: DocumentShape) -> str:
    content = [shape.document.__name__, _described(query.where), [[sort.field, sort.descending] for sort in query.sort]]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]


def _described(condition: Any) -> Any:  # noqa: ANN401 - plain values for the fingerprint
    if isinstance(condition, Condition):
        values = [_described(X
        return [type(condition).__name__, *values]
    if isinstance(condition, tuple | list):
        return [_described(each) for each in condition]
    return condition


def _unpack(cursor: str, fingerprint: str, sort: Sequence[SortKey]) -> tuple[Any, ...]:
    try:
        content = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        unpacked = msgspec.json.decode(content, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise InvalidCursor("the cursor is malformed: send back the `next` of a page as it came") from None
    if unpacked.fingerprint != fingerprint or len(unpacked.values) != len(sort):
        raise InvalidCursor("the cursor belongs to another query: keep the same conditions and sort, or begin anew")
    return tuple(
        _checked_id(value) if key.field is None else _value(key.field, value)
        for key, value in zip(sort, unpacked.values, strict=True)
    )


def _checked_id(value: Any) -> str:  # noqa: ANN401 - from a cursor
    if not isinstance(value, str):
        raise InvalidCursor("the cursor is malformed: send back the `next` of a page as it came")
    return value


def _sort_keys(sorts: Sequence[Sort], shape: DocumentShape) -> tuple[SortKey, ...]:
    keys = []
    for sort in sorts:
        field = _find(shape, sort.field)
        if field.kind not in COMPARABLE and not field.exact:
            raise InvalidQuery(f"{sort.field!r} is a {field.kind} field, which has no order to sort by")
        if field.many or field.nullable:
            raise InvalidQuery(f"{sort.field!r} may have no value or several, so it cannot be sorted by")
        keys.append(SortKey(field, sort.descending))
    return (*keys, SortKey(None, bool(sorts) and sorts[-1].descending))


def where_of(condition: Condition, shape: DocumentShape) -> Node:
    """Check one condition; InvalidQuery says what is wrong."""
    match condition:
        case All(conditions):
            return AllNode(tuple(where_of(each, shape) for each in conditions))
        case AnyOf(conditions):
            return AnyNode(tuple(where_of(each, shape) for each in conditions))
        case Not(inner):
            return NotNode(where_of(inner, shape))
        case Term(field, value):
            return _terms(_find(shape, field), (value,))
        case Terms(field, values):
            return _terms(_find(shape, field), values)
        case Range():
            return _range(_find(shape, condition.field), condition)
        case Match(fields, text):
            return _match(shape, fields, text)
    raise InvalidQuery(f"{condition!r} is not a condition: use Term, Terms, Range, Match, All, Any or Not")


def _find(shape: DocumentShape, name: str) -> Field:
    field = shape.find(name)
    if field is None or field.kind is FieldKind.STORED:
        possible = ", ".join(sorted(known.name for known in shape.fields.values() if known.kind is not FieldKind.STORED))
        raise InvalidQuery(f"{shape.document.__name__} has no searchable field {name!r}; it has: {possible}")
    return field


def _terms(field: Field, values: Sequence[Any]) -> TermsNode:
    if field.kind is FieldKind.TEXT and not field.exact:
        raise InvalidQuery(f"{field.name!r} is full text: use Match, or annotate it with Text(keyword=True)")
    if len(values) > LIMIT_MAX:
        raise InvalidQuery(f"{len(values)} values for {field.name!r}: at most {LIMIT_MAX} are possible")
    return TermsNode(field, tuple(_value(field, value) for value in values))


def _range(field: Field, condition: Range) -> RangeNode:
    if field.kind not in COMPARABLE and not field.exact:
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field, which has no order to compare by")
    given = [(name, getattr(condition, name)) for name in ("gt", "gte", "lt", "lte")]
    bounds = tuple((name, _value(field, value)) for name, value in given if value is not None)
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
    if not words:
        return AnyNode(())
    return AllNode(tuple(WordNode(fields, word) for word in words))


def _value(field: Field, value: Any) -> Any:  # noqa: ANN401 - any value a caller compares with
    """The plain JSON value, as it would be stored; InvalidQuery if it is not of the field's kind."""
    try:
        converted = msgspec.convert(value, field.value_type, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidQuery(f"{field.name!r} cannot be compared with {value!r}: {error}") from None
    if isinstance(converted, datetime):
        converted = converted.astimezone(UTC)
        if not DATETIME_MIN <= converted <= DATETIME_MAX:
            raise InvalidQuery(f"{field.name!r} is compared with {value!r}: 1970 to 2261 is possible")
    if isinstance(converted, str) and "\0" in converted:
        raise InvalidQuery(f"{field.name!r} cannot be compared with text that contains a NUL character")
    return msgspec.to_builtins(converted)
