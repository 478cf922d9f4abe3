"""What metrics are made of where the client library has nothing that fits: counts that cost a dict's entry, and figures
that somebody else has measured.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["Age", "Counts", "Measured", "Total"]


class Counts(Collector):
    """A counter that is counted in one thread, by the values of its labels: a dict, since every command counts."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        """`labels` are names; values come with each count."""
        self._name = name
        self._help_text = help_text
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}
        registry.register(self)

    def count(self, *values: str, number: int = 1) -> None:
        """So many more with these values of the labels."""
        self._counts[values] = self._counts.get(values, 0) + number

    def collect(self) -> Iterator[Metric]:
        """The counter."""
        family = CounterMetricFamily(self._name, self._help_text, labels=self._labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        yield family


class Total(Collector):
    """A counter that somebody else keeps as a plain number, which is asked for at each scrape; 0 until it is known."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._help_text = help_text
        self._total: Callable[[], int] = lambda: 0
        registry.register(self)

    def watch(self, total: Callable[[], int]) -> None:
        """Ask here."""
        self._total = total

    def collect(self) -> Iterator[Metric]:
        """The counter."""
        family = CounterMetricFamily(self._name, self._help_text)
        family.add_metric((), self._total())
        yield family


class Measured(Collector):
    """Gauges of things with a name, as they were last measured; without a sample until somebody has measured."""

    def __init__(
        self,
        prefix: str,
        label: str,
        gauges: Sequence[tuple[str, str, Callable[[Any], float]]],
        registry: CollectorRegistry,
    ) -> None:
        """`gauges` are the end of the metric's name, its meaning, and what to take of a thing, which has a `name`."""
        self._prefix = prefix
        self._label = label
        self._gauges = gauges
        self._found: Sequence[Any] = ()
        registry.register(self)

    def measured(self, found: Iterable[Any]) -> None:
        """Show these from now on."""
        self._found = tuple(found)

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        for name, help_text, figure in self._gauges:
            family = GaugeMetricFamily(f"{self._prefix}_{name}", help_text, labels=(self._label,))
            for each in self._found:
                family.add_metric((each.name,), float(figure(each)))
            yield family


class Age(Collector):
    """How long ago something was done; without a sample until it was."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._help_text = help_text
        self._done_at: float | None = None
        registry.register(self)

    def done(self) -> None:
        """It was done now."""
        self._done_at = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """The gauge."""
        family = GaugeMetricFamily(self._name, self._help_text)
        if self._done_at is not None:
            family.add_metric((), time.monotonic() - self._done_at)
        yield family
