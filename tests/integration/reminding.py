"""Counters that are grown later: the application that the tests of due commands put to work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from cqrskit import Application, Command, Repository, Runtime, Settings, handles
from tests.integration.counting import Counter, TooSmall, grow, require


class GrowLater(Command):
    """Grow a counter by 1 now, and by `by` so many seconds later; `end` says how the handler ends."""

    counter_id: UUID
    name: str
    seconds: float = 0.0
    by: int = 10
    then: Literal["grow", "refuse", "break"] = "grow"
    end: Literal["well", "refused", "broken"] = "well"


class GrowDue(Command):
    """What runs later."""

    counter_id: UUID
    by: int
    not_before: datetime
    then: Literal["grow", "refuse", "break"] = "grow"


class CallOff(Command):
    """Grow by 1 and take back what waits under a name."""

    counter_id: UUID
    name: str


class OnlySchedule(Command):
    """Schedule, and leave nothing that tells so."""

    name: str


mended: set[str] = set()
"""With anything in it, what is to break does not."""


@handles(GrowLater)
def grow_later(command: GrowLater, repository: Repository) -> int:
    """Now and later."""
    counter = repository.find(Counter, command.counter_id) or repository.create(Counter, command.counter_id)
    counter.grow(by=1)
    at = repository.now + timedelta(seconds=command.seconds)
    due = GrowDue(counter_id=command.counter_id, by=command.by, not_before=at, then=command.then)
    repository.schedule(due, at=at, key=command.name)
    if command.end == "refused":
        raise TooSmall("as told")
    if command.end == "broken":
        raise ZeroDivisionError("as told")
    return counter.value


@handles(GrowDue)
def grow_due(command: GrowDue, repository: Repository) -> int:
    """Grow, unless too early, refused or broken."""
    if repository.now < command.not_before:
        raise TooSmall("too early")
    if command.then == "refuse":
        raise TooSmall("as told")
    if command.then == "break" and not mended:
        raise ZeroDivisionError("as told")
    counter = repository.get(Counter, command.counter_id)
    counter.grow(by=command.by)
    return counter.value


@handles(CallOff)
def call_off(command: CallOff, repository: Repository) -> None:
    """Grow and take back."""
    repository.get(Counter, command.counter_id).grow(by=1)
    repository.unschedule(command.name)


@handles(OnlySchedule)
def only_schedule(command: OnlySchedule, repository: Repository) -> None:
    """The mistake."""
    due = GrowDue(counter_id=UUID(int=1), by=1, not_before=repository.now)
    repository.schedule(due, at=repository.now, key=command.name)


reminding = Application(
    "reminding", aggregates=[Counter], handlers=[grow, require, grow_later, grow_due, call_off, only_schedule]
)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    """The application at work."""
    async with reminding.open(settings) as runtime:
        yield runtime
