"""Folding: from a block of events to the documents that they change. One way for all who fold.

The projector, a rebuild, `verify` and `explain` differ in where they get events from and in what they do with the
documents; what a document is, they learn here.
"""

import zlib
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from cqrskit.errors import CqrskitError, EventDecodeError, UnknownEventType
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.projection import Fold, Projection, _stream_id, folds_of

__all__ = ["WHOLE", "Failure", "Folded", "Folding", "Item", "Partition", "partition_of"]

Item = tuple[Fold, Any, RecordedEvent]
"""One event for one document: the fold to apply, the event, and its place in the log."""

UUID_LENGTH = 36
HASHED_DIGITS = 4


class Partition(msgspec.Struct, frozen=True):
    """A share of a projection's documents: those whose key falls on `number`, of `count` shares."""

    number: int
    count: int

    def owns(self, key: str) -> bool:
        """Whether the document with this key belongs here."""
        return self.count == 1 or partition_of(key, self.count) == self.number


WHOLE = Partition(0, 1)
"""The one partition of a projection that has not been divided."""


def partition_of(key: str, count: int) -> int:
    """Number of the partition, of `count`, that a document's key falls on: the same on all machines, for ever.

    A UUID's text falls where its last four digits say, so that Postgres can tell for a stream's id as well.
    """
    if len(key) == UUID_LENGTH and key[8] == "-":
        try:
            return int(key[-HASHED_DIGITS:], 16) % count
        except ValueError:
            pass
    return zlib.crc32(key.encode()) % count


class Folded(msgspec.Struct):
    """A document in the making: its version, its content, and whether this block changed it."""

    version: int
    document: Any
    changed: bool = False


class Failure(msgspec.Struct, frozen=True):
    """The event that a document's fold could not take, and why."""

    position: int
    reason: str


class Folding:
    """How one projection's events become documents, for one partition of its keys."""

    def __init__(
        self,
        projection: Projection,
        registry: EventRegistry,
        partition: Partition = WHOLE,
        *,
        skipped: Collection[tuple[str, int]] = (),
    ) -> None:
        """`registry` decodes the events. `skipped` are pairs of key and position: events given up for a document."""
        self.projection = projection
        self.partition = partition
        self._registry = registry
        self._folds = folds_of(projection)
        self.types = sorted(self._folds)
        """Stored names of the events to read."""
        self.by_stream = all(fold.key is _stream_id for fold in self._folds.values())
        """Whether the only document that an event changes is that of its stream."""
        self._skipped = frozenset(skipped)
        self.only_begins = all(fold.creates for fold in self._folds.values())
        """Whether each event begins a document, so that none is ever folded into again."""

    def group(self, events: Sequence[RecordedEvent]) -> dict[str, list[Item]]:
        """Events by the document that they change, in the order of the log; those of other partitions are left out.

        Raises EventDecodeError or UnknownEventType for an event that cannot be read, CqrskitError if a key function
        fails.
        """
        groups: dict[str, list[Item]] = {}
        folds, decode, owns = self._folds, self._registry.decode, self.partition.owns
        for recorded in events:
            try:
                event = decode(recorded)
                fold = folds[recorded.type]
                key = fold.key(event, recorded)
            except (EventDecodeError, UnknownEventType):
                raise
            except Exception as error:
                raise CqrskitError(
                    f"projection {self.projection.name}: the key of event {recorded.position} ({recorded.type}) "
                    f"cannot be found: {type(error).__name__}: {error}; correct the key function and start again"
                ) from error
            if key is None or not owns(key) or (self._skipped and (key, recorded.position) in self._skipped):
                continue
            group = groups.get(key)
            if group is None:
                groups[key] = [(fold, event, recorded)]
            else:
                group.append((fold, event, recorded))
        return groups

    def begins(self, items: Sequence[Item]) -> bool:
        """Whether the first of a document's events is known to begin it, so that there is nothing to load before."""
        return items[0][0].creates

    def fold(self, folded: Folded, items: Sequence[Item]) -> Failure | None:
        """Fold a document's events into it; the first that fails ends the fold and is returned.

        Events at or below the document's version are passed over.
        """
        for fold, event, recorded in items:
            if recorded.position <= folded.version:
                continue
            try:
                document = fold.apply(folded.document, event, recorded)
            except Exception as error:
                return Failure(recorded.position, f"{type(error).__name__}: {error}")
            if document is None and folded.document is None:
                continue
            folded.document = document
            folded.version = recorded.position
            folded.changed = True
        return None
