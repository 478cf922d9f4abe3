"""The counters of `tests.integration.counting` with other projections of the same name, as after a change of code."""

from typing import Annotated

import msgspec

from cqrskit import Application, Projection, RecordedEvent, Text, on
from cqrskit.commands import Handler
from tests.integration.counting import Count, Counter, forget, grow, grow_numbered, label, move, require

__all__ = ["DoubledCounts", "NamedCounts", "Quarters", "doubled", "named", "quartered"]

HANDLERS: list[Handler] = [grow, require, move, grow_numbered, label, forget]


class DoubledCounts(Projection):
    """Counts everything twice; the documents have the same fields."""

    name = "counts"
    document = Count

    @on(Counter.Started, creates=True)
    def started(self, count: None, event: Counter.Started, at: RecordedEvent) -> Count:
        """Begin with nothing."""
        return Count(0, 1)

    @on(Counter.Grown)
    def grown(self, count: Count, event: Counter.Grown, at: RecordedEvent) -> Count:
        """Add twice as much."""
        return Count(count.value + 2 * event.by, count.events + 1)


class NamedCount(msgspec.Struct, frozen=True):
    """A count that can be found by a word."""

    value: int
    words: Annotated[str, Text()]


class NamedCounts(Projection):
    """The documents have other fields."""

    name = "counts"
    document = NamedCount

    @on(Counter.Started, creates=True)
    def started(self, count: None, event: Counter.Started, at: RecordedEvent) -> NamedCount:
        """Begin with nothing."""
        return NamedCount(0, "fresh")

    @on(Counter.Grown)
    def grown(self, count: NamedCount, event: Counter.Grown, at: RecordedEvent) -> NamedCount:
        """Add up."""
        return NamedCount(count.value + event.by, "grown")


class Quarters(Projection):
    """Every counter's value, in four partitions."""

    document = Count
    partitions = 4

    @on(Counter.Started, creates=True)
    def started(self, count: None, event: Counter.Started, at: RecordedEvent) -> Count:
        """Begin with nothing."""
        return Count(0, 1)

    @on(Counter.Grown)
    def grown(self, count: Count, event: Counter.Grown, at: RecordedEvent) -> Count:
        """Add up."""
        return Count(count.value + event.by, count.events + 1)


doubled = Application("counting", aggregates=[Counter], handlers=HANDLERS, projections=[DoubledCounts])
named = Application("counting", aggregates=[Counter], handlers=HANDLERS, projections=[NamedCounts])
quartered = Application("counting", aggregates=[Counter], handlers=HANDLERS, projections=[Quarters])
