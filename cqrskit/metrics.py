"""Every metric of one runtime, on a registry of its own, so that several runtimes share a process.

The names are documented in ``docs/reference/metrics.md``. Labels have few values: names that the code declares, HTTP
methods and statuses, and words from this module; never an id, a key or a path that a caller chose.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["Metrics", "Outcomes", "ProjectionFigures"]

BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
CIRCUIT_STATES = ("closed", "half-open", "open")


class ProjectionFigures(Protocol):
    """What is shown of a projection: a `ProjectionStatus` has it."""

    @property
    def name(self) -> str:
        """The projection's name."""

    @property
    def lag_events(self) -> int:
        """Events that it has not folded."""

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest of them."""

    @property
    def parked_keys(self) -> int:
        """Keys that are set aside."""

    @property
    def failure(self) -> str | None:
        """Why it cannot go on."""


class Outcomes(Collector):
    """How commands ended, counted by name and outcome in the event loop's thread; a dict, since each command counts."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, command: str, outcome: str) -> None:
        """One more command of this name has ended so."""
        key = (command, outcome)
        self._counts[key] = self._counts.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """The counter."""
        family = CounterMetricFamily(
            "cqrskit_commands", "Commands that have ended, by name and outcome.", labels=("command", "outcome")
        )
        for key, count in list(self._counts.items()):
            family.add_metric(key, count)
        yield family


class _Projections(Collector):
    """The projections as they were last measured."""

    def __init__(self) -> None:
        self.measured: Sequence[ProjectionFigures] = ()
        self.measured_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """The gauges; without a sample until somebody has measured."""
        for name, help_text, figure in (
            ("lag_events", "Events that the projection has not folded.", lambda each: each.lag_events),
            ("lag_seconds", "Age of the oldest event that it has not folded.", lambda each: each.lag_seconds),
            ("parked_keys", "Keys that are set aside because a fold failed.", lambda each: each.parked_keys),
            ("failed", "1 if the projection cannot go on, else 0.", lambda each: each.failure is not None),
        ):
            family = GaugeMetricFamily(f"cqrskit_projection_{name}", help_text, labels=("projection",))
            for each in self.measured:
                family.add_metric((each.name,), float(figure(each)))
            yield family
        age = GaugeMetricFamily(
            "cqrskit_projection_measurement_age_seconds", "Time since the figures of the projections were measured."
        )
        if self.measured_at is not None:
            age.add_metric((), time.monotonic() - self.measured_at)
        yield age


class Metrics:
    """The metrics of one runtime; `registry` has them all. Whatever counts gets this object, or a part of it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.outcomes = Outcomes()
        registry.register(self.outcomes)
        self.batch_commands = Histogram(
            "cqrskit_batch_commands", "Commands in a committed batch.", buckets=BATCH_SIZES, registry=registry
        )
        self.decide_seconds = Histogram(
            "cqrskit_decide_seconds",
            "Time to decide on the commands that were taken at once, loading included.",
            buckets=SECONDS,
            registry=registry,
        )
        self.append_seconds = Histogram(
            "cqrskit_append_seconds",
            "Time from the start of a batch's append to its commit or failure.",
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_failures = Counter(
            "cqrskit_batch_failures", "Batches that failed as a whole; most are decided again.", registry=registry
        )
        self._queue = Gauge("cqrskit_queue_commands", "Commands that wait to be decided.", registry=registry)
        self._cached = Gauge("cqrskit_cached_aggregates", "Aggregates in the executor's memory.", registry=registry)
        self._circuit = Gauge(
            "cqrskit_elasticsearch_circuit",
            "1 for the state that the circuit to Elasticsearch is in.",
            ("state",),
            registry=registry,
        )
        self._requests = Counter(
            "cqrskit_http_requests", "Replies that were begun.", ("method", "status"), registry=registry
        )
        self._projections = _Projections()
        registry.register(self._projections)

    def watch_executor(self, queue_length: Callable[[], int], cached_aggregates: Callable[[], int]) -> None:
        """Ask these at each scrape."""
        self._queue.set_function(queue_length)
        self._cached.set_function(cached_aggregates)

    def watch_circuit(self, state: Callable[[], str]) -> None:
        """Ask for the circuit's state at each scrape."""

        def is_in(wanted: str) -> Callable[[], float]:
            return lambda: float(state() == wanted)

        for each in CIRCUIT_STATES:
            self._circuit.labels(each).set_function(is_in(each))

    def request_answered(self, method: str, status: int) -> None:
        """A reply to a request has begun; a method that nobody knows counts as ``other``."""
        self._requests.labels(method if method in METHODS else "other", str(status)).inc()

    def projections_measured(self, found: Iterable[ProjectionFigures]) -> None:
        """Show these from now on."""
        self._projections.measured = tuple(found)
        self._projections.measured_at = time.monotonic()
