"""What queries and summaries find, said in plain Python: the answers that both read stores must give."""

import math
import operator
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from cqrskit.query import All, Condition, Exists, Match, Not, Prefix, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.summary import DateHistogram, Figures, Group, Histogram, Summary, Values
from cqrskit.testing.read_store_contract import Thing
from cqrskit.words import words_of

COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def values_of(document: Thing, name: str) -> list[Any]:
    if name.startswith("parts."):
        return [getattr(part, name.removeprefix("parts.")) for part in document.parts]
    if name.startswith("labels."):
        return [value for key, value in document.labels.items() if key == name.removeprefix("labels.")]
    value = getattr(document, name)
    return [] if value is None else [value]


def fits(document: Thing, condition: Condition) -> bool:
    match condition:
        case All(parts):
            return all(fits(document, each) for each in parts)
        case AnyOf(parts):
            return any(fits(document, each) for each in parts)
        case Not(inner):
            return not fits(document, inner)
        case Term(name, value):
            return value in values_of(document, name)
        case Terms(name, wanted):
            return any(value in wanted for value in values_of(document, name))
        case Range():
            bounds = [(test, getattr(condition, name)) for name, test in COMPARE.items()]
            return any(
                all(bound is None or test(value, bound) for test, bound in bounds)
                for value in values_of(document, condition.field)
            )
        case Prefix(name, text):
            return any(value.startswith(text) for value in values_of(document, name))
        case Exists(name):
            return bool(values_of(document, name))
        case Match(names, text):
            words = {word for name in names for value in values_of(document, name) for word in words_of(value)}
            return bool(words_of(text)) and set(words_of(text)) <= words
    raise AssertionError(condition)


def ordered(documents: dict[str, Thing], sort: Sequence[Sort]) -> list[str]:
    ids = sorted(documents, reverse=bool(sort) and sort[-1].descending)
    for each in reversed(sort):
        present = [key for key in ids if getattr(documents[key], each.field) is not None]
        present.sort(key=lambda key: getattr(documents[key], each.field), reverse=each.descending)
        if each.descending:  # a reversed sort keeps the order of equals, as we want it
            present = stable_descending(ids, documents, each.field)
        ids = present + [key for key in ids if getattr(documents[key], each.field) is None]
    return ids


def stable_descending(ids: list[str], documents: dict[str, Thing], name: str) -> list[str]:
    values = sorted({getattr(documents[key], name) for key in ids} - {None}, reverse=True)
    return [key for value in values for key in ids if getattr(documents[key], name) == value]


def grouped(documents: Iterable[Thing], summary: Summary) -> list[Group]:
    """All groups of a summary."""
    members: dict[Any, list[Thing]] = {} if summary.by is not None else {None: []}
    for document in documents:
        if fits(document, summary.where):
            members.setdefault(key_of(document, summary.by), []).append(document)
    keys = sorted(key for key in members if key is not None) + [None] * (None in members)
    return [Group(key, len(members[key]), figures_of(members[key], summary.of)) for key in keys]


def key_of(document: Thing, by: Values | Histogram | DateHistogram | None) -> Any:
    """The key of the group that a document stands in."""
    value = next(iter(values_of(document, by.field)), None) if by is not None else None
    if value is None or isinstance(by, Values):
        return value
    if isinstance(by, Histogram) and isinstance(by.interval, float):
        return math.floor(value / by.interval) * by.interval
    if isinstance(by, Histogram):
        return value // by.interval * by.interval
    day = value.date() if isinstance(value, datetime) else value
    return first_day(day, by.interval) if by is not None else None


def first_day(day: date, interval: str) -> date:
    """The first day of the interval that a day is in."""
    if interval == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1 if interval != "day" else day.day, month=1 if interval == "year" else day.month)


def figures_of(documents: list[Thing], names: Iterable[str]) -> dict[str, Figures]:
    """The figures of some fields."""
    figures = {}
    for name in names:
        values = [value for document in documents for value in values_of(document, name)]
        figures[name] = Figures(
            len(values),
            math.fsum(values) if name == "ratio" else sum(values),
            min(values, default=None),
            max(values, default=None),
        )
    return figures
