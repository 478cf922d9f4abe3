"""Making written documents searchable, on a cadence, while further ones are folded and written."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from cqrskit.read_store import IndexSpec, ReadStore
from cqrskit.tasks import end_tasks

__all__ = ["Refresher"]

CATCHING_UP = 25
"""How much rarer documents are made searchable while there is more to read."""


class Refresher:
    """Refreshes one index. `written` says that there is something to make visible; one refresh runs at a time."""

    def __init__(self, read_store: ReadStore, index: IndexSpec, interval_seconds: float) -> None:
        """At the beginning there may be documents of another process that nobody has made visible."""
        self._read_store = read_store
        self._index = index
        self._interval_seconds = interval_seconds
        self._wanted = True
        self._begun_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether something was written since the last refresh began."""
        return self._wanted

    @property
    def is_level(self) -> bool:
        """Whether a search sees all that was written."""
        return not self._wanted and self._task is None

    def written(self) -> None:
        """Documents were written."""
        if not self._read_store.writes_are_visible:
            self._wanted = True

    def seconds_left(self, *, level: bool = True) -> float:
        """Until the next refresh is due. Far behind the log, it costs more than it is worth to anybody who waits."""
        interval = self._interval_seconds * (1 if level else CATCHING_UP)
        return max(0.0, self._begun_at + interval - time.monotonic())

    async def begin_if_due(self, position: int, done: Callable[[int], Awaitable[None]], *, level: bool) -> None:
        """Begin a refresh if there is something to make visible and it is time; it tells `done` the position.

        Raises what the one before failed with.
        """
        if self._task is not None and self._task.done():
            await self.finish()
        if self._wanted and self._task is None and self.seconds_left(level=level) == 0:
            self._wanted = False
            self._begun_at = time.monotonic()
            self._task = asyncio.create_task(self._refresh(position, done), name=f"cqrskit-refresh-{self._index.name}")

    async def finish(self) -> None:
        """Wait for a refresh that is under way. Raises what it fails with."""
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        """Give up what is under way; it is to be done again."""
        self._wanted = True
        if self._task is not None:
            await end_tasks([self._task])
            self._task = None

    async def _refresh(self, position: int, done: Callable[[int], Awaitable[None]]) -> None:
        if not self._read_store.writes_are_visible:
            await self._read_store.refresh(self._index)
        await done(position)
        self._task = None
