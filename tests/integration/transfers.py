"""The bank of `tests.unit.folding_bank` at work: its events are appended as they are, without commands."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from cqrskit import Application, Projection, Runtime, Settings
from cqrskit.aggregate import Event
from cqrskit.event_store import NewBatch
from cqrskit.events import NewEvent
from cqrskit.testing import eventually
from tests.unit.folding_bank import STREAMS, Balances, Latest, Streams, Transfer, registry

__all__ = ["PROJECTIONS", "Appender", "bank", "level", "opened"]

PROJECTIONS: list[type[Projection]] = [Balances, Streams, Latest]
bank = Application("transfers", aggregates=[Transfer], handlers=[], projections=PROJECTIONS)


class Appender:
    """Appends events to streams by turns."""

    def __init__(self, runtime: Runtime, streams: Sequence[UUID] = STREAMS) -> None:
        self._runtime = runtime
        self._streams = streams
        self._versions = dict.fromkeys(streams, 0)
        self._count = 0

    async def append(self, *events: Event | bytes) -> int:
        """Append in one batch; bytes stand for the stored data of a Posted. The position of the last one."""
        batch = []
        for event in events:
            stream_id = self._streams[self._count % len(self._streams)]
            self._count += 1
            self._versions[stream_id] += 1
            name = "Transfer.Posted" if isinstance(event, bytes) else event.stored_name
            data = event if isinstance(event, bytes) else registry.encode(event)
            batch.append(NewEvent(stream_id, self._versions[stream_id], name, data, b"{}", datetime.now(UTC)))
        await self._runtime.event_store.append(NewBatch(batch, []))
        return await self._runtime.event_store.head()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    """The bank with all its projections running."""
    async with bank.open(settings, projections=[projection.name for projection in PROJECTIONS]) as runtime:
        yield runtime


async def level(runtime: Runtime) -> None:
    """Wait until all projections have folded the whole log, visibly."""
    head = await runtime.event_store.head()

    async def reached() -> bool:
        return all(each.visible_position >= head for each in await runtime.status(count_documents=False))

    await eventually(reached, timeout_seconds=30)
