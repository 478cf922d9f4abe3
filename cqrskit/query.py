"""The query language: a few conditions, a sort order, pages. It means the same on every read store.

`cqrskit.summary` has its other half: counts, sums and histograms.

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

__all__ = [
    "LIMIT_MAX",
    "STABLE_FOR_SECONDS",
    "All",
    "Any",
    "Condition",
    "Exists",
    "Match",
    "Not",
    "Prefix",
    "Query",
    "Range",
    "Sort",
    "Term",
    "Terms",
]

LIMIT_MAX = 1_000
"""Most rows on one page, and most values of one `Terms`."""
STABLE_FOR_SECONDS = 300
"""How long a stable list is kept after each of its pages."""


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
class Prefix(Condition):
    """The keyword begins with this text (case-sensitive); a text without characters is refused."""

    field: str
    text: str


@dataclass(frozen=True, slots=True)
class Exists(Condition):
    """The field has a value; ``Not(Exists(...))`` finds documents without one. Not for full text."""

    field: str


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

    `limit` is 1 to 1,000 rows. `cursor` is the `next` of the page before, of a query with the same `where`, `sort` and
    `stable`.

    While others write, pages show each row as it is when its page is asked for. A row that nobody changes is seen
    exactly once; one whose place in the order moves may be seen twice or not at all (sort by what never changes, such
    as the id, to rule that out). All pages of a `stable` query show the moment of its first page: each row that fitted
    then once, as it was, whatever has become of it. The store keeps that moment for 300 s after each page and until
    the last one was given; then its cursors are an InvalidCursor. Elasticsearch keeps a point in time. Postgres keeps a
    copy of the rows, at most 100,000 of them (InvalidQuery beyond), which its crash may end early.
    """

    where: Condition = All()
    sort: Sequence[Sort] = ()
    limit: int = 50
    cursor: str | None = None
    stable: bool = False
