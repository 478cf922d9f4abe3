"""Commands on their way to the executor, and the results on their way back to whoever gave them."""

import asyncio
from typing import Any

import msgspec

from cqrskit.commands import Command
from cqrskit.errors import CqrskitError

__all__ = ["CommandResult", "Submission", "Waiting"]


class CommandResult(msgspec.Struct, frozen=True):
    """What a handler returned, and the position at which a reader sees everything that it rests on.

    For a command that appended events this is the position of the last of them; for one that changed nothing,
    the last position of the aggregates it looked at. `appended` tells which.
    """

    reply: Any
    position: int
    appended: bool


class Submission:
    """Commands that were given to the executor together, and the future that resolves with all their results."""

    __slots__ = ("future", "remaining", "results")

    def __init__(self, count: int, future: "asyncio.Future[list[CommandResult | CqrskitError]]") -> None:
        self.results: list[Any] = [None] * count
        self.remaining = count
        self.future = future

    def resolve(self, index: int, result: CommandResult | CqrskitError) -> None:
        """Take one result; the last one resolves the future."""
        self.results[index] = result
        self.remaining -= 1
        if self.remaining == 0 and not self.future.done():
            self.future.set_result(self.results)


class Waiting(msgspec.Struct, gc=False):
    """One command in the queue."""

    command: Command
    metadata: bytes
    submission: Any
    index: int
    resolved: bool = False

    def resolve(self, result: CommandResult | CqrskitError) -> None:
        """Take the result; only the first one counts."""
        if not self.resolved:
            self.resolved = True
            self.submission.resolve(self.index, result)
