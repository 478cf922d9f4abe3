"""Events as they are stored: names, bytes, metadata, and the way back.

A stored event is named by a stable name such as ``Account.Credited`` (``Account.Credited@2`` for its second
schema), never by a Python path, so that code can move. Its data is UTF-8 JSON made by msgspec. An event of an old
version goes through its upcasters (`cqrskit.event_versions`) when it is read.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, ClassVar, Protocol
from uuid import UUID

import msgspec

from cqrskit.errors import DefinitionError, EventDecodeError, UnknownEventType
from cqrskit.event_versions import Upcaster, base_of, chains_of, stored_names_of

__all__ = ["EventClass", "EventRegistry", "Metadata", "NewEvent", "RecordedEvent", "RetiredEvent"]

_text_of: Callable[[UUID], str] = msgspec.to_builtins
"""A UUID as text, in a third of the time that `str` takes."""


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about an event beside its content: who caused it, by which command, in which conversation."""

    command: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    actor: str | None = None
    trace_parent: str | None = None


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """One row of the log. `data` and `metadata` are UTF-8 JSON; `position` counts 1, 2, 3 … without a gap."""

    position: int
    stream_id: UUID
    stream_version: int
    type: str
    data: bytes
    metadata: bytes
    recorded_at: datetime

    @property
    def stream_key(self) -> str:
        """The stream's id as text: the key of documents by stream, and a part of other keys."""
        return _text_of(self.stream_id)


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that was decided and waits to be appended; it has no position yet."""

    stream_id: UUID
    stream_version: int
    type: str
    data: bytes
    metadata: bytes
    recorded_at: datetime


class EventClass(Protocol):
    """What the registry needs of an event class; `cqrskit.aggregate.Event` has it."""

    stored_name: ClassVar[str]
    stored_version: ClassVar[int]


class RetiredEvent:
    """Stands for a recorded event whose class is gone: it moves the aggregate's version on and changes nothing else."""

    def __init__(self, recorded: RecordedEvent) -> None:
        self.stored_name = recorded.type
        self.originator_id = recorded.stream_id
        self.originator_version = recorded.stream_version
        self.timestamp = recorded.recorded_at

    def mutate(self, aggregate: Any) -> Any:
        """Count the event; EventDecodeError if it begins the stream, for there is nothing to build an aggregate of."""
        if aggregate is None:
            raise EventDecodeError(
                self.stored_name,
                self.originator_id,
                self.originator_version,
                "is retired, so no aggregate can be built from this stream: keep the class of an event that begins one",
            )
        aggregate.version = self.originator_version
        aggregate.modified_on = self.timestamp
        return aggregate


class EventRegistry:
    """Maps stored names to event classes and back, for the events of one application, in all their versions."""

    def __init__(
        self, event_classes: Iterable[type[Any]], *, upcasters: Iterable[Upcaster] = (), retired: Iterable[str] = ()
    ) -> None:
        """Register `event_classes`, the `upcasters` of their old versions and the names of `retired` events.

        DefinitionError: two classes of one stored name, a chain of upcasters that is not complete, a retired event
        that is declared.
        """
        self._classes: dict[str, type[Any]] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._encode = msgspec.json.Encoder().encode
        bases: dict[str, type[Any]] = {}
        for event_class in event_classes:
            base = base_of(event_class.stored_name)
            other = bases.setdefault(base, event_class)
            if other is not event_class:
                raise DefinitionError(
                    f"two event classes are stored as {base!r}: {_where(other)} and {_where(event_class)}; "
                    "rename one, or set its `stored_name`"
                )
            self._decoders[event_class.stored_name] = msgspec.json.Decoder(event_class)
            self._classes.update(dict.fromkeys(stored_names_of(event_class), event_class))
        self._bases = bases
        self._chains = chains_of(bases.values(), upcasters)
        self._retired = frozenset(retired)
        for name in sorted(self._retired):
            if base_of(name) != name:
                raise DefinitionError(f"retired={name!r} names a version: all go together, write {base_of(name)!r}")
            if name in bases:
                raise DefinitionError(f"{name!r} is retired, but {_where(bases[name])} declares it: leave one out")

    def __contains__(self, stored_name: str) -> bool:
        return stored_name in self._classes or self.is_retired(stored_name)

    @property
    def stored_names(self) -> list[str]:
        """All stored names that can be read, sorted: every version of the declared events, and the retired ones."""
        return sorted({*self._classes, *self._retired})

    @property
    def event_classes(self) -> list[type[Any]]:
        """The declared event classes, in the order of their stored names."""
        return [self._bases[base] for base in sorted(self._bases)]

    def is_retired(self, stored_name: str) -> bool:
        """Whether this is a version of an event whose class is gone, and which is skipped."""
        return base_of(stored_name) in self._retired

    def class_of(self, stored_name: str) -> type[Any]:
        """The class that events stored under a name become, whatever their version; else UnknownEventType."""
        try:
            return self._classes[stored_name]
        except KeyError:
            raise self._unknown(stored_name) from None

    def encode(self, event: object) -> bytes:
        """The event's own fields as UTF-8 JSON (its place in the stream is kept in columns)."""
        return self._encode(event)

    def decode(self, recorded: RecordedEvent) -> Any:
        """The event object of the current class, with its place in the stream and its time set.

        A retired event comes back as a RetiredEvent. Raises UnknownEventType or EventDecodeError.
        """
        decoder = self._decoders.get(recorded.type)
        data = recorded.data
        if decoder is None:
            if self.is_retired(recorded.type):
                return RetiredEvent(recorded)
            decoder = self._decoders[self.class_of(recorded.type).stored_name]
            data = self._upcast_bytes(recorded)
        try:
            event = decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise _refuse(recorded, self._misfit(recorded.type, error)) from error
        envelope = event.__dict__
        envelope["originator_id"] = recorded.stream_id
        envelope["originator_version"] = recorded.stream_version
        envelope["timestamp"] = recorded.recorded_at
        return event

    def upcast(self, recorded: RecordedEvent) -> dict[str, Any]:
        """The stored JSON object as the upcasters make it, before it becomes an event.

        Raises UnknownEventType or EventDecodeError, which names the upcaster that failed.
        """
        self.class_of(recorded.type)
        try:
            data = msgspec.json.decode(recorded.data)
        except msgspec.MsgspecError as error:
            raise _refuse(recorded, f"is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise _refuse(recorded, f"is no JSON object but a {type(data).__name__}")
        for step in self._chains.get(recorded.type, ()):
            try:
                data = step.function(data)
            except Exception as error:
                reason = f"upcaster {step.name} failed: {type(error).__name__}: {error}"
                raise _refuse(recorded, reason) from error
            if not isinstance(data, dict):
                raise _refuse(recorded, f"upcaster {step.name} returned no dict but {type(data).__name__}")
        return data

    def _upcast_bytes(self, recorded: RecordedEvent) -> bytes:
        data = self.upcast(recorded)
        try:
            return self._encode(data)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            reason = f"{self._steps(recorded.type)} made what JSON cannot hold: {error}"
            raise _refuse(recorded, reason) from error

    def _misfit(self, stored_name: str, error: Exception) -> str:
        if stored_name not in self._chains:
            return f"does not fit that class ({error}): a changed event needs a new version and an upcaster"
        current = self._classes[stored_name]
        return f"{self._steps(stored_name)} made what does not fit {current.stored_name}: {error}"

    def _steps(self, stored_name: str) -> str:
        return f"upcaster {' and '.join(step.name for step in self._chains[stored_name])}"

    def _unknown(self, stored_name: str) -> UnknownEventType:
        known = self._bases.get(base_of(stored_name))
        return UnknownEventType(stored_name, None if known is None else known.stored_version)


def _refuse(recorded: RecordedEvent, reason: str) -> EventDecodeError:
    return EventDecodeError(recorded.type, recorded.stream_id, recorded.stream_version, reason)


def _where(event_class: type[Any]) -> str:
    return f"{event_class.__module__}.{event_class.__qualname__}"
