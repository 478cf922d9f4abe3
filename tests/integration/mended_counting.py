"""The counters after somebody has mended their projection: it stands the number that was poison."""

from cqrskit import Application, Projection, RecordedEvent, on
from tests.integration.counting import Count, Counter, forget, grow, grow_numbered, label, move, require


class Counts(Projection):
    """Every counter's value."""

    document = Count

    @on(Counter.Started, creates=True)
    def started(self, count: None, event: Counter.Started, at: RecordedEvent) -> Count:
        """Begin with nothing."""
        return Count(0, 1)

    @on(Counter.Grown)
    def grown(self, count: Count, event: Counter.Grown, at: RecordedEvent) -> Count:
        """Add up."""
        return Count(count.value + event.by, count.events + 1)


counting = Application(
    "counting", aggregates=[Counter], handlers=[grow, require, move, grow_numbered, label, forget], projections=[Counts]
)
