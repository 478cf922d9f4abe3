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

An event may change several documents, of several aggregates: a key function may return several keys, and several
methods may fold one event. The method may ask for the key of the document that it is given::

        @on(Transfer.Posted, key=lambda event, at: [event.source, event.target])
        def posted(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent, key: str) -> Row: ...
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from cqrskit.errors import DefinitionError
from cqrskit.event_versions import stored_names_of
from cqrskit.events import RecordedEvent
from cqrskit.read_store import IndexSettings, IndexSpec

__all__ = ["Fold", "Projection", "folds_of", "on"]

F = TypeVar("F", bound=Callable[..., Any])
Key = Callable[[Any, RecordedEvent], str | Iterable[str] | None]

PARTITIONS_MAX = 256
NAME_PATTERN = re.compile(r"^[a-z][a-z0-9_]{0,39}$")


def _stream_id(_: object, at: RecordedEvent) -> str:
    return str(at.stream_id)


class Fold(msgspec.Struct, frozen=True):
    """One event type's part in a projection: which documents it changes, and how.

    `creates`: the event always begins a new document, so none is loaded before it. `method` is the name of the method
    that `apply` calls, `takes_key` whether that one wants to know the document's key.
    """

    stored_name: str
    key: Key
    creates: bool
    apply: Callable[..., Any]
    method: str
    event_class: type[Any]
    takes_key: bool = False

    @property
    def by_stream(self) -> bool:
        """Whether the document is that of the event's stream."""
        return self.key is _stream_id

    def for_key(self, key: str) -> Self:
        """The fold for the document of one key, which the method is told."""
        return msgspec.structs.replace(self, apply=partial(self.apply, key=key), takes_key=False)


class _Mark(msgspec.Struct, frozen=True):
    """What one ``@on`` says."""

    event_classes: tuple[type[Any], ...]
    key: Key
    creates: bool

    @property
    def chooses_document(self) -> bool:
        """Whether it says more than which events, which only a projection understands."""
        return self.creates or self.key is not _stream_id


def on(*event_classes: type[Any], key: Key | None = None, creates: bool = False) -> Callable[[F], F]:
    """Fold events of these classes with the decorated method ``(self, document, event, at) -> document``.

    `key(event, at)` names the document (a string) or several documents (an iterable of strings; each counts once), or
    returns None to pass the event over; by default the stream's id. A method that changes several documents may take a
    fourth parameter, ``key``: that of the document which it is given. `document` is None where there is none yet;
    returning None deletes it, and a later event may make it anew. With `creates` the event is known to begin a
    document: nothing is loaded, and `document` is None.

    Several methods may fold one event: into documents of their own, or one after another, in the order in which the
    class defines them, into the same one; of an event that one of them fails on, nothing stays.
    """
    if not event_classes:
        raise DefinitionError("@on needs at least one event class, such as @on(Account.Credited)")

    def mark(function: F) -> F:
        vars(function).setdefault("folds_events", []).insert(0, _Mark(event_classes, key or _stream_id, creates))
        return function

    return mark


class Projection:
    """Subclass it with a `document` and one ``@on`` method per event type; see the module's example.

    `name` names its index and its checkpoint (lower case, digits, underscores; default: the class's name in
    snake case). Change it and you have another projection, built from the beginning. Raise `revision` when the same
    folds come to give other documents for a reason that `cqrskit.fingerprint` cannot see, such as another upcaster or
    a new version of a library. `partitions` is the number of shares, by key, that workers can move at the same time.
    `elasticsearch` says how its indices are kept there: ``elasticsearch = IndexSettings(shards=2)``.
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


def folds_of(projection: Projection) -> dict[str, tuple[Fold, ...]]:
    """A projection's folds by the stored names of their events, old versions too; several of one event in their order.

    DefinitionError for what cannot work.
    """
    folds: dict[str, list[Fold]] = {}
    for attribute, function in _methods(type(projection)):
        where = f"{type(projection).__name__}.{attribute}"
        for mark in vars(function).get("folds_events", ()):
            takes_key = _check_method(where, function)
            _check_key(where, mark.key)
            for event_class in mark.event_classes:
                if not getattr(event_class, "stored_name", ""):
                    raise DefinitionError(f"{where}: {event_class!r} is not an event of an aggregate")
                for stored_name in stored_names_of(event_class):
                    method = getattr(projection, attribute)
                    fold = Fold(stored_name, mark.key, mark.creates, method, attribute, event_class, takes_key)
                    others = folds.setdefault(stored_name, [])
                    _check_beside(where, fold, others)
                    others.append(fold)
    return {stored_name: tuple(of_type) for stored_name, of_type in folds.items()}


def _methods(projection: type[Projection]) -> Iterator[tuple[str, Any]]:
    """The functions of a projection class in the order of their definition, those of its bases first."""
    names = dict.fromkeys(name for each in reversed(projection.__mro__) for name in vars(each))
    for name in names:
        function = inspect.getattr_static(projection, name)
        if not inspect.isfunction(function):
            if hasattr(getattr(function, "__func__", function), "folds_events"):
                raise DefinitionError(f"{projection.__name__}.{name} must be a plain method to fold events")
            continue
        marked = any("folds_events" in getattr(vars(each).get(name), "__dict__", {}) for each in projection.__mro__)
        if marked and "folds_events" not in vars(function):
            raise DefinitionError(
                f"{projection.__name__}.{name} replaces a method that folds events, but has no @on of its own: add it, "
                f"or write `{name} = None` to fold those events no more"
            )
        yield name, function


def _check_method(where: str, function: Callable[..., Any]) -> bool:
    """Whether a fold wants to know the key; DefinitionError unless it can be called with what folds are given."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(f"{where} must be a plain function: a fold is pure, it waits for nothing")
    names = list(inspect.signature(function).parameters)
    if len(names) == 4:
        return False
    if len(names) == 5 and names[4] == "key":
        return True
    raise DefinitionError(f"{where} must take (self, document, event, at), and may take `key` after them")


def _check_key(where: str, key: Key) -> None:
    if inspect.iscoroutinefunction(key):
        raise DefinitionError(f"{where}: its key function must be a plain function, it waits for nothing")
    try:
        inspect.signature(key).bind(None, None)
    except ValueError:
        return
    except TypeError:
        raise DefinitionError(f"{where}: `key` must be a function that takes (event, at), not {key!r}") from None


def _check_beside(where: str, fold: Fold, others: list[Fold]) -> None:
    """Two folds of one event by the same key function change the same document, one after the other."""
    for other in others:
        if other.key is not fold.key:
            continue
        if other.method == fold.method:
            raise DefinitionError(f"{where} folds {fold.stored_name} twice into one document: name the event once")
        if fold.creates:
            raise DefinitionError(
                f"{where} begins a document with {fold.stored_name} (creates=True), which {other.method} has folded "
                "into it before: define it first, or leave `creates` out"
            )
