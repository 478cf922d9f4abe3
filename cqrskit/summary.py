"""Counts, sums and histograms of documents. They mean the same on every read store, to the last unit.

::

    Summary(where=Term("currency", "EUR"), of=["amount"])                                    # of all that fit
    Summary(of=["amount"], by=Values("account_type"))                                        # for each value
    Summary(of=["amount"], by=Histogram("amount", interval=10_000))                          # for 0 to 9,999, and so on
    Summary(of=["amount"], by=DateHistogram("booked_at", interval="month"))                  # for each month in UTC

Whole numbers are counted and summed exactly, whatever their size: a sum may be beyond 64 bits. Sums of floats are
correct to about 15 digits of the sum of their absolute values, and may differ between stores in the last ones; one
beyond the largest float is infinite. The smallest and largest value are exact for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from cqrskit.query import All, Condition

__all__ = ["DateHistogram", "Figures", "Group", "Groups", "Histogram", "Summary", "Values"]

_EVERYTHING = All()


@dataclass(frozen=True, slots=True)
class Values:
    """One group for each value of a keyword, whole-number or boolean field; its `key` is that value."""

    field: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """One group for each interval of a number: from a multiple of `interval`, its `key`, to just below the next one."""

    field: str
    interval: int | float


@dataclass(frozen=True, slots=True)
class DateHistogram:
    """One group for each day, week (from Monday), month or year, in UTC; its `key` is the first day, a `date`."""

    field: str
    interval: Literal["day", "week", "month", "year"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The documents that fit `where`, counted, and the numbers in the fields `of` summed up.

    Without `by` there is one group with all of them. With it, groups come in the order of their keys, and the
    documents without a value last, as the group whose key is None. Groups without documents are left out. `limit` is
    1 to 1,000 groups; `cursor` is the `next` of the answer before, of the same summary.

    All fields have one value each: a document that may have several would stand in several groups.
    """

    where: Condition = _EVERYTHING
    of: Sequence[str] = ()
    by: Values | Histogram | DateHistogram | None = None
    limit: int = 100
    cursor: str | None = None


class Figures(msgspec.Struct, frozen=True):
    """What the values of one field come to. Missing ones do not count; without any, `min` and `max` are None."""

    count: int
    sum: int | float
    min: int | float | None
    max: int | float | None


class Group(msgspec.Struct, frozen=True):
    """`count` documents; `figures` has an entry for each field of `Summary.of`."""

    key: Any
    count: int
    figures: dict[str, Figures]


class Groups(msgspec.Struct, frozen=True):
    """What a summary found, and the cursor of the next groups (None at the end)."""

    items: list[Group]
    next: str | None = None
