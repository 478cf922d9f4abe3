"""The load of the read path's fault tests: counters that grow all the while, and what their documents must be then."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from cqrskit import CommitUnknown, CqrskitError, Runtime, ServerUnavailable
from cqrskit.testing import assert_projection_exact, eventually
from tests.integration.counting import Count, Counts, Grow

__all__ = ["WAIT_SECONDS", "CountingLoad", "level"]

WAIT_SECONDS = 90.0
COUNTERS, HOT = 30, 3
PAUSE_SECONDS = 0.01
AHEAD_MAX = 400
"""Replies beyond those that the test has asked for; a server that is away for long leaves no more to catch up with."""


class CountingLoad:
    """Callers who grow counters by one at a time; `acknowledged` are the replies that they got."""

    def __init__(self, runtime: Runtime, *, callers: int = 12) -> None:
        self.ids = [uuid4() for _ in range(COUNTERS)]
        self.acknowledged: Counter[UUID] = Counter()
        self.unknown: Counter[UUID] = Counter()
        self._runtime = runtime
        self._callers = callers
        self._stopping = False
        self._goal = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Callers are at work."""
        tasks = [asyncio.create_task(self._call(number)) for number in range(self._callers)]
        try:
            yield
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def progress(self, count: int = 100) -> None:
        """Wait until so many more commands were acknowledged."""
        self._goal = goal = self.acknowledged.total() + count
        await eventually(lambda: self.acknowledged.total() >= goal, timeout_seconds=WAIT_SECONDS)

    async def _call(self, number: int) -> None:
        """Each caller has hot counters, which all want, and its own share of the cold ones."""
        mine = [*self.ids[:HOT], *self.ids[HOT + number :: self._callers]]
        turn = 0
        while not self._stopping:
            if self.acknowledged.total() > self._goal + AHEAD_MAX:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            counter_id = mine[turn % len(mine)]
            turn += 1
            try:
                await self._runtime.executor.execute(Grow(counter_id=counter_id))
                self.acknowledged[counter_id] += 1
            except CommitUnknown:
                self.unknown[counter_id] += 1
            except CqrskitError:
                pass
            await asyncio.sleep(PAUSE_SECONDS)

    async def assert_exact(self) -> None:
        """Once the projection is level, every document is the fold of the log and has all that was acknowledged."""
        assert self.acknowledged.total() > 0
        await level(self._runtime)
        await assert_projection_exact(self._runtime, Counts)
        for counter_id, count in self.acknowledged.items():
            stored = await self._runtime.read_store.get(Counts.index(1), str(counter_id))
            assert stored is not None, f"{counter_id} was acknowledged and has no document"
            assert isinstance(stored.document, Count)
            assert count <= stored.document.value <= count + self.unknown[counter_id]


async def level(runtime: Runtime) -> None:
    """Wait until searches of the projection see the log as it is now."""
    head = await runtime.event_store.head()

    async def reached() -> bool:
        try:
            (status,) = await runtime.status(count_documents=False)
        except ServerUnavailable:
            return False
        return status.visible_position >= head

    await eventually(reached, timeout_seconds=WAIT_SECONDS)
