"""Explaining a document: the events behind it, what they make of it one after another, and what the store has."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from cqrskit.document_difference import FieldDifference, field_differences
from cqrskit.event_store import EventStore
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.folding import Failure, Folded, Folding, Item
from cqrskit.projection import Projection
from cqrskit.read_store import IndexSpec, ReadStore, Stored

__all__ = ["ExplainedEvent", "Explainer", "Explanation"]

BLOCK_SIZE = 5_000
EVENTS_MAX = 1_000


class ExplainedEvent(msgspec.Struct, frozen=True):
    """One event behind a document. `data` is its stored JSON, as plain values; None if that cannot be read.

    `document` is the document after it, `failure` why the fold could not take it. `waits`: it comes after the one that
    failed, so it is not in the document.
    """

    position: int
    type: str
    recorded_at: datetime
    stream_id: UUID
    stream_version: int
    data: Any
    document: Any = None
    failure: str | None = None
    waits: bool = False


class Explanation(msgspec.Struct, frozen=True):
    """A document as the log has it, with `version`, and as it is `stored`; both None where there is none.

    `until` is the last position that was looked at. `events` are the last ones behind the document, `events_count` how
    many there are. `differences` and `equal` compare with the stored document; they are empty and None for the past.
    """

    projection: str
    id: str
    until: int
    version: int
    document: Any
    events: list[ExplainedEvent]
    events_count: int
    stored: Stored | None
    equal: bool | None
    differences: tuple[FieldDifference, ...]


class Explainer:
    """Explains documents of one projection."""

    def __init__(
        self,
        projection: Projection,
        index: IndexSpec,
        *,
        event_store: EventStore,
        read_store: ReadStore,
        registry: EventRegistry,
        skipped: Collection[tuple[str, int]] = (),
        block_size: int = BLOCK_SIZE,
        events_max: int = EVENTS_MAX,
        on_progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        """`skipped` is as for `Folding`. At most `events_max` events are told, the last ones.

        A projection that is keyed by stream reads that stream; any other reads the whole log, and tells `on_progress`
        the position and the end.
        """
        self._projection = projection
        self._index = index
        self._event_store = event_store
        self._read_store = read_store
        self._registry = registry
        self._skipped = skipped
        self._block_size = block_size
        self._events_max = events_max
        self._on_progress = on_progress

    async def explain(self, document_id: str, *, as_of: int | datetime | None = None) -> Explanation:
        """The document of this id now, or as it was after a position or at a moment.

        As it was at a moment: up to the first of its events that was recorded later. Raises ServerUnavailable,
        ReadStoreError or UnknownEventType.
        """
        folding = Folding(
            self._projection, self._registry, skipped=self._skipped, wanted=lambda key: key == document_id
        )
        stored = (await self._read_store.load(self._index, [document_id])).get(document_id)
        head = await self._event_store.head()
        until = min(as_of, head) if isinstance(as_of, int) else head
        moment = as_of if isinstance(as_of, datetime) else None
        folded = _Folding(folding, document_id, moment, self._events_max)
        async for events in self._events(folding, document_id, until):
            folded.take(events)
            if folded.ended:
                break
        document, version = folded.folded.document, folded.folded.version
        kept = None if stored is None else stored.document
        present = as_of is None
        return Explanation(
            projection=self._projection.name,
            id=document_id,
            until=until,
            version=version,
            document=document,
            events=list(folded.told),
            events_count=folded.count,
            stored=stored,
            equal=document == kept and (stored is None or stored.version == version) if present else None,
            differences=field_differences(document, kept) if present else (),
        )

    async def _events(self, folding: Folding, document_id: str, until: int) -> AsyncIterator[list[RecordedEvent]]:
        """The events that may concern the document, up to a position, in their order."""
        if folding.by_stream:
            try:
                stream_id = UUID(document_id)
            except ValueError:
                return
            events = await self._event_store.load_streams([stream_id])
            yield [each for each in events if each.position <= until]
            return
        position = 0
        while position < until:
            block = await self._event_store.read(position, min(self._block_size, until - position), folding.types)
            yield block.events
            position = block.until
            self._on_progress(position, until)


class _Folding:
    """One document in the making, and what is told of its events."""

    def __init__(self, folding: Folding, key: str, moment: datetime | None, events_max: int) -> None:
        self.folded = Folded(0, None)
        self.told: deque[ExplainedEvent] = deque(maxlen=events_max)
        self.count = 0
        self.ended = False
        self._folding = folding
        self._key = key
        self._moment = moment
        self._failure: Failure | None = None

    def take(self, events: list[RecordedEvent]) -> None:
        """Fold the events that are the document's."""
        for recorded in events:
            grouped = self._folding.group([recorded])
            items = grouped.groups.get(self._key, [])
            failure = grouped.failures.get(self._key)
            if not items and failure is None:
                continue
            if self._moment is not None and recorded.recorded_at > self._moment:
                self.ended = True
                return
            self._tell(recorded, items, failure)

    def _tell(self, recorded: RecordedEvent, items: list[Item], failure: Failure | None) -> None:
        waits = self._failure is not None
        if not waits:
            self._failure = failure = failure or self._folding.fold(self.folded, items)
        self.count += 1
        self.told.append(
            ExplainedEvent(
                position=recorded.position,
                type=recorded.type,
                recorded_at=recorded.recorded_at,
                stream_id=recorded.stream_id,
                stream_version=recorded.stream_version,
                data=_plain(recorded.data),
                document=self.folded.document,
                failure=None if waits or failure is None else failure.reason,
                waits=waits,
            )
        )


def _plain(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return None
