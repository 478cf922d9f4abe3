"""Every metric of one runtime, on a registry of its own, so that several runtimes share a process.

The names are documented in ``docs/reference/metrics.md``. Labels have few values: names that the code declares, HTTP
methods, statuses and route templates, and words from this module; never an id, a key or a path that a caller chose.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram

from cqrskit.collectors import Age, Counts, Measured, Total

__all__ = ["CacheFigures", "DueFigures", "Metrics", "ProjectionFigures", "ProjectorMetrics", "ReactionFigures"]

BATCH_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
OTHER_METHOD, NO_ROUTE, NO_REPLY = "other", "none", "none"
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


class ReactionFigures(Protocol):
    """What is shown of a reaction: a `ReactionStatus` has it."""

    @property
    def name(self) -> str:
        """The reaction's name."""

    @property
    def lag_events(self) -> int:
        """Events that it has not looked at."""

    @property
    def parked_events(self) -> int:
        """Events that are set aside because its method failed."""


class DueFigures(Protocol):
    """What is shown of due commands: a `DueCommandsStatus` has it."""

    @property
    def waiting(self) -> int | None:
        """Those that are to be run; None if they were not counted."""

    @property
    def parked(self) -> int:
        """Those that are set aside."""

    @property
    def overdue_seconds(self) -> float:
        """How long the oldest waiting one is due."""


class CacheFigures(Protocol):
    """What is shown of the executor's memory: a `Repository` has it."""

    hits: int
    misses: int
    evictions: int

    def __len__(self) -> int:
        """Aggregates that it holds."""

    @property
    def weight_bytes(self) -> int:
        """About how much memory they take."""


class ProjectorMetrics:
    """What the projectors of one projection count."""

    def __init__(self, metrics: "Metrics", projection: str) -> None:
        self._metrics = metrics
        self._projection = projection
        self.fold_seconds = metrics.fold_seconds.labels(projection)
        self.write_seconds = metrics.write_seconds.labels(projection)

    def written(self, *, events: int, documents: int, refused: int, parked: int) -> None:
        """So many events are folded and durable, and so many documents; so many the store refused, so many parked."""
        metrics, projection = self._metrics, self._projection
        metrics.folded_events.count(projection, number=events)
        metrics.documents.count(projection, "written", number=documents - refused)
        if refused:
            metrics.documents.count(projection, "refused", number=refused)
        if parked:
            metrics.parkings.count(projection, number=parked)

    def retried(self) -> None:
        """It goes on where it was, after a server did not answer."""
        self._metrics.retries.count("projector")


class Metrics:
    """The metrics of one runtime; `registry` has them all. Whatever counts gets this object, or a part of it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._declare_commands(self.registry)
        self._declare_requests(self.registry)
        self._declare_projections(self.registry)
        self._declare_later_work(self.registry)

    def _declare_commands(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, help_text: str) -> Histogram:
            return Histogram(f"cqrskit_{name}_seconds", help_text, buckets=SECONDS, registry=registry)

        self.outcomes = Counts(
            "cqrskit_commands", "Commands that have ended, by name and outcome.", ("command", "outcome"), registry
        )
        self.batch_commands = Histogram(
            "cqrskit_batch_commands", "Commands in a committed batch.", buckets=BATCH_SIZES, registry=registry
        )
        self.queue_seconds = seconds("queue", "Time that the oldest command of those taken at once has waited.")
        self.decide_seconds = seconds(
            "decide", "Time to decide on the commands that were taken at once, loading included."
        )
        self.append_seconds = seconds("append", "Time from the start of a batch's append to its commit or failure.")
        self.locked_seconds = seconds("locked_batch", "Time of a batch that is decided while the log's head is held.")
        self.batch_failures = Counts(
            "cqrskit_batch_failures", "Batches that failed as a whole; most are decided again.", ("reason",), registry
        )
        self._queue = Gauge("cqrskit_queue_commands", "Commands that wait to be decided.", registry=registry)
        self._cached = Gauge("cqrskit_cached_aggregates", "Aggregates in the executor's memory.", registry=registry)
        self._cached_bytes = Gauge(
            "cqrskit_cached_aggregates_bytes", "About how much memory they take.", registry=registry
        )
        self._hits = Total("cqrskit_cache_hits", "Aggregates that commands named and that were in memory.", registry)
        self._misses = Total("cqrskit_cache_misses", "Aggregates that had to be looked for in the log.", registry)
        self._evictions = Total("cqrskit_cache_evictions", "Aggregates that had to leave memory.", registry)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counts(
            "cqrskit_http_requests", "Requests that have ended.", ("method", "route", "status"), registry
        )
        self._request_seconds = Histogram(
            "cqrskit_http_request_seconds",
            "Time from a request's headers to the end of its reply.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )
        self.refusals = Counts(
            "cqrskit_access_refusals", "Requests that were not let in, by reason.", ("reason",), registry
        )
        self.retries = Counts(
            "cqrskit_retries",
            "Work that was begun again because a server did not answer or was busy.",
            ("work",),
            registry,
        )
        self._circuit = Gauge(
            "cqrskit_elasticsearch_circuit",
            "1 for the state that the circuit to Elasticsearch is in.",
            ("state",),
            registry=registry,
        )

    def _declare_projections(self, registry: CollectorRegistry) -> None:
        self.folded_events = Counts(
            "cqrskit_projector_events", "Events that were folded here, and written.", ("projection",), registry
        )
        self.documents = Counts(
            "cqrskit_projector_documents",
            "Documents that were sent to the read store.",
            ("projection", "outcome"),
            registry,
        )
        self.parkings = Counts(
            "cqrskit_projector_parked_keys", "Keys that were set aside here.", ("projection",), registry
        )
        self.fold_seconds = Histogram(
            "cqrskit_projector_fold_seconds",
            "Time to read and fold the blocks of one write.",
            ("projection",),
            buckets=SECONDS,
            registry=registry,
        )
        self.write_seconds = Histogram(
            "cqrskit_projector_write_seconds",
            "Time to write documents and move the checkpoint.",
            ("projection",),
            buckets=SECONDS,
            registry=registry,
        )
        self._projections = Measured(
            "cqrskit_projection",
            "projection",
            (
                ("lag_events", "Events that the projection has not folded.", lambda each: each.lag_events),
                ("lag_seconds", "Age of the oldest event that it has not folded.", lambda each: each.lag_seconds),
                ("parked_keys", "Keys that are set aside because a fold failed.", lambda each: each.parked_keys),
                ("failed", "1 if the projection cannot go on, else 0.", lambda each: each.failure is not None),
            ),
            registry,
        )

    def _declare_later_work(self, registry: CollectorRegistry) -> None:
        self.due_outcomes = Counts(
            "cqrskit_due_commands_run",
            "Due commands that were tried here, by outcome.",
            ("command", "outcome"),
            registry,
        )
        self._due = Gauge(
            "cqrskit_due_commands", "Due commands that wait, and those that are parked.", ("state",), registry=registry
        )
        self._overdue = Gauge(
            "cqrskit_due_commands_overdue_seconds", "How long the oldest waiting one is due.", registry=registry
        )
        self._overdue.set(float("nan"))  # nobody knows until it is measured
        self.reaction_events = Counts(
            "cqrskit_reaction_events", "Events that were reacted to here.", ("reaction", "outcome"), registry
        )
        self._reactions = Measured(
            "cqrskit_reaction",
            "reaction",
            (
                ("lag_events", "Events that the reaction has not looked at.", lambda each: each.lag_events),
                ("parked_events", "Events that are set aside because it failed.", lambda each: each.parked_events),
            ),
            registry,
        )
        self._age = Age(
            "cqrskit_measurement_age_seconds",
            "Time since the figures of projections, reactions and due commands were measured.",
            registry,
        )

    # --- what is asked for at each scrape

    def watch_executor(self, queue_length: Callable[[], int], cache: CacheFigures) -> None:
        """Ask these."""
        self._queue.set_function(queue_length)
        self._cached.set_function(cache.__len__)
        self._cached_bytes.set_function(lambda: cache.weight_bytes)
        self._hits.watch(lambda: cache.hits)
        self._misses.watch(lambda: cache.misses)
        self._evictions.watch(lambda: cache.evictions)

    def watch_circuit(self, state: Callable[[], str]) -> None:
        """Ask for the circuit's state."""

        def is_in(wanted: str) -> Callable[[], float]:
            return lambda: float(state() == wanted)

        for each in CIRCUIT_STATES:
            self._circuit.labels(each).set_function(is_in(each))

    # --- what is told

    def request_ended(self, method: str, route: str | None, status: int | None, seconds: float) -> None:
        """A request has ended: `route` is the template of its path, None if there was none; `status` None: no reply.

        A method that nobody knows counts as ``other``, so that nobody can make new series.
        """
        method = method if method in METHODS else OTHER_METHOD
        route = NO_ROUTE if route is None else route
        self._requests.count(method, route, NO_REPLY if status is None else str(status))
        self._request_seconds.labels(method, route).observe(seconds)

    def projector(self, projection: str) -> ProjectorMetrics:
        """The part for the projectors of one projection."""
        return ProjectorMetrics(self, projection)

    def measured(
        self, projections: Iterable[ProjectionFigures], reactions: Iterable[ReactionFigures], due: DueFigures
    ) -> None:
        """Show these from now on."""
        self._projections.measured(projections)
        self._reactions.measured(reactions)
        self._due.labels("waiting").set(due.waiting or 0)
        self._due.labels("parked").set(due.parked)
        self._overdue.set(due.overdue_seconds)
        self._age.done()
