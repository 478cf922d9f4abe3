"""Commands, and which handler decides each of them."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, dataclass_transform, get_type_hints
from uuid import UUID

import msgspec

from cqrskit.aggregate import FrozenStructMeta
from cqrskit.errors import DefinitionError, UnknownCommand

__all__ = ["Command", "Handler", "HandlerRegistry", "handles", "uuids_of"]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, metaclass=FrozenStructMeta, frozen=True, forbid_unknown_fields=True):
    """A wish to change something. Subclass it with annotated fields; it is frozen and compares by content.

    The UUID fields of a command are taken for ids of aggregates that its handler will want, and loaded
    beforehand for the whole batch.
    """


Handler = Callable[[Any, Any], Any]
"""``handler(command, repository) -> reply``: synchronous, without I/O or clock, since it may run again."""

F = TypeVar("F", bound=Callable[..., Any])


def handles(command_class: type[Command]) -> Callable[[F], F]:
    """Mark a function as the handler of `command_class`; pass it to ``Application(handlers=[...])``."""

    def mark(function: F) -> F:
        vars(function)["handled_command"] = command_class
        return function

    return mark


class HandlerRegistry:
    """Finds the one handler of a command."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        """Register `handlers`; an unmarked or asynchronous function, or two for one command, raise DefinitionError."""
        self._handlers: dict[type[Command], Handler] = {}
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


_uuid_fields: dict[type[Any], tuple[str, ...]] = {}


def uuids_of(value: object, found: set[UUID]) -> None:
    """Add every UUID inside a command (in nested Structs, lists and tuples too) to `found`."""
    if type(value) is UUID:
        found.add(value)
    elif isinstance(value, msgspec.Struct):
        for field in _fields_with_uuids(type(value)):
            uuids_of(getattr(value, field), found)
    elif isinstance(value, list | tuple):
        for item in value:
            uuids_of(item, found)


def _fields_with_uuids(struct_class: type[msgspec.Struct]) -> tuple[str, ...]:
    fields = _uuid_fields.get(struct_class)
    if fields is None:
        hints = get_type_hints(struct_class)
        fields = tuple(name for name in struct_class.__struct_fields__ if _may_hold_uuid(hints[name]))
        _uuid_fields[struct_class] = fields
    return fields


def _may_hold_uuid(hint: Any) -> bool:
    if hint is UUID:
        return True
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return bool(_fields_with_uuids(hint))
    return any(_may_hold_uuid(part) for part in getattr(hint, "__args__", ()))
