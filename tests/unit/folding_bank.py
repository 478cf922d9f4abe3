"""A bank whose projections use all that a fold can do, and logs of it in memory."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import Aggregate, Projection, RecordedEvent, on
from cqrskit.aggregate import Event, event_classes
from cqrskit.events import EventRegistry
from cqrskit.folding import Failure, Folded, Folding
from cqrskit.partition import Partition
from cqrskit.read_store import Stored

STREAMS = [UUID(int=number * 0x1_0001 + 2**100) for number in range(1, 6)]


class Transfer(Aggregate):
    """Money between two names, or none."""

    class Posted(Aggregate.Event):
        """Moved from `source` to `target`, told to `others`."""

        source: str
        target: str
        amount: int
        others: tuple[str, ...] = ()

    class Closed(Aggregate.Event):
        """No more of this name."""

        name: str


class Row(msgspec.Struct, frozen=True):
    """What a name has, and how it came to it: order matters."""

    amount: int
    history: tuple[str, ...]


POISON = 666


def by_source(event: Transfer.Posted, _: RecordedEvent) -> str:
    """The giver."""
    return event.source


def by_target(event: Transfer.Posted, _: RecordedEvent) -> str | None:
    """The taker, who may be nobody."""
    return event.target or None


def by_others(event: Transfer.Posted, _: RecordedEvent) -> tuple[str, ...]:
    """Those who are told."""
    if event.amount == -POISON:
        raise LookupError("whose is it?")
    return event.others


def by_name(event: Transfer.Closed, _: RecordedEvent) -> str:
    """The one who goes."""
    return event.name


class Balances(Projection):
    """What names have, from transfers of all streams: keys of their own, several documents an event, deletion."""

    document = Row

    @on(Transfer.Posted, key=by_source)
    def taken(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent) -> Row:
        """First."""
        return added(row, -event.amount, f"-{at.position}")

    @on(Transfer.Posted, key=by_target)
    def given(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent) -> Row:
        """Second, perhaps in the same document."""
        if event.amount == POISON:
            raise ValueError("poison")
        return added(row, event.amount, f"+{at.position}")

    @on(Transfer.Posted, key=by_others)
    def announced(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent, key: str) -> Row:
        """Third, in many."""
        return added(row, 0, f"{key}?{at.position}")

    @on(Transfer.Closed, key=by_name)
    def closed(self, row: Row | None, event: Transfer.Closed, at: RecordedEvent) -> None:
        """Gone."""


def added(row: Row | None, amount: int, note: str) -> Row:
    """The row after one more."""
    return Row(amount, (note,)) if row is None else Row(row.amount + amount, (*row.history, note))


class Streams(Projection):
    """What was posted, by stream."""

    document = Row

    @on(Transfer.Posted)
    def posted(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent) -> Row:
        """Add up."""
        if event.amount == POISON:
            raise ValueError("poison")
        return added(row, event.amount, str(at.position))

    @on(Transfer.Closed)
    def closed(self, row: Row | None, event: Transfer.Closed, at: RecordedEvent) -> None:
        """Gone."""


class Latest(Projection):
    """The latest that each name got: all its folds begin documents."""

    document = Row

    @on(Transfer.Posted, key=by_target, creates=True)
    def given(self, row: None, event: Transfer.Posted, at: RecordedEvent) -> Row:
        """The new one takes the old one's place."""
        assert row is None
        return added(row, event.amount, str(at.position))


registry = EventRegistry(event_classes(Transfer))


def log_of(*events: Event | bytes, streams: Sequence[UUID] = STREAMS) -> list[RecordedEvent]:
    """A log: events one after another, in streams by turns. Bytes stand for the stored data of a Posted."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    log = []
    for number, event in enumerate(events):
        name = "Transfer.Posted" if isinstance(event, bytes) else event.stored_name
        data = event if isinstance(event, bytes) else registry.encode(event)
        place = number % len(streams), number // len(streams) + 1
        log.append(RecordedEvent(number + 1, streams[place[0]], place[1], name, data, b"{}", now))
    return log


class Store:
    """A read store in memory that keeps to the version rule; a document of None is a deleted one."""

    def __init__(self) -> None:
        self.documents: dict[str, Stored] = {}
        self.parked: dict[str, int] = {}

    def project(self, folding: Folding, events: Sequence[RecordedEvent]) -> None:
        """Fold one block as the projector does: load, fold, write what has changed, park."""
        grouped = folding.group(events)
        failures: dict[str, Failure] = dict(grouped.failures)
        for key, items in grouped.groups.items():
            if key in self.parked:
                continue
            stored = None if folding.begins(items) else self.documents.get(key)
            folded = Folded(0, None) if stored is None else Folded(stored.version, stored.document)
            failure = folding.fold(folded, items)
            if failure is not None:
                failures[key] = failure
            kept = self.documents.get(key)
            if folded.changed and (kept is None or folded.version > kept.version):
                self.documents[key] = Stored(key, folded.version, folded.document)
        for key, failure in failures.items():
            self.parked.setdefault(key, failure.position)

    def as_plain(self) -> tuple[dict[str, tuple[int, Any]], dict[str, int]]:
        """What it holds, to be compared."""
        return {key: (each.version, each.document) for key, each in self.documents.items()}, self.parked


def folded_whole(
    projection: Projection, log: Sequence[RecordedEvent], skipped: Iterable[tuple[str, int]] = ()
) -> tuple[dict[str, tuple[int, Any]], dict[str, int]]:
    """What one fold of the whole log gives."""
    store = Store()
    store.project(Folding(projection, registry, skipped=list(skipped)), log)
    return store.as_plain()


def partitions(projection: Projection, count: int, skipped: Iterable[tuple[str, int]] = ()) -> list[Folding]:
    """The foldings of all partitions."""
    return [Folding(projection, registry, Partition(each, count), skipped=list(skipped)) for each in range(count)]
