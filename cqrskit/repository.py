"""What handlers see: aggregates by id, kept in memory between commands."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from cqrskit.aggregate import Aggregate, PendingEvents, make_aggregate
from cqrskit.errors import AggregateExists, AggregateNotFound
from cqrskit.events import EventRegistry, RecordedEvent

__all__ = ["Loaded", "MissingAggregate", "Repository"]

P = ParamSpec("P")
A = TypeVar("A", bound=Aggregate)


class MissingAggregate(BaseException):
    """The handler wants an aggregate that is not in memory: the executor loads it and runs the handler again.

    A BaseException, so that user code cannot swallow it.
    """

    def __init__(self, stream_id: UUID) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id


class Loaded(msgspec.Struct, gc=False):
    """An aggregate in memory and the position of the last event that it rests on (0: not yet in the log)."""

    aggregate: Aggregate
    position: int


class Repository:
    """The aggregates that one executor holds. Handlers use `get`, `find`, `create` and `now`, the executor the rest.

    A stream that was looked for and has no events is remembered as absent until it is forgotten.
    """

    def __init__(self, registry: EventRegistry, *, size_max: int) -> None:
        """`size_max` aggregates are kept between batches; the least recently used go first."""
        self.now: datetime = datetime.now(UTC)
        self.pending = PendingEvents()
        self.touched: set[UUID] = set()
        self._registry = registry
        self._size_max = size_max
        self._known: dict[UUID, Loaded | None] = {}

    # --- for handlers

    def find(self, aggregate_class: type[A], aggregate_id: UUID) -> A | None:
        """The aggregate, or None if there is none of this class with this id."""
        self.touched.add(aggregate_id)
        try:
            loaded = self._known[aggregate_id]
        except KeyError:
            raise MissingAggregate(aggregate_id) from None
        if loaded is None or not isinstance(loaded.aggregate, aggregate_class):
            return None
        return loaded.aggregate

    def get(self, aggregate_class: type[A], aggregate_id: UUID) -> A:
        """The aggregate; AggregateNotFound if there is none of this class with this id."""
        aggregate = self.find(aggregate_class, aggregate_id)
        if aggregate is None:
            raise AggregateNotFound(aggregate_class.__name__, aggregate_id)
        return aggregate

    def create(self, aggregate_class: Callable[P, A], aggregate_id: UUID, /, *values: P.args, **named: P.kwargs) -> A:
        """A new aggregate, taken into the log: ``repository.create(Account, account_id, owner="Ann")``.

        The arguments after the id are those of the class. AggregateExists if the id is taken, by whatever class.
        """
        self.touched.add(aggregate_id)
        if aggregate_id not in self._known:
            raise MissingAggregate(aggregate_id)
        if self._known[aggregate_id] is not None:
            raise AggregateExists(getattr(aggregate_class, "__name__", "aggregate"), aggregate_id)
        aggregate = make_aggregate(aggregate_class, aggregate_id, *values, **named)
        if self.pending.probing:
            return aggregate
        self.pending.extend(aggregate._pending_events)  # type: ignore[arg-type]
        aggregate._pending_events = self.pending  # type: ignore[assignment]
        self._known[aggregate_id] = Loaded(aggregate, 0)
        return aggregate

    # --- for the executor

    def __len__(self) -> int:
        return len(self._known)

    def missing(self, stream_ids: Iterable[UUID]) -> list[UUID]:
        """Those of `stream_ids` that nothing is known about."""
        return [stream_id for stream_id in stream_ids if stream_id not in self._known]

    def learn(self, stream_ids: Iterable[UUID], recorded: Iterable[RecordedEvent]) -> None:
        """Build aggregates from their recorded events; those of `stream_ids` without any are absent."""
        positions: dict[UUID, int] = {}
        built: dict[UUID, Any] = {}
        for row in recorded:
            stream_id = row.stream_id
            built[stream_id] = self._registry.decode(row).mutate(built.get(stream_id))
            positions[stream_id] = row.position
        for stream_id in stream_ids:
            aggregate = built.get(stream_id)
            if aggregate is None:
                self._known[stream_id] = None
            else:
                aggregate._pending_events = self.pending
                self._known[stream_id] = Loaded(aggregate, positions[stream_id])

    def replay(self, stream_id: UUID, events: Iterable[Any]) -> None:
        """Apply events that were decided but are not in the log yet to an aggregate just learnt."""
        loaded = self._known.get(stream_id)
        aggregate: Any = None if loaded is None else loaded.aggregate
        for decided in events:
            aggregate = decided.mutate(aggregate)
        if aggregate is not None:
            aggregate._pending_events = self.pending
            self._known[stream_id] = Loaded(aggregate, 0 if loaded is None else loaded.position)

    def forget(self, stream_ids: Iterable[UUID]) -> None:
        """Drop what is known about these streams; the next use loads them."""
        for stream_id in stream_ids:
            self._known.pop(stream_id, None)

    def forget_all(self) -> None:
        """Drop everything that is known."""
        self._known.clear()

    def position_of(self, stream_id: UUID) -> int:
        """Position of the last event of a known stream; 0 if it is absent or new."""
        loaded = self._known.get(stream_id)
        return 0 if loaded is None else loaded.position

    def committed(self, positions: dict[UUID, int]) -> None:
        """Note the new last positions of streams that a batch appended to."""
        known = self._known
        for stream_id, position in positions.items():
            loaded = known.pop(stream_id, None)
            if loaded is not None:
                loaded.position = position
                known[stream_id] = loaded

    def trim(self) -> None:
        """Forget absent streams and, beyond the limit, the least recently used aggregates."""
        known = self._known
        if len(known) <= self._size_max:
            return
        self.forget([stream_id for stream_id, loaded in known.items() if loaded is None])
        excess = len(known) - self._size_max
        if excess > 0:
            self.forget([stream_id for stream_id, _ in zip(known, range(excess), strict=False)])
