"""Summaries, checked against the documents they ask for: what an adapter translates into its server's words."""

import math
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Any

import msgspec

from cqrskit.cursors import MALFORMED, Cursor, fingerprint_of, pack, unpack
from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import LIMIT_MAX
from cqrskit.query_plan import Node, described, find_field, plain_value, where_of
from cqrskit.summary import DateHistogram, Figures, Group, Groups, Histogram, Summary, Values

__all__ = ["LONGS", "Grouping", "GroupingKind", "SummaryPlan", "no_figures", "plan_of_summary"]

FIELDS_MAX = 20
"""How many fields one summary may sum up."""
LONGS = range(-(2**63), 2**63)
CALENDAR = ("day", "week", "month", "year")
NUMBERS = (FieldKind.LONG, FieldKind.DOUBLE)
DATES = (FieldKind.DATE, FieldKind.DATETIME)
GROUPED_BY_VALUE = (FieldKind.KEYWORD, FieldKind.LONG, FieldKind.BOOLEAN, FieldKind.FLATTENED)


class GroupingKind(StrEnum):
    """What a group's mark is, a plain JSON value by which groups are ordered.

    VALUE: the field's value. WHOLE: the number of the interval, that of 0 being 0. REAL: the interval's lower end.
    CALENDAR: the first day, as ISO text.
    """

    VALUE = "value"
    WHOLE = "whole"
    REAL = "real"
    CALENDAR = "calendar"


class Grouping(msgspec.Struct, frozen=True):
    """How documents are grouped; `interval` is a number or a word of the calendar, and None for values."""

    kind: GroupingKind
    field: Field
    interval: Any = None

    def key_of(self, mark: Any) -> Any:
        """The key that users see."""
        if mark is None:
            return None
        if self.kind is GroupingKind.VALUE:
            return msgspec.convert(mark, self.field.value_type, strict=True)
        if self.kind is GroupingKind.CALENDAR:
            return date.fromisoformat(mark)
        return mark * self.interval if self.kind is GroupingKind.WHOLE else mark


def no_figures(field: Field) -> Figures:
    """What no value at all comes to."""
    return Figures(0, 0 if field.kind is FieldKind.LONG else 0.0, None, None)


class SummaryPlan(msgspec.Struct, frozen=True):
    """A checked summary. `after` is the mark of the last group before those wanted; None for the first ones."""

    where: Node
    fields: tuple[Field, ...]
    by: Grouping | None
    limit: int
    after: Any
    fingerprint: str

    def groups(self, found: Sequence[tuple[Any, int, Sequence[Figures]]]) -> Groups:
        """The answer, from the marks, counts and figures of up to `limit` groups and one more."""
        if self.by is None and not found:  # nothing was folded yet
            found = [(None, 0, [no_figures(field) for field in self.fields])]
        names = [field.name for field in self.fields]
        items = [
            Group(None if self.by is None else self.by.key_of(mark), count, dict(zip(names, figures, strict=True)))
            for mark, count, figures in found[: self.limit]
        ]
        more = len(found) > self.limit
        return Groups(items, pack(Cursor(self.fingerprint, (found[self.limit - 1][0],))) if more else None)


def plan_of_summary(summary: Summary, shape: DocumentShape) -> SummaryPlan:
    """Check a summary against the shape of its documents; InvalidQuery or InvalidCursor says what is wrong."""
    if type(summary.limit) is not int or not 1 <= summary.limit <= LIMIT_MAX:
        raise InvalidQuery(f"limit is {summary.limit!r}: ask for 1 to {LIMIT_MAX} groups")
    where = where_of(summary.where, shape)
    fields = _summed(summary.of, shape)
    by = None if summary.by is None else _grouping(summary.by, shape)
    names = [field.name for field in fields]
    fingerprint = fingerprint_of([shape.document.__name__, described(where), names, described(by)])
    after = None
    if summary.cursor is not None:
        (after,) = unpack(summary.cursor, fingerprint, 1).values
        if by is None or not _is_mark(by, after):
            raise InvalidCursor(MALFORMED)
    return SummaryPlan(where, fields, by, summary.limit, after, fingerprint)


def _summed(names: Sequence[str], shape: DocumentShape) -> tuple[Field, ...]:
    if isinstance(names, str):
        raise InvalidQuery(f"`of` is {names!r}: give a list of fields, as in [{names!r}]")
    fields = tuple(find_field(shape, name) for name in dict.fromkeys(names))
    if len(fields) > FIELDS_MAX:
        raise InvalidQuery(f"the summary is of {len(fields)} fields: at most {FIELDS_MAX} are possible")
    for field in fields:
        if field.kind not in NUMBERS:
            raise InvalidQuery(f"{field.name!r} is a {field.kind} field: whole numbers and floats can be summed up")
        if field.many:
            raise InvalidQuery(f"{field.name!r} may have several values, so it cannot be summed up")
    return fields


def _grouping(by: Values | Histogram | DateHistogram, shape: DocumentShape) -> Grouping:
    if not isinstance(by, Values | Histogram | DateHistogram):
        raise InvalidQuery(f"{by!r} is no grouping: use Values, Histogram or DateHistogram")
    field = find_field(shape, by.field)
    if field.many:
        raise InvalidQuery(f"{field.name!r} may have several values, so documents cannot be grouped by it")
    match by:
        case Values():
            return _by_value(field, shape)
        case Histogram(interval=interval):
            return _by_interval(field, interval)
        case DateHistogram(interval=interval):
            if field.kind not in DATES:
                raise InvalidQuery(f"{field.name!r} is a {field.kind} field: DateHistogram is for dates and datetimes")
            if interval not in CALENDAR:
                raise InvalidQuery(f"the interval of {field.name!r} is {interval!r}: use {', '.join(CALENDAR)}")
            return Grouping(GroupingKind.CALENDAR, field, interval)


def _by_value(field: Field, shape: DocumentShape) -> Grouping:
    if field.kind is FieldKind.FLATTENED and field.name in shape.fields:
        raise InvalidQuery(f"{field.name!r} has keys: group by one of them, as in '{field.name}.colour'")
    if field.kind not in GROUPED_BY_VALUE and not field.exact:
        instead = {
            FieldKind.TEXT: "annotate it with Text(keyword=True) to group by it",
            FieldKind.DOUBLE: "group by it with Histogram",
        }
        reason = instead.get(field.kind, "group by it with DateHistogram")
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field: {reason}")
    return Grouping(GroupingKind.VALUE, field)


def _by_interval(field: Field, interval: Any) -> Grouping:
    if field.kind not in NUMBERS:
        raise InvalidQuery(f"{field.name!r} is a {field.kind} field: Histogram is for whole numbers and floats")
    if field.kind is FieldKind.LONG:
        if type(interval) is not int or not 1 <= interval < 2**63:
            raise InvalidQuery(f"the interval of {field.name!r} is {interval!r}: use a whole number from 1")
        return Grouping(GroupingKind.WHOLE, field, interval)
    if type(interval) not in (int, float) or not 0 < interval < math.inf:
        raise InvalidQuery(f"the interval of {field.name!r} is {interval!r}: use a number above 0")
    return Grouping(GroupingKind.REAL, field, float(interval))


def _is_mark(by: Grouping, mark: Any) -> bool:
    """Whether a cursor's value can be the mark of a group; one without a value is the last, so none comes after it."""
    match by.kind:
        case GroupingKind.VALUE:
            try:
                plain_value(by.field, mark)
            except InvalidQuery:
                return False
            return True
        case GroupingKind.WHOLE:
            return type(mark) is int and mark in LONGS
        case GroupingKind.REAL:
            return type(mark) is float
        case GroupingKind.CALENDAR:
            try:
                return bool(date.fromisoformat(mark).isoformat() == mark)
            except (TypeError, ValueError):
                return False
