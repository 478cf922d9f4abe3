"""Folding: from a block of events to the documents that they change. One way for all who fold.

The projector, a rebuild, `verify` and `explain` differ in where they get events from and in what they do with the
documents; what a document is, they learn here.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from cqrskit.document_codec import ID_BYTES_MAX, Unstorable, check_id
from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.event_versions import base_of
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.partition import WHOLE, Partition, partition_of
from cqrskit.projection import Fold, Projection, folds_of

__all__ = [
    "WHOLE",
    "Failure",
    "Folded",
    "Folding",
    "Grouped",
    "Item",
    "Partition",
    "event_key",
    "partition_of",
]

Item = tuple[Fold, Any, RecordedEvent]
"""One event for one document: the fold to apply, the event, and its place in the log."""


class Folded(msgspec.Struct):
    """A document in the making: its version, its content, and whether this block changed it."""

    version: int
    document: Any
    changed: bool = False


class Failure(msgspec.Struct, frozen=True):
    """The event that a document's fold could not take, of which stream it is, and why."""

    position: int
    reason: str
    stream_id: UUID


class Grouped(msgspec.Struct, frozen=True):
    """A block of events, sorted out. `failures` are keys to be parked before anything is folded.

    A failed event is in no group; those of a failed document's key end before it. Failures are named by the document,
    or by `event_key` where it is not known which documents the event belongs to: then it is folded into none of them.
    """

    groups: dict[str, list[Item]]
    failures: dict[str, Failure]


class _Plan(msgspec.Struct, frozen=True):
    """What is done with one type of event. `by_stream`: every fold's document is that of the stream."""

    folds: tuple[Fold, ...]
    by_stream: bool


def event_key(position: int) -> str:
    """The key under which an event is parked whose document is not known."""
    return f"event:{position}"


class Folding:
    """How one projection's events become documents, for one partition of them."""

    def __init__(
        self,
        projection: Projection,
        registry: EventRegistry,
        partition: Partition = WHOLE,
        *,
        skipped: Collection[tuple[str, int]] = (),
        wanted: Callable[[str], bool] | None = None,
    ) -> None:
        """`registry` decodes the events.

        `skipped` are pairs of key and position that an operator gave up: the event is not folded into that document;
        with `event_key`, into none. `wanted` tells which keys are asked for, where not all are.
        """
        self.projection = projection
        self.partition = partition
        folds = folds_of(projection)
        every = [fold for folds_of_type in folds.values() for fold in folds_of_type]
        self.types = sorted(folds)
        """Stored names of the events to read."""
        self.only_begins = all(fold.creates for fold in every)
        """Whether each event begins a document, so that none is ever folded into again."""
        self.by_stream = all(fold.by_stream for fold in every)
        """Whether the only document that an event changes is that of its stream."""
        self.partition_by_stream = self.by_stream or self.only_begins
        """Whether the partition of an event's documents is that of its stream, so that Postgres can tell.

        Besides projections keyed by stream, those whose events all begin documents are divided so: they look at no
        document, so it is the same whoever folds them, and of two events for one key the later one stays in the store
        as the higher version. (A key that two streams share is parked only for the partition where it failed.)
        """
        self._decode = registry.decode
        self._plans = {name: _Plan(of_type, all(fold.by_stream for fold in of_type)) for name, of_type in folds.items()}
        self._bases = {base_of(name) for name in folds}
        self._wanted = wanted
        self._skipped = frozenset(skipped)
        self._skipped_events = {position for key, position in self._skipped if key == event_key(position)}
        self._divided = partition.count > 1
        self._chooses = bool(self._divided or self._skipped or wanted is not None)

    @property
    def feed_partition(self) -> Partition | None:
        """The part of the log to read (`EventStore.read`), where the store can tell it; None: all of it."""
        return self.partition if self._divided and self.partition_by_stream else None

    def group(self, events: Sequence[RecordedEvent]) -> Grouped:
        """Events by the documents that they change, in the order of the log; those of other partitions are left out.

        An event that cannot be decoded, or whose key function fails or names a key that no store takes, is among the
        failures (in one partition). Raises UnknownEventType for an event of a version that only newer code knows.
        """
        groups: dict[str, list[Item]] = {}
        failures: dict[str, Failure] = {}
        plans, decode, chooses = self._plans, self._decode, self._chooses
        for recorded in events:
            plan = plans.get(recorded.type)
            if plan is None:
                if base_of(recorded.type) in self._bases:
                    decode(recorded)
                continue
            if not plan.by_stream:
                self._group_by_keys(plan, recorded, groups, failures)
                continue
            key = recorded.stream_key
            if key in failures or (chooses and not self._takes(key, recorded)):
                continue
            try:
                event = decode(recorded)
            except EventDecodeError as error:
                failures[key] = Failure(recorded.position, str(error), recorded.stream_id)
                continue
            for fold in plan.folds:
                _add(groups, key, fold, event, recorded)
        return Grouped(groups, failures)

    def _group_by_keys(
        self, plan: _Plan, recorded: RecordedEvent, groups: dict[str, list[Item]], failures: dict[str, Failure]
    ) -> None:
        position = recorded.position
        if self._chooses and not self._may_take(recorded):
            return
        found: list[tuple[Fold, str]] = []
        try:
            event = self._decode(recorded)
            for fold in plan.folds:
                found += [(fold, key) for key in _keys_of(fold.key(event, recorded))]
        except UnknownEventType:
            raise
        except EventDecodeError as error:
            reason = str(error)
        except Exception as error:
            reason = f"the key of {recorded.type} cannot be told: {type(error).__name__}: {error}"
        else:
            for fold, key in found:
                if key not in failures and (not self._chooses or self._takes(key, recorded)):
                    _add(groups, key, fold, event, recorded)
            return
        key = event_key(position)
        if self._takes(key, recorded):
            failures[key] = Failure(position, reason, recorded.stream_id)

    def _may_take(self, recorded: RecordedEvent) -> bool:
        """Whether this event may be folded here, as far as can be told without its keys."""
        by_stream = self.feed_partition
        return recorded.position not in self._skipped_events and (
            by_stream is None or by_stream.owns_stream(recorded.stream_id)
        )

    def _takes(self, key: str, recorded: RecordedEvent) -> bool:
        """Whether this event is to be folded, here, into the document of this key."""
        if self._divided:
            if self.partition_by_stream:
                if not self.partition.owns_stream(recorded.stream_id):
                    return False
            elif not self.partition.owns(key):
                return False
        if self._wanted is not None and not self._wanted(key):
            return False
        return (key, recorded.position) not in self._skipped and recorded.position not in self._skipped_events

    def skips(self, key: str, position: int) -> bool:
        """Whether an event was given up for the document of this key."""
        return (key, position) in self._skipped or position in self._skipped_events

    def owner_of(self, key: str, failure: Failure) -> str:
        """The text that tells which partition looks after a key that is parked for this failure."""
        return str(failure.stream_id) if self.partition_by_stream else key

    def begins(self, items: Sequence[Item]) -> bool:
        """Whether the first of a document's events is known to begin it, so that there is nothing to load before."""
        return items[0][0].creates

    def fold(self, folded: Folded, items: Sequence[Item]) -> Failure | None:
        """Fold a document's events into it; the first that fails ends the fold and is returned.

        Events at or below the version that the document comes with are passed over. All folds of one event take effect
        or none, and an event is never divided between calls; so a document of its version has had all of them.
        """
        version_before = folded.version
        position = 0
        before = (folded.version, folded.document, folded.changed)
        for fold, event, recorded in items:
            if recorded.position <= version_before:
                continue
            if recorded.position != position:
                position = recorded.position
                before = (folded.version, folded.document, folded.changed)
            try:
                if fold.creates:
                    # It never sees a document, though one may be at hand here: elsewhere it would not be loaded.
                    document = _made(fold.apply(None, event, recorded))
                else:
                    document = fold.apply(folded.document, event, recorded)
            except Exception as error:
                folded.version, folded.document, folded.changed = before
                return Failure(position, f"{type(error).__name__}: {error}", recorded.stream_id)
            if document is None and folded.document is None:
                continue
            folded.document = document
            folded.version = position
            folded.changed = True
        return None


def _made(document: Any) -> Any:
    if document is None:
        raise ValueError(
            "an event that begins a document (creates=True) was folded to None: let its key function return None for "
            "events to be passed over, or leave `creates` out"
        )
    return document


def _keys_of(found: str | Iterable[str] | None) -> Sequence[str]:
    """The keys that a key function has returned, each once. Raises Unstorable for one that no store takes."""
    if found is None:
        return ()
    keys = (found,) if isinstance(found, str) else tuple(dict.fromkeys(found))
    for key in keys:
        if not isinstance(key, str):
            raise Unstorable(f"its key is {key!r}, which is no str")
        if not (key.isascii() and 0 < len(key) <= ID_BYTES_MAX and "\0" not in key):
            check_id(key)
    return keys


def _add(groups: dict[str, list[Item]], key: str, fold: Fold, event: Any, recorded: RecordedEvent) -> None:
    item = (fold.for_key(key) if fold.takes_key else fold, event, recorded)
    group = groups.get(key)
    if group is None:
        groups[key] = [item]
    else:
        group.append(item)
