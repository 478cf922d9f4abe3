"""Commands, and which handler decides each of them."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, get_type_hints
from uuid import UUID

import msgspec

from cqrskit.aggregate import FrozenStructMeta
from cqrskit.errors import DefinitionError, UnknownCommand

__all__ = ["Command", "Handler", "HandlerRegistry", "handles", "uuids_of"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, metaclass=FrozenStructMeta, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A wish to change something. Subclass it with annotated fields; it is frozen and compares by content.

    The UUID fields of a command are taken for ids of aggregates that its handler will want, and loaded
    beforehand for the whole batch. Its JSON leaves out fields that have their default, so that a field added
    later, with a default, does not make old commands differ from new ones.
    """

    def idempotency_key(self) -> str | None:
        """Under which key this command takes effect once and has one reply for ever; None: it may repeat.

        Override it where the content says so, as ``f"transfer:{self.transfer_id}"``. Callers may give another key
        to `Executor.execute`; then both count.
        """
        return None

    def new_ids(self) -> Iterable[UUID]:
        """Ids of aggregates that this command is to make, as a rule for the first time.

        Override it, as ``return (self.transfer_id,)``, and these are taken for free without a look at the log. Whatever
        you name, every answer is the same: the append finds out if one is taken, and the command is decided again.
        """
        return ()

    def contained_commands(self) -> Sequence["Command"]:
        """Commands that this one is made of and that may be given alone too, as the transfers of a batch.

        Override it, as ``return self.transfers``, and let the handler have each decided by `Repository.decide`. All of
        them take effect or none does, and what became of each is remembered under its own idempotency key, as if it
        had been given alone.
        """
        return ()


Handler = Callable[[Any, Any], Any]
"""``handler(command, repository) -> reply``: synchronous, without I/O or clock, since it may run again."""

F = TypeVar("F", bound=Callable[..., Any])


def handles(command_class: type[Command], *, sees_key_conflicts: bool = False) -> Callable[[F], F]:
    """Mark a function as the handler of `command_class`; pass it to ``Application(handlers=[...])``.

    A command whose idempotency key belongs to another content is refused with IdempotencyConflict before its handler
    runs. With `sees_key_conflicts` the handler runs all the same, finds the differing field's name in
    `Repository.conflicting_field`, and may refuse for a reason that it puts first; whatever else it does is undone.
    """

    def mark(function: F) -> F:
        vars(function)["handled_command"] = command_class
        vars(function)["sees_key_conflicts"] = sees_key_conflicts
        return function

    return mark


class HandlerRegistry:
    """Finds the one handler of a command."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        """Register `handlers`; an unmarked or asynchronous function, or two for one command, raise DefinitionError."""
        self._handlers: dict[type[Command], Handler] = {}
        self._reply_types: dict[type[Command], Any] = {}
        for handler in handlers:
            name = getattr(handler, "__qualname__", repr(handler))
            command_class = getattr(handler, "handled_command", None)
            if command_class is None:
                raise DefinitionError(f"{name} does not say which command it handles: add @handles(TheCommand)")
            if inspect.iscoroutinefunction(handler):
                raise DefinitionError(
                    f"{name} is a coroutine function: a handler is a plain function, since it may run again"
                )
            if command_class in self._handlers:
                other = self._handlers[command_class]
                raise DefinitionError(
                    f"{command_class.__name__} has two handlers, {getattr(other, '__qualname__', other)} and "
                    f"{name}: keep one"
                )
            self._handlers[command_class] = handler
            self._reply_types[command_class] = _reply_type(handler, name)

    @property
    def command_classes(self) -> list[type[Command]]:
        """The commands that can be handled, in the order of registration."""
        return list(self._handlers)

    def handler_of(self, command: Command) -> Handler:
        """The handler of a command; UnknownCommand if there is none."""
        try:
            return self._handlers[type(command)]
        except KeyError:
            raise UnknownCommand(type(command).__name__) from None

    def reply_type_of(self, command_class: type[Command]) -> Any:
        """What the handler of a command says that it returns; Any if it does not say."""
        return self._reply_types[command_class]


def _reply_type(handler: Handler, name: str) -> Any:
    """The annotated reply, which must be something that can be remembered as JSON under an idempotency key."""
    try:
        reply_type = get_type_hints(handler).get("return", Any)
        reply_type = Any if reply_type is object else reply_type
        msgspec.json.schema(reply_type)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            f"{name} must say what it returns in a type that JSON can hold, since replies are remembered under "
            f"idempotency keys: {error}"
        ) from error
    return reply_type


_readers: dict[type[Any], Callable[[Any, set[UUID]], None]] = {}


def uuids_of(command: msgspec.Struct, found: set[UUID]) -> None:
    """Add every UUID inside a command (in nested Structs, lists and tuples too) to `found`."""
    read = _readers.get(type(command))
    if read is None:
        read = _readers[type(command)] = _reader_of(type(command))
    read(command, found)


def _reader_of(struct_class: type[msgspec.Struct]) -> Callable[[Any, set[UUID]], None]:
    """A function that looks only into the fields that may hold ids; plain ids, the usual case, are read at once."""
    hints = get_type_hints(struct_class)
    plain = [name for name in struct_class.__struct_fields__ if hints[name] is UUID]
    other = [name for name in struct_class.__struct_fields__ if name not in plain and _may_hold_uuid(hints[name])]
    values_of = attrgetter(*plain, "__class__") if plain else None

    def read(struct: Any, found: set[UUID]) -> None:
        if values_of is not None:
            found.update(values_of(struct)[:-1])
        for name in other:
            _look_into(getattr(struct, name), found)

    return read


def _look_into(value: object, found: set[UUID]) -> None:
    if type(value) is UUID:
        found.add(value)
    elif isinstance(value, msgspec.Struct):
        uuids_of(value, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _look_into(item, found)


def _may_hold_uuid(hint: Any) -> bool:
    if hint is UUID:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any(_may_hold_uuid(each) for each in get_type_hints(hint).values())
    return any(_may_hold_uuid(part) for part in getattr(hint, "__args__", ()))
