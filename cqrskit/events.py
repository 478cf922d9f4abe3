"""Events as they are stored: names, bytes, metadata, and the way back.

A stored event is named by a stable name such as ``Account.Credited`` (``Account.Credited@2`` for its second
schema), never by a Python path, so that code can move. Its data is UTF-8 JSON made by msgspec.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar, Protocol
from uuid import UUID

import msgspec

from cqrskit.errors import DefinitionError, EventDecodeError, UnknownEventType

__all__ = ["EventClass", "EventRegistry", "Metadata", "NewEvent", "RecordedEvent"]


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


class EventRegistry:
    """Maps stored names to event classes and back, for the events of one application."""

    def __init__(self, event_classes: Iterable[type[Any]]) -> None:
        """Register `event_classes`; two of one stored name raise DefinitionError."""
        self._classes: dict[str, type[Any]] = {}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._encode = msgspec.json.Encoder().encode
        for event_class in event_classes:
            name = event_class.stored_name
            other = self._classes.get(name)
            if other is not None and other is not event_class:
                raise DefinitionError(
                    f"two event classes are stored as {name!r}: {_where(other)} and {_where(event_class)}; "
                    "rename one, or set its `stored_name`"
                )
            self._classes[name] = event_class
            self._decoders[name] = msgspec.json.Decoder(event_class)

    def __contains__(self, stored_name: str) -> bool:
        return stored_name in self._classes

    @property
    def stored_names(self) -> list[str]:
        """All stored names, sorted."""
        return sorted(self._classes)

    def class_of(self, stored_name: str) -> type[Any]:
        """The event class stored under a name; UnknownEventType if there is none."""
        try:
            return self._classes[stored_name]
        except KeyError:
            raise UnknownEventType(stored_name) from None

    def encode(self, event: object) -> bytes:
        """The event's own fields as UTF-8 JSON (its place in the stream is kept in columns)."""
        return self._encode(event)

    def decode(self, recorded: RecordedEvent) -> Any:
        """The event object, with its place in the stream and its time set.

        Raises UnknownEventType or EventDecodeError.
        """
        decoder = self._decoders.get(recorded.type)
        if decoder is None:
            raise UnknownEventType(recorded.type)
        try:
            event = decoder.decode(recorded.data)
        except msgspec.MsgspecError as error:
            raise EventDecodeError(recorded.type, recorded.stream_id, recorded.stream_version, str(error)) from error
        envelope = event.__dict__
        envelope["originator_id"] = recorded.stream_id
        envelope["originator_version"] = recorded.stream_version
        envelope["timestamp"] = recorded.recorded_at
        return event


def _where(event_class: type[Any]) -> str:
    return f"{event_class.__module__}.{event_class.__qualname__}"
