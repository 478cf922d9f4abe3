"""What counters are labelled with: a projection that is not keyed by stream, whose folds a test can break and mend."""

import msgspec

from cqrskit import Application, Projection, RecordedEvent, on
from tests.integration.counting import Counter, grow, label

POISON = "poison"
LONGEST = "x" * 100


class Label(msgspec.Struct, frozen=True):
    """All texts that begin with the same letter, in the order of the log."""

    texts: list[str]


class Labels(Projection):
    """Texts by their first letter, over all counters."""

    document = Label
    broken = True

    @on(Counter.Labelled, key=lambda event, at: event.text[0])
    def labelled(self, label: Label | None, event: Counter.Labelled, at: RecordedEvent) -> Label:
        """Add the text; a broken projection cannot stand some."""
        if self.broken and POISON in event.text:
            raise ValueError("poison")
        return Label([*(label.texts if label else []), event.text])


class MendedLabels(Labels):
    """The same after it was mended."""

    name = "labels"
    broken = False


class DividedLabels(Labels):
    """The same in three partitions, broken."""

    name = "labels"
    partitions = 3


class MendedDividedLabels(DividedLabels):
    """The same in three partitions, mended."""

    name = "labels"
    broken = False


def labelling(projection: type[Labels]) -> Application:
    """An application with one of these projections."""
    return Application("labelling", aggregates=[Counter], handlers=[grow, label], projections=[projection])
