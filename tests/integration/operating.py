"""An operator who types commands about the counters."""

import asyncio
import fcntl
import json
import os
import termios
from uuid import UUID, uuid4

from cqrskit import Application, Settings
from tests.integration.counting import POISON, Counts, Grow, counting
from tests.integration.running_processes import Finished, cqrskit

COUNTING = "tests.integration.counting:counting"
MENDED = "tests.integration.mended_counting:counting"


class Operator:
    """Types commands about one database."""

    def __init__(self, dsn: str) -> None:
        self.settings = Settings(database_url=dsn, lease_seconds=0.5)
        self.variables = {"CQRSKIT_DATABASE_URL": dsn, "CQRSKIT_LEASE_SECONDS": "0.5"}

    async def types(self, *arguments: str, app: str = COUNTING) -> Finished:
        return await cqrskit(*arguments, "--app", app, variables=self.variables)

    async def asks(self, *arguments: str, app: str = COUNTING, code: int = 0) -> object:
        """The JSON that a command answers."""
        finished = await self.types(*arguments, "--json", app=app)
        assert finished.code == code, finished
        return json.loads(finished.out)

    async def project(self, application: Application = counting) -> None:
        """Run the projection until it is level, and stop."""
        async with application.open(self.settings, executor=False, projections=["counts"]) as runtime:
            head = await runtime.event_store.head()
            await runtime.positions.wait(Counts, head, visible=True, timeout_seconds=30)

    async def grow(self, counter_id: UUID, *steps: int) -> int:
        async with counting.open(self.settings) as runtime:
            results = [await runtime.executor.execute(Grow(counter_id=counter_id, by=by)) for by in steps]
        return results[-1].position

    async def park(self) -> tuple[str, int]:
        """A counter that is parked at the position given, with two events behind."""
        counter_id = uuid4()
        await self.grow(counter_id, 1)
        position = await self.grow(counter_id, POISON)
        await self.grow(counter_id, 5, 6)
        await self.project()
        return str(counter_id), position

    async def document(self, key: str, generation: int = 1) -> object:
        async with counting.open(self.settings, executor=False) as runtime:
            stored = await runtime.read_store.get(Counts.index(generation), key)
        return None if stored is None else stored.document


async def read_terminal(descriptor: int) -> bytes:
    """What a pseudo-terminal shows next; TimeoutError if that takes too long."""
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(30):
            await readable.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
    return os.read(descriptor, 4096)


def own_terminal(descriptor: int) -> None:
    """Make the pseudo-terminal the process's own, so that Ctrl-C is a signal."""
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
