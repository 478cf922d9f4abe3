"""Aggregates and their events: eventsourcing's BaseAggregate with msgspec Struct events.

An event class holds only its own fields. Its place in the stream (`originator_id`, `originator_version`,
`timestamp`) is set beside them, so that events compare by content and the stored JSON repeats nothing::

    class Account(Aggregate):
        class Opened(Aggregate.Created):
            owner: str

        class Credited(Aggregate.Event):
            amount: int

        @event(Opened)
        def __init__(self, owner: str) -> None:
            self.owner = owner
            self.balance = 0

        @event(Credited)
        def credit(self, amount: int) -> None:
            self.balance += amount

The body of an ``@event`` method applies the event: it must neither refuse nor do I/O, since it runs again
whenever the aggregate is loaded. Decide in an ordinary method, which then calls it.
"""

import inspect
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, dataclass_transform
from uuid import UUID

import msgspec
from eventsourcing.domain import (
    BaseAggregate,
    CanInitAggregate,
    CanMutateAggregate,
    MetaAggregate,
    event,
)

from cqrskit.errors import CqrskitError, DefinitionError
from cqrskit.event_versions import name_of_version
from cqrskit.identifiers import new_id

__all__ = [
    "Aggregate",
    "Event",
    "EventMeta",
    "FrozenStructMeta",
    "PendingEvents",
    "ProbeStopped",
    "decision_time",
    "event",
    "event_classes",
    "make_aggregate",
]

P = ParamSpec("P")
A = TypeVar("A", bound="Aggregate")

decision_time: ContextVar[datetime | None] = ContextVar("decision_time", default=None)
"""The time that events triggered now carry; the executor sets it, so that a decision can be repeated."""


class FrozenStructMeta(msgspec.StructMeta):
    """Makes Structs frozen and keyword-only without saying so in each, and refuses attributes that are not stored."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> "FrozenStructMeta":
        """Create the class; an attribute without an annotation raises DefinitionError."""
        annotations = namespace.get("__annotations__", {})
        for attribute, value in namespace.items():
            if attribute.startswith("_") or attribute in annotations or attribute == "stored_name":
                continue
            if not callable(value) and not hasattr(value, "__get__"):
                raise DefinitionError(
                    f"{namespace.get('__qualname__', name)}.{attribute} has no annotation, so it would not be "
                    f"stored: write `{attribute}: {type(value).__name__} = {value!r}`, or annotate a constant "
                    "with ClassVar"
                )
        options.setdefault("frozen", True)
        options.setdefault("kw_only", True)
        return super().__new__(mcls, name, bases, namespace, **options)


class EventMeta(FrozenStructMeta):
    """Takes the version of an event's schema as a class argument: ``class Credited(Aggregate.Event, version=2)``."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        version: int | None = None,
        **options: Any,
    ) -> "EventMeta":
        """Create the class; a version that is no whole number from 1 on raises DefinitionError."""
        where = namespace.get("__qualname__", name)
        if version is not None and (type(version) is not int or version < 1):
            raise DefinitionError(f"{where} has version={version!r}: versions of an event count 1, 2, 3 …")
        if options.get("array_like"):
            raise DefinitionError(f"{where} is array_like, but an event is stored as a JSON object: leave that out")
        if "stored_version" in namespace and namespace.get("__module__") != __name__:
            raise DefinitionError(f"{where} sets stored_version: write `class {name}(..., version=2)` instead")
        made: Any = super().__new__(mcls, name, bases, namespace, **options)
        if version is not None:
            made.stored_version = version
        return made  # type: ignore[no-any-return]


_given_id: ContextVar[UUID | None] = ContextVar("_given_id", default=None)


class PendingEvents(list[tuple["Aggregate", "Event"]]):
    """Events triggered by one handler and not yet collected, in the order in which they were triggered.

    Every aggregate that a repository hands out shares the repository's one list. While `probing` is set, a
    handler only shows which aggregates it wants: it is stopped before it would change one.
    """

    probing: bool = False


class ProbeStopped(BaseException):
    """Ends a probing run of a handler. A BaseException, so that user code cannot swallow it."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, CanMutateAggregate[UUID], metaclass=EventMeta, frozen=True):
    """Base of all events. Subclass `Aggregate.Event` or `Aggregate.Created` inside your aggregate."""

    stored_name: ClassVar[str] = ""
    """The stable name in the log: ``Aggregate.Event`` unless the class sets another one; ``@2`` and so on is added."""
    stored_version: ClassVar[int] = 1
    """The version of the fields, set with ``class Credited(Aggregate.Event, version=2)``; see `cqrskit.upcasts`."""
    aggregate_class: ClassVar[type["Aggregate"]]

    def mutate(self, aggregate: Any) -> Any:
        """Apply this event to its aggregate, which must be of the version before it."""
        place, state = self.__dict__, aggregate.__dict__
        version = place["originator_version"]
        if state["_version"] != version - 1 or (
            state["_id"] is not place["originator_id"] and state["_id"] != place["originator_id"]
        ):
            raise CqrskitError(
                f"{type(self).__qualname__} {version} of {place['originator_id']} does not follow version "
                f"{state['_version']} of {state['_id']}"
            )
        self.apply(aggregate)
        state["_version"] = version
        state["_modified_on"] = place["timestamp"]
        return aggregate

    def _as_dict(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self), **self.__dict__}


class Created(Event, CanInitAggregate[UUID]):
    """Base of the events that begin a stream."""

    def mutate(self, aggregate: Any) -> Any:
        """Make the aggregate that this event begins; `aggregate` must be None."""
        if aggregate is not None:
            raise CqrskitError(f"{type(self).__name__} begins a stream, but the aggregate exists already")
        new = self.aggregate_class.__new__(self.aggregate_class)
        place = self.__dict__
        new.__base_init__(place["originator_id"], place["originator_version"], place["timestamp"])
        initialise = type(new).__init__
        initialise(new, **{name: self._value_of(name) for name in _parameters_of(type(self), initialise)})
        self.apply(new)
        return new

    def _value_of(self, name: str) -> Any:
        """What ``__init__`` gets for a parameter: a field of the event, or its place in the stream."""
        if name in self.__struct_fields__:
            return getattr(self, name)
        return self.__dict__["originator_id" if name == "id" else name]


class _Namespace(dict[str, Any]):
    """A class body in which no event can be defined twice; the second would silently replace the first."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and isinstance(value, type) and issubclass(value, Event):
            raise DefinitionError(f"{self.get('__qualname__')} defines two events named {name!r}: rename one of them")
        super().__setitem__(name, value)


class _AggregateMeta(MetaAggregate["Aggregate"]):
    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **options: Any) -> MutableMapping[str, object]:
        return _Namespace()

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> "_AggregateMeta":
        return super().__new__(mcls, name, bases, dict(namespace), **options)

    def __call__(cls, *values: Any, **named: Any) -> Any:
        """Make a new aggregate: at once if exactly the fields of its one first event are named, as they mostly are."""
        first_event = cls.__dict__.get("_first_event")
        if first_event is not None and named.keys() == first_event[1] and not values:
            return cls._create(first_event[0], **named)
        return super().__call__(*values, **named)


class Aggregate(BaseAggregate[UUID], metaclass=_AggregateMeta):
    """A consistency boundary: state that only its own events change. See the module's example.

    `Account(owner=...)` triggers the event that ``__init__`` is decorated with, under a random id. A handler makes
    aggregates with `Repository.create`, which takes the id and the events into the log.
    """

    _first_event: ClassVar[tuple[type[Created], set[str]] | None] = None
    snapshot_version: ClassVar[int] = 1
    """Raise it when the folding of events changed but the annotated attributes did not: old snapshots are ignored."""

    class Event(Event):
        """Base of this aggregate's events."""

    class Created(Created):
        """Base of the events that begin a stream of this aggregate."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Name the events of the new aggregate class and check their annotations."""
        super().__init_subclass__(**options)
        for event_class in event_classes(cls):
            _check_annotations(cls, event_class)
            base = _explicit_stored_name(event_class) or f"{cls.__name__}.{event_class.__name__}"
            event_class.stored_name = name_of_version(base, event_class.stored_version)
            event_class.aggregate_class = cls
        first_events = [each for each in event_classes(cls) if issubclass(each, Created)]
        cls._first_event = (first_events[0], set(first_events[0].__struct_fields__)) if len(first_events) == 1 else None

    @staticmethod
    def create_id(*_: Any, **__: Any) -> UUID:
        """An id for an aggregate that was created without one."""
        return new_id()

    @classmethod
    def _create(cls, event_class: Any, **values: Any) -> Self:
        stream_id = _given_id.get()
        if stream_id is None and decision_time.get() is not None:
            raise DefinitionError(
                f"{cls.__name__}(...) in a handler would not reach the log: write repository.create({cls.__name__}, "
                "its_id, ...)"
            )
        created = _construct(event_class, values)
        _place(created, stream_id or cls.create_id(), cls.INITIAL_VERSION)
        aggregate = created.mutate(None)
        aggregate._pending_events.append((aggregate, created))
        return aggregate  # type: ignore[no-any-return]

    def trigger_event(self, event_class: Any, **values: Any) -> None:
        """Make the event, apply it to this aggregate and keep it until the handler has returned."""
        pending: Any = self._pending_events
        if type(pending) is PendingEvents and pending.probing:
            raise ProbeStopped
        triggered = _construct(event_class, values)
        _place(triggered, self._id, self._version + 1)
        pending.append((self, triggered))
        triggered.mutate(self)

    def collect_events(self) -> list[Any]:
        """Return and forget the pending events of this aggregate (for use without an executor)."""
        pending: Any = self._pending_events
        collected = [triggered for _, triggered in pending]
        pending.clear()
        return collected


@cache
def _parameters_of(event_class: type[Event], initialise: Callable[..., Any]) -> tuple[str, ...]:
    """Those parameters of ``__init__`` that an event has a value for; the others keep their defaults."""
    known = {*event_class.__struct_fields__, "id", "originator_id", "originator_version", "timestamp"}
    return tuple(name for name in inspect.signature(initialise).parameters if name in known)


def make_aggregate(aggregate_class: Callable[P, A], aggregate_id: UUID, /, *values: P.args, **named: P.kwargs) -> A:
    """A new aggregate with this id; the other arguments are those of its class."""
    token = _given_id.set(aggregate_id)
    try:
        return aggregate_class(*values, **named)
    finally:
        _given_id.reset(token)


def event_classes(aggregate_class: type[Aggregate]) -> Iterator[type[Event]]:
    """The event classes that an aggregate class defines or inherits, without the bases `Event` and `Created`."""
    for name, value in list(vars(aggregate_class).items()):
        if not isinstance(value, type) or not issubclass(value, Event) or name == "Event":
            continue
        if name == "Created" and not value.__struct_fields__ and "__init__" in vars(aggregate_class):
            continue
        yield value


def _construct(event_class: Any, values: dict[str, Any]) -> Any:
    try:
        return event_class(**values)
    except TypeError as error:
        raise TypeError(f"cannot make event {event_class.__qualname__}: {error}") from error


def _place(new: Event, stream_id: UUID, stream_version: int) -> None:
    place = new.__dict__
    place["originator_id"] = stream_id
    place["originator_version"] = stream_version
    place["timestamp"] = decision_time.get() or datetime.now(UTC)


def _explicit_stored_name(event_class: type[Event]) -> str | None:
    for parent in event_class.__mro__:
        if parent.__name__ != event_class.__name__:
            continue
        name = vars(parent).get("stored_name")
        if name and not vars(parent).get("aggregate_class"):
            if "@" in name:
                raise DefinitionError(
                    f"{event_class.__qualname__} has stored_name = {name!r}: the @ separates the version, which is "
                    f"said by `class {event_class.__name__}(..., version=2)`"
                )
            return str(name)
    return None


def _check_annotations(aggregate_class: type[Aggregate], event_class: type[Event]) -> None:
    for parent in event_class.__mro__:
        for field, annotation in vars(parent).get("__annotations__", {}).items():
            if annotation in (Any, "Any", "typing.Any", object) or getattr(annotation, "__name__", "") == "_empty":
                raise DefinitionError(
                    f"{aggregate_class.__name__}.{event_class.__name__}.{field} has no usable annotation: "
                    "an event's fields are stored and need types, such as `amount: int`"
                )
