"""The query language: a few conditions, a sort order, pages. It means the same on every read store.

::

    Query(
        where=All(Term("status", "open"), Range("balance", gte=0), Match(("name",), "main street")),
        sort=(Sort("balance", descending=True),),
        limit=50,
    )

Fields are named as they are stored, nested ones with dots (``legs.account_id``, ``metadata.colour``). A field
with several values fits a condition when any one of its values does; a missing value fits none, so `Not` finds it.

Rows come in the order of `sort` and, where that leaves a tie, of their ids (in the direction of the last `Sort`);
without a `sort`, by id. Text is ordered by code point; rows without a value come last, whatever the direction.
Fields with several values cannot be sorted by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any as AnyValue

__all__ = ["LIMIT_MAX", "All", "Any", "Condition", "Match", "Not", "Query", "Range", "Sort", "Term", "Terms"]

LIMIT_MAX = 1_000
"""Most rows on one page, and most values of one `Terms`."""


class Condition:
    """What the conditions have in common: nothing but the name."""


@dataclass(frozen=True, slots=True)
class Term(Condition):
    """The field has exactly this value (case-sensitive)."""

    field: str
    value: AnyValue


@dataclass(frozen=True, slots=True)
class Terms(Condition):
    """The field has one of these values, at most 1,000; without any, nothing fits."""

    field: str
    values: Sequence[AnyValue]


@dataclass(frozen=True, slots=True)
class Range(Condition):
    """The field has one value between these bounds: gt or gte, and lt or lte; at least one is given."""

    field: str
    gt: AnyValue = None
    gte: AnyValue = None
    lt: AnyValue = None
    lte: AnyValue = None


@dataclass(frozen=True, slots=True)
class Match(Condition):
    """Each word of `text` occurs, as a whole word in any case, in at least one of the text fields.

    Words are runs of letters and digits; a text without any fits nothing.
    """

    fields: Sequence[str]
    text: str


@dataclass(frozen=True, slots=True, init=False)
class All(Condition):
    """Every one of these conditions fits; without any, everything does."""

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        """Take the conditions one by one."""
        object.__setattr__(self, "conditions", conditions)


@dataclass(frozen=True, slots=True, init=False)
class Any(Condition):
    """At least one of these conditions fits; without any, nothing does."""

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        """Take the conditions one by one."""
        object.__setattr__(self, "conditions", conditions)


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """The condition does not fit; a document that lacks the field is among those found."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Sort:
    """Order by one field."""

    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page of the documents that fit `where`.

    `limit` is 1 to 1,000 rows. `cursor` is the `next` of the page before, of a query with the same `where` and
    `sort`.
    """

    where: Condition = All()
    sort: Sequence[Sort] = ()
    limit: int = 50
    cursor: str | None = None
