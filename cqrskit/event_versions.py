"""Versions of events: their names in the log, and the upcasters that lead from an old version to the next.

::

    class Account(Aggregate):
        class Credited(Aggregate.Event, version=2):
            amount: int
            currency: str

    @upcasts(Account.Credited, from_version=1)
    def credited_v1(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "currency": "EUR"}

    bank = Application("bank", aggregates=[Account], handlers=[...], upcasters=[credited_v1])

Version 1 is stored as ``Account.Credited``, version 2 as ``Account.Credited@2``. The log is never rewritten: an event
of version 1 goes through the chain of upcasters whenever it is read, so that folds and aggregates know only the class.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from cqrskit.errors import DefinitionError

__all__ = ["Step", "Upcaster", "base_of", "chains_of", "name_of_version", "stored_names_of", "upcasters_of", "upcasts"]

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""``upcaster(data) -> data``: from the stored JSON object of one version to that of the next; pure and synchronous."""

F = TypeVar("F", bound=Upcaster)

_upcasters: WeakKeyDictionary[type[Any], list[Upcaster]] = WeakKeyDictionary()

_VERSION_SUFFIX = re.compile(r"@([1-9][0-9]*)$")


class Step(msgspec.Struct, frozen=True):
    """One upcaster of a chain, and its name for messages."""

    name: str
    function: Upcaster


def upcasts(*event_classes: type[Any], from_version: int) -> Callable[[F], F]:
    """Mark a function as the step of these events from `from_version` to the next; pass it to ``upcasters=[...]``.

    It gets the stored JSON object (a dict that it may change) and returns that of the next version, in values that
    JSON has or that msgspec can encode, such as datetime and UUID. Use the names and types of the stored fields, not
    today's classes: a step stays as it is when later versions come.
    """
    if not event_classes:
        raise DefinitionError("@upcasts needs at least one event class, such as @upcasts(Account.Credited, ...)")

    def mark(function: F) -> F:
        vars(function).setdefault("upcasts_events", []).append((event_classes, from_version))
        for each in event_classes:
            _upcasters.setdefault(each, []).append(function)
        return function

    return mark


def upcasters_of(event_class: type[Any]) -> tuple[Upcaster, ...]:
    """All functions that are marked as upcasters of this event's old versions, as far as their modules are imported."""
    return tuple(_upcasters.get(event_class, ()))


def base_of(stored_name: str) -> str:
    """A stored name without its version: ``Account.Credited`` for ``Account.Credited@2``."""
    return _VERSION_SUFFIX.sub("", stored_name)


def name_of_version(base: str, version: int) -> str:
    """How a version of an event is stored: version 1 without a suffix."""
    return base if version == 1 else f"{base}@{version}"


def stored_names_of(event_class: type[Any]) -> list[str]:
    """The names under which events of this class are in the log: one for each version, the oldest first."""
    base = base_of(event_class.stored_name)
    return [name_of_version(base, version) for version in range(1, event_class.stored_version + 1)]


def chains_of(event_classes: Iterable[type[Any]], upcasters: Iterable[Upcaster]) -> dict[str, tuple[Step, ...]]:
    """The steps to the current version for every old stored name.

    DefinitionError for a gap, for two upcasters of one step, and for an upcaster that leads nowhere.
    """
    known = list(event_classes)
    steps: dict[tuple[type[Any], int], Step] = {}
    for upcaster in upcasters:
        step, parts = _marked(upcaster)
        for classes, from_version in parts:
            for event_class in classes:
                _check_target(step, event_class, from_version, known)
                other = steps.setdefault((event_class, from_version), step)
                if other is not step:
                    raise DefinitionError(
                        f"{event_class.__qualname__} has two upcasters from version {from_version}, {other.name} and "
                        f"{step.name}: keep one"
                    )
    chains: dict[str, tuple[Step, ...]] = {}
    for event_class in known:
        versions = range(1, event_class.stored_version)
        missing = [version for version in versions if (event_class, version) not in steps]
        if missing:
            raise DefinitionError(
                f"{event_class.__qualname__} has version {event_class.stored_version}, but no upcaster leads from "
                f"version {missing[0]} to {missing[0] + 1}: write one with @upcasts({event_class.__qualname__}, "
                f"from_version={missing[0]}) and add it to Application(upcasters=[...])"
            )
        for name, version in zip(stored_names_of(event_class), versions, strict=False):
            chains[name] = tuple(steps[event_class, each] for each in versions if each >= version)
    return chains


def _marked(upcaster: Upcaster) -> tuple[Step, list[tuple[tuple[type[Any], ...], int]]]:
    """The upcaster as a step, and what its marks say; DefinitionError if it cannot be one."""
    name = getattr(upcaster, "__qualname__", repr(upcaster))
    parts = getattr(upcaster, "upcasts_events", None)
    if not parts:
        raise DefinitionError(
            f"{name} does not say which event it upcasts: add @upcasts(TheEvent, from_version=1) to it"
        )
    if inspect.iscoroutinefunction(upcaster):
        raise DefinitionError(
            f"{name} is a coroutine function: an upcaster is a plain function, since it runs wherever the log is read"
        )
    try:
        inspect.signature(upcaster).bind({})
    except TypeError:
        raise DefinitionError(f"upcaster {name} must take one argument, the stored JSON object") from None
    return Step(name, upcaster), parts


def _check_target(step: Step, event_class: type[Any], from_version: int, known: list[type[Any]]) -> None:
    if event_class not in known:
        name = getattr(event_class, "__qualname__", repr(event_class))
        raise DefinitionError(
            f"{step.name} upcasts {name}, which is no event of an aggregate of this application: add the aggregate to "
            "Application(aggregates=[...])"
        )
    current = event_class.stored_version
    if type(from_version) is not int or not 1 <= from_version < current:
        raise DefinitionError(
            f"{step.name} upcasts {event_class.__qualname__} from version {from_version!r}, but the class has version "
            f"{current}: an upcaster leads from one of 1 to {current - 1}"
            if current > 1
            else f"{step.name} upcasts {event_class.__qualname__}, which has version 1 only: declare it with version=2"
        )
