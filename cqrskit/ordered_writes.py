"""Writes of one partition that overlap: the next one is sent while the read store is at work on the one before."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Set

import msgspec

from cqrskit.tasks import end_tasks

__all__ = ["OrderedWrites", "Turn"]

UNDER_WAY_MAX = 2
Turn = Callable[[], Awaitable[None]]


class _Write(msgspec.Struct, frozen=True):
    """A write under way, and the keys whose events were folded for it."""

    keys: Set[str]
    task: "asyncio.Task[None]"


class OrderedWrites:
    """Writes that are begun in order, and are noted in that order; of one document one is under way at a time."""

    def __init__(self, name: str) -> None:
        """`name` is that of the tasks."""
        self._name = name
        self._writes: deque[_Write] = deque()

    async def make_room(self, keys: Set[str]) -> None:
        """Wait until these can be written: behind one other write at most, and behind none of the same documents.

        So nothing is sent that was folded into a document which turns out to be refused. Raises what a write failed
        with.
        """
        while len(self._writes) >= UNDER_WAY_MAX or any(not keys.isdisjoint(write.keys) for write in self._writes):
            await self._writes.popleft().task

    def begin(self, keys: Set[str], work: Callable[[Turn], Coroutine[None, None, None]]) -> None:
        """Begin a write. `work` is given what it has to await before it notes anything: the end of the write before."""
        before = self._writes[-1].task if self._writes else None

        async def turn() -> None:
            if before is not None:
                await before

        self._writes.append(_Write(keys, asyncio.create_task(work(turn), name=self._name)))

    async def finish(self) -> None:
        """Wait until nothing is under way. Raises what a write failed with."""
        while self._writes:
            await self._writes.popleft().task

    async def stop(self) -> None:
        """Give up what is under way."""
        await end_tasks([write.task for write in self._writes])
        self._writes.clear()
