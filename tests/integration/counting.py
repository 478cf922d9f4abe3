"""Counters: the application that the tests of the write path and of the read path put to work."""

from collections import Counter as Tally
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from cqrskit import (
    Aggregate,
    Application,
    Command,
    Projection,
    RecordedEvent,
    Rejected,
    Repository,
    Runtime,
    Settings,
    event,
    handles,
    on,
)


class TooSmall(Rejected):
    """The counter has not enough."""

    code = "too_small"


class Counter(Aggregate):
    """A number that grows."""

    class Started(Aggregate.Created):
        """It is there."""

    class Grown(Aggregate.Event):
        """It has grown."""

        by: int

    class Labelled(Aggregate.Event):
        """It has a name."""

        text: str

    @event(Started)
    def __init__(self) -> None:
        self.value = 0

    @event(Labelled)
    def label(self, text: str) -> None:
        """Give it a name, which nobody looks at."""

    @event(Grown)
    def grow(self, by: int) -> None:
        """Add to it."""
        self.value += by


class Grow(Command):
    """Add to a counter, which is made if need be; `end` says how the handler ends after it has done so."""

    counter_id: UUID
    by: int = 1
    end: Literal["well", "refused", "broken"] = "well"


class Require(Command):
    """Refuse unless the counter has at least this; change nothing."""

    counter_id: UUID
    at_least: int


class GrowNumbered(Command):
    """Grow so many counters, whose ids are made from their numbers."""

    count: int


class Label(Command):
    """Give a counter a name."""

    counter_id: UUID
    text: str


class Forget(Command):
    """Make a counter in a way that would not reach the log."""


class Move(Command):
    """Take from one counter what the other gets."""

    source_id: UUID
    target_id: UUID
    by: int


def counter_numbered(number: int) -> UUID:
    """The id of a counter that `GrowNumbered` grows."""
    return uuid5(NAMESPACE_OID, str(number))


runs: Tally[Command] = Tally()
"""How often each command's handler has run."""


@handles(Grow)
def grow(command: Grow, repository: Repository) -> int:
    """Grow, and end as told."""
    runs[command] += 1
    counter = repository.find(Counter, command.counter_id) or repository.create(Counter, command.counter_id)
    counter.grow(by=command.by)
    if command.end == "refused":
        raise TooSmall("as told")
    if command.end == "broken":
        raise ZeroDivisionError("as told")
    return counter.value


@handles(Require)
def require(command: Require, repository: Repository) -> int:
    """Look."""
    value = repository.get(Counter, command.counter_id).value
    if value < command.at_least:
        raise TooSmall(f"{value} is less than {command.at_least}")
    return value


@handles(Move)
def move(command: Move, repository: Repository) -> None:
    """Change the first, then refuse if the second is missing."""
    repository.get(Counter, command.source_id).grow(by=-command.by)
    repository.get(Counter, command.target_id).grow(by=command.by)


@handles(GrowNumbered)
def grow_numbered(command: GrowNumbered, repository: Repository) -> None:
    """Change one after another."""
    for number in range(command.count):
        repository.get(Counter, counter_numbered(number)).grow(by=1)


@handles(Label)
def label(command: Label, repository: Repository) -> Any:
    """Name it; what some names are replied to cannot be written as JSON."""
    counter = repository.find(Counter, command.counter_id) or repository.create(Counter, command.counter_id)
    counter.label(text=command.text)
    return object() if command.text == "no JSON" else command.text


@handles(Forget)
def forget(command: Forget, repository: Repository) -> None:
    """The mistake."""
    Counter()


class Count(msgspec.Struct, frozen=True):
    """What a counter has, and how it came to it."""

    value: int
    events: int


POISON = 666


class Counts(Projection):
    """Every counter's value; it cannot stand the number 666."""

    document = Count

    @on(Counter.Started, creates=True)
    def started(self, count: None, event: Counter.Started, at: RecordedEvent) -> Count:
        """Begin with nothing."""
        return Count(0, 1)

    @on(Counter.Grown)
    def grown(self, count: Count, event: Counter.Grown, at: RecordedEvent) -> Count:
        """Add up."""
        if event.by == POISON:
            raise ValueError("poison")
        return Count(count.value + event.by, count.events + 1)


counting = Application(
    "counting", aggregates=[Counter], handlers=[grow, require, move, grow_numbered, label, forget], projections=[Counts]
)


@asynccontextmanager
async def opened(settings: Settings, *, projecting: bool = False) -> AsyncIterator[Runtime]:
    """The application at work; with `projecting`, its projection too."""
    async with counting.open(settings, projections=["counts"] if projecting else []) as runtime:
        yield runtime
