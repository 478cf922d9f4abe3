"""What handlers see: aggregates by id, kept in memory between commands."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from sys import getsizeof
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from cqrskit.aggregate import Aggregate, PendingEvents, make_aggregate
from cqrskit.commands import Command
from cqrskit.errors import AggregateExists, AggregateNotFound
from cqrskit.event_store import Found, Snapshot
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.snapshots import SnapshotCodec

__all__ = ["PRESUMED", "Loaded", "MissingAggregate", "Repository", "Scheduled", "Unproven"]

P = ParamSpec("P")
A = TypeVar("A", bound=Aggregate)

ENTRY_BYTES = 600
"""About what an aggregate without attributes costs: the object, its dict, its id and its place in the cache."""
PRESUMED = -1
DUE_KEY_LENGTH_MAX = 255
WEIGH_EVERY_VERSIONS = 64
WEIGH_EVERY_YOUNG = 32


class MissingAggregate(BaseException):
    """The handler wants an aggregate that is not in memory: the executor loads it and runs the handler again.

    A BaseException, so that user code cannot swallow it.
    """

    def __init__(self, stream_id: UUID) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id


class Unproven(BaseException):
    """What the handler decided rests on something presumed that its append would not show to be so: look it up."""


class Loaded(msgspec.Struct, gc=False):
    """What is known of one stream: its aggregate (None: there is none), and the position of its last event.

    It was certainly current when the log's head was at `as_of`; with PRESUMED in its place the stream was taken to be
    absent, and nothing has shown yet that it was. `weight_bytes` is an estimate of its memory.
    """

    stream_id: UUID
    aggregate: Aggregate | None
    position: int
    as_of: int
    weight_bytes: int = ENTRY_BYTES


class Scheduled(msgspec.Struct, frozen=True, gc=False):
    """What a handler asked for: this command at this time under `key`; both None: nothing under it any more."""

    key: str
    command: Command | None = None
    at: datetime | None = None


class Repository:
    """The aggregates that one executor holds. Handlers use `get`, `find`, `create`, `now` and `conflicting_field`.

    They also `schedule` commands for later, and `unschedule` them, and `decide` those that theirs contains.

    A stream that was looked for and has no events is remembered as absent until it is forgotten.
    """

    def __init__(self, registry: EventRegistry, snapshots: SnapshotCodec, *, size_max: int, bytes_max: int) -> None:
        """`size_max` aggregates and about `bytes_max` bytes are kept; the least recently changed go first.

        What is known as of a head before `required_as_of` counts as not known; with PRESUMED there, what is presumed
        counts as known. `hits` and `misses` count streams that a batch named, `evictions` those that had to go.
        """
        self.now: datetime = datetime.now(UTC)
        self.conflicting_field: str | None = None
        self.pending = PendingEvents()
        self.touched: list[Loaded] = []
        self.scheduled: list[Scheduled] = []
        self.required_as_of = 0
        self.decide_contained: Callable[[Command], Any] = _decide_nothing
        self._registry = registry
        self._snapshots = snapshots
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._weights: dict[type[Aggregate], int] = {}
        self._known: OrderedDict[UUID, Loaded] = OrderedDict()

    # --- for handlers

    def find(self, aggregate_class: type[A], aggregate_id: UUID) -> A | None:
        """The aggregate, or None if there is none of this class with this id."""
        loaded = self._known.get(aggregate_id)
        if loaded is None or loaded.as_of < self.required_as_of:
            raise MissingAggregate(aggregate_id)
        aggregate = loaded.aggregate
        self.touched.append(loaded)
        return aggregate if isinstance(aggregate, aggregate_class) else None

    def get(self, aggregate_class: type[A], aggregate_id: UUID) -> A:
        """The aggregate; AggregateNotFound if there is none of this class with this id."""
        aggregate = self.find(aggregate_class, aggregate_id)
        if aggregate is None:
            raise AggregateNotFound(aggregate_class.__name__, aggregate_id)
        return aggregate

    def create(self, aggregate_class: Callable[P, A], aggregate_id: UUID, /, *values: P.args, **named: P.kwargs) -> A:
        """A new aggregate, taken into the log: ``repository.create(Account, account_id, owner="Ann")``.

        The arguments after the id are those of the class, or of a class method that makes one of it, which an aggregate
        has that can begin in several ways. AggregateExists if the id is taken, by whatever class.
        """
        loaded = self._known.get(aggregate_id)
        if loaded is None or loaded.as_of < self.required_as_of:
            raise MissingAggregate(aggregate_id)
        self.touched.append(loaded)
        if loaded.aggregate is not None:
            named_class = getattr(
                aggregate_class, "__self__", aggregate_class
            )  # a class method makes what its class is
            raise AggregateExists(getattr(named_class, "__name__", "aggregate"), aggregate_id)
        aggregate = make_aggregate(aggregate_class, aggregate_id, *values, **named)
        if self.pending.probing:
            return aggregate
        self.pending.extend(aggregate._pending_events)  # type: ignore[arg-type]
        aggregate._pending_events = self.pending  # type: ignore[assignment]
        loaded.aggregate = aggregate
        return aggregate

    def decide(self, command: Command) -> Any:
        """Decide a command that the one being handled contains, and return its reply (`Command.contained_commands`).

        What was decided under its idempotency key before is its reply, or is raised, again. A refusal, of then or of
        now, is one of the whole: nothing takes effect, and nothing is remembered for those contained. So let it be
        raised, or raise another in its place.
        """
        return self.decide_contained(command)

    def schedule(self, command: Command, *, at: datetime, key: str) -> None:
        """Have a command run at a time, once, by whichever process takes commands then; at once if that is past.

        It is a part of the decision: stored if the handler's events are, and in their transaction. `key` names it, in
        the whole log: a command that waits under the same key is replaced. The handler must append an event, or its
        command have an idempotency key. Raises ValueError for a time without a zone or a key that is empty or longer
        than 255 characters.
        """
        if at.tzinfo is None:
            raise ValueError(f"{type(command).__name__} is scheduled at {at}, which has no time zone: give it one")
        self._schedule(Scheduled(key, command, at))

    def unschedule(self, key: str) -> None:
        """Take back the command that waits under `key`, as a part of the decision; nothing if none waits.

        One that a process has begun to run may still take effect, before this decision or after it.
        """
        self._schedule(Scheduled(key))

    def _schedule(self, wish: Scheduled) -> None:
        if wish.key.startswith("reaction:"):
            raise ValueError(f"the key {wish.key!r} would be taken for a reaction's: let it begin otherwise")
        if not 0 < len(wish.key) <= DUE_KEY_LENGTH_MAX or not wish.key.isprintable():
            raise ValueError(f"a due command's key has 1 to {DUE_KEY_LENGTH_MAX} printable characters")
        if not self.pending.probing:
            self.scheduled.append(wish)

    # --- for the executor

    def looks(self, *, accepted: bool) -> list[tuple[UUID, int, int]]:
        """What the last handler looked at: streams, with the version seen and the head at which it was current.

        Those that an `accepted` handler appends to are left out, since the append shows that they were current. Raises
        Unproven if another one was presumed to be absent.
        """
        changes: dict[int, int] = {}
        for aggregate, _ in self.pending:
            changes[id(aggregate)] = changes.get(id(aggregate), 0) + 1
        looks = []
        for loaded in self.touched:
            found = loaded.aggregate
            count = changes.get(id(found), 0)
            if not (accepted and count):
                if loaded.as_of == PRESUMED:
                    raise Unproven
                version = 0 if found is None else found.__dict__["_version"] - count
                looks.append((loaded.stream_id, version, loaded.as_of))
        return looks

    def __len__(self) -> int:
        return len(self._known)

    @property
    def weight_bytes(self) -> int:
        """About how much memory the aggregates take."""
        return self._bytes

    @property
    def shapes(self) -> list[str]:
        """The shapes of snapshots that `learn` understands."""
        return self._snapshots.shapes

    def versions_to_load(self, stream_ids: Iterable[UUID]) -> dict[UUID, int]:
        """Those of `stream_ids` that are not known well enough, with the versions up to which they are known."""
        known, required = self._known, self.required_as_of
        wanted = {}
        for stream_id in stream_ids:
            loaded = known.get(stream_id)
            if loaded is None:
                wanted[stream_id] = 0
            elif loaded.as_of < required:
                wanted[stream_id] = 0 if loaded.aggregate is None else loaded.aggregate.version
            else:
                self.hits += 1
        self.misses += len(wanted)
        return wanted

    def presume_absent(self, stream_ids: Iterable[UUID]) -> None:
        """Take these streams to be absent, unless more is known of them."""
        for stream_id in stream_ids:
            if stream_id not in self._known:
                self._put(stream_id, None, 0, PRESUMED)

    def learn(self, wanted: Mapping[UUID, int], found: Found, as_of: int) -> None:
        """Take in what was loaded for `versions_to_load`, when the log's head was at `as_of` or later."""
        try:
            for snapshot in found.snapshots:
                self._put(snapshot.stream_id, self._snapshots.restore(snapshot), snapshot.position, as_of)
            self._take_in(found.events, as_of)
        except BaseException:
            self.forget(wanted)  # half of a stream's events make an aggregate that never was
            raise
        for stream_id in wanted:
            loaded = self._known.get(stream_id)
            if loaded is None:
                self._put(stream_id, None, 0, as_of)
            else:
                loaded.as_of = max(loaded.as_of, as_of)
                self._weigh(loaded)

    def _take_in(self, events: Iterable[RecordedEvent], as_of: int) -> None:
        loaded: Loaded | None = None
        for row in events:
            stream_id = row.stream_id
            if loaded is None or loaded.stream_id.int != stream_id.int:
                loaded = self._known.get(stream_id) or self._put(stream_id, None, 0, as_of)
            aggregate: Any = loaded.aggregate
            if aggregate is None:
                loaded.aggregate = self._adopt(self._registry.decode(row).mutate(None))
            elif row.stream_version > aggregate.__dict__["_version"]:
                self._registry.decode(row).mutate(aggregate)
            loaded.position = max(loaded.position, row.position)

    def replay(self, stream_id: UUID, events: Iterable[Any]) -> None:
        """Apply events that were decided but are perhaps not in the log yet to an aggregate just learnt."""
        loaded = self._known[stream_id]
        aggregate: Any = loaded.aggregate
        for decided in events:
            if aggregate is None or decided.__dict__["originator_version"] > aggregate.version:
                aggregate = decided.mutate(aggregate)
        loaded.aggregate = None if aggregate is None else self._adopt(aggregate)

    def forget(self, stream_ids: Iterable[UUID]) -> None:
        """Drop what is known about these streams; the next use loads them."""
        for stream_id in stream_ids:
            loaded = self._known.pop(stream_id, None)
            if loaded is not None:
                self._bytes -= loaded.weight_bytes

    def forget_all(self) -> None:
        """Drop everything that is known."""
        self._known.clear()
        self._bytes = 0

    def known(self, stream_id: UUID) -> Loaded | None:
        """What is known of a stream."""
        return self._known.get(stream_id)

    def position_of(self, stream_id: UUID) -> int:
        """Position of the last event of a known stream; 0 if it is absent or new."""
        loaded = self._known.get(stream_id)
        return 0 if loaded is None else loaded.position

    def take_snapshots(self, stream_ids: Iterable[UUID]) -> list[Snapshot]:
        """The states of these aggregates now, with position 0, since they are not in the log yet."""
        taken = []
        for stream_id in stream_ids:
            loaded = self._known.get(stream_id)
            snapshot = None if loaded is None or loaded.aggregate is None else self._snapshots.take(loaded.aggregate, 0)
            if snapshot is not None:
                taken.append(snapshot)
        return taken

    def committed(self, positions: Mapping[UUID, int], as_of: int) -> None:
        """Note the new last positions of streams that a batch appended to; the log's head is at `as_of`."""
        known = self._known
        for stream_id, position in positions.items():
            loaded = known.get(stream_id)
            if loaded is None:
                continue
            loaded.position = max(loaded.position, position)
            loaded.as_of = max(loaded.as_of, as_of)
            known.move_to_end(stream_id)
            aggregate = loaded.aggregate
            if aggregate is not None and aggregate.__dict__["_version"] % WEIGH_EVERY_VERSIONS == 1:
                self._weigh(loaded)

    def trim(self) -> None:
        """Beyond the limits, forget the streams that were not changed for longest."""
        known = self._known
        while len(known) > self._size_max or (self._bytes > self._bytes_max and known):
            _, loaded = known.popitem(last=False)
            self._bytes -= loaded.weight_bytes
            self.evictions += 1

    def _put(self, stream_id: UUID, aggregate: Any, position: int, as_of: int) -> Loaded:
        self.forget((stream_id,))
        if aggregate is not None:
            self._adopt(aggregate)
        self._known[stream_id] = loaded = Loaded(stream_id, aggregate, position, as_of)
        self._bytes += ENTRY_BYTES
        return loaded

    def _adopt(self, aggregate: Any) -> Any:
        aggregate._pending_events = self.pending
        return aggregate

    def _weigh(self, loaded: Loaded) -> None:
        """Estimate an aggregate's memory: each one anew as it grows, a young one as others of its class."""
        aggregate = loaded.aggregate
        if aggregate is None:
            return
        weight_bytes = self._weights.get(type(aggregate), 0)
        if not weight_bytes or aggregate.version >= WEIGH_EVERY_VERSIONS or len(self._known) % WEIGH_EVERY_YOUNG == 0:
            weight_bytes = ENTRY_BYTES + sum(map(_weight_of, vars(aggregate).values()))
            if aggregate.version < WEIGH_EVERY_VERSIONS:
                self._weights[type(aggregate)] = weight_bytes
        self._bytes += weight_bytes - loaded.weight_bytes
        loaded.weight_bytes = weight_bytes


def _decide_nothing(command: Command) -> Any:
    raise TypeError(f"nothing decides {type(command).__name__} here")


def _weight_of(value: object) -> int:
    """About the memory of one attribute: a container's first items stand for all of them."""
    if isinstance(value, PendingEvents):
        return 0
    if isinstance(value, dict):
        sample: Sequence[object] = [each for each, _ in zip(value.items(), range(8), strict=False)]
    elif isinstance(value, list | tuple | set | frozenset):
        sample = [each for each, _ in zip(value, range(8), strict=False)]
    else:
        return getsizeof(value)
    if not sample:
        return getsizeof(value)
    return getsizeof(value) + len(value) * sum(map(_weight_of, sample)) // len(sample)
