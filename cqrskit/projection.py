"""Projections: documents folded from events.

::

    class Balances(Projection):
        document = Balance

        @on(Account.Opened, creates=True)
        def opened(self, balance: None, event: Account.Opened, at: RecordedEvent) -> Balance:
            return Balance(owner=event.owner, amount=0)

        @on(Account.Credited)
        def credited(self, balance: Balance, event: Account.Credited, at: RecordedEvent) -> Balance:
            return msgspec.structs.replace(balance, amount=balance.amount + event.amount)

A fold is pure: the new document depends on the old one, the event and its place in the log, and on nothing
else, so that a rebuild gives the same documents.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

from cqrskit.errors import DefinitionError
from cqrskit.event_versions import stored_names_of
from cqrskit.events import RecordedEvent
from cqrskit.read_store import IndexSettings, IndexSpec

__all__ = ["Fold", "Projection", "folds_of", "on"]

F = TypeVar("F", bound=Callable[..., Any])
Key = Callable[[Any, RecordedEvent], str | None]

PARTITIONS_MAX = 256
NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


class Fold(msgspec.Struct, frozen=True):
    """One event type's part in a projection: which document it changes, and how.

    `creates`: the event always begins a new document, so none is loaded before it.
    """

    stored_name: str
    key: Key
    creates: bool
    apply: Callable[[Any, Any, RecordedEvent], Any]


def on(*event_classes: type[Any], key: Key | None = None, creates: bool = False) -> Callable[[F], F]:
    """Fold events of these classes with the decorated method ``(self, document, event, at) -> document``.

    `key(event, at)` names the document (a string), or returns None to pass the event over; by default the
    stream's id. `document` is None where there is none yet; returning None deletes it. With `creates` the event
    is known to begin a document: nothing is loaded, and `document` is None.
    """
    if not event_classes:
        raise DefinitionError("@on needs at least one event class, such as @on(Account.Credited)")

    def mark(function: F) -> F:
        vars(function).setdefault("folds_events", []).append((event_classes, key or _stream_id, creates))
        return function

    return mark


def _stream_id(_: object, at: RecordedEvent) -> str:
    return str(at.stream_id)


class Projection:
    """Subclass it with a `document` and one ``@on`` method per event type; see the module's example.

    `name` names its index and its checkpoint (lower case, digits, underscores; default: the class's name in
    snake case). Change it and you have another projection, built from the beginning. Raise `revision` when the folds
    do something else although their code has not changed. `partitions` is the number of shares, by key, that workers
    can move at the same time. `elasticsearch` says how its indices are kept there:
    ``elasticsearch = IndexSettings(shards=2)``.
    """

    name: ClassVar[str] = ""
    document: ClassVar[type[msgspec.Struct]]
    revision: ClassVar[int] = 1
    partitions: ClassVar[int] = 1
    elasticsearch: ClassVar[IndexSettings] = IndexSettings()

    def __init_subclass__(cls) -> None:
        """Check what can be checked without an application."""
        super().__init_subclass__()
        if not vars(cls).get("name"):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if not NAME_PATTERN.match(cls.name):
            raise DefinitionError(
                f"projection {cls.__name__} is named {cls.name!r}: use up to 40 lower-case letters, digits and "
                "underscores, a letter first"
            )
        document = getattr(cls, "document", None)
        if not (isinstance(document, type) and issubclass(document, msgspec.Struct)):
            raise DefinitionError(f"projection {cls.__name__} needs `document = YourStruct`, a msgspec Struct")
        if not isinstance(cls.elasticsearch, IndexSettings):
            raise DefinitionError(f"projection {cls.__name__}: `elasticsearch` must be an IndexSettings")
        if not 1 <= cls.partitions <= PARTITIONS_MAX:
            raise DefinitionError(f"projection {cls.__name__}: `partitions` must be 1 to {PARTITIONS_MAX}")
        if not folds_of(cls()):
            raise DefinitionError(f"projection {cls.__name__} folds nothing: add a method with @on(SomeEvent)")

    @classmethod
    def index(cls, generation: int) -> IndexSpec:
        """Where the documents of a generation are kept."""
        return IndexSpec(name=cls.name, generation=generation, document=cls.document, elasticsearch=cls.elasticsearch)


def folds_of(projection: Projection) -> dict[str, Fold]:
    """A projection's folds by the stored names of their events, old versions too.

    Two for one event raise DefinitionError.
    """
    folds: dict[str, Fold] = {}
    where = type(projection).__name__
    for attribute in dir(type(projection)):
        function = getattr(type(projection), attribute, None)
        for event_classes, key, creates in getattr(function, "folds_events", ()):
            method = getattr(projection, attribute)
            if len(inspect.signature(method).parameters) != 3:
                raise DefinitionError(f"{where}.{attribute} must take (self, document, event, at)")
            for event_class in event_classes:
                if not getattr(event_class, "stored_name", ""):
                    raise DefinitionError(f"{where}.{attribute}: {event_class!r} is not an event of an aggregate")
                for stored_name in stored_names_of(event_class):
                    if stored_name in folds:
                        raise DefinitionError(f"{where} folds {stored_name} twice; keep one of the methods")
                    folds[stored_name] = Fold(stored_name, key, creates, method)
    return folds
