"""Reading the feed ahead: while a block is folded, Postgres already prepares the next one."""

import asyncio

from cqrskit.event_store import EventStore, FeedBlock
from cqrskit.folding import Folding
from cqrskit.tasks import end_tasks

__all__ = ["FeedReader"]


class FeedReader:
    """Reads the blocks of the feed that one folding asks for, one after another."""

    def __init__(self, event_store: EventStore, folding: Folding, block_size: int) -> None:
        """A block has at most so many positions."""
        self._event_store = event_store
        self._folding = folding
        self._block_size = block_size
        self._ahead: asyncio.Task[FeedBlock] | None = None

    async def read(self, after: int) -> tuple[FeedBlock, bool]:
        """The block after a position, and whether it was asked for at this call: else the log may have grown since.

        If it is not the last one, the next one is asked for at once: `after` must follow it, or `stop` come before.
        """
        ahead, self._ahead = self._ahead, None
        feed = await (self._read(after) if ahead is None else ahead)
        if feed.until < feed.head:
            self._ahead = asyncio.create_task(self._read(feed.until), name="cqrskit-read")
            await asyncio.sleep(0)  # so that Postgres has the question before the folding begins
        return feed, ahead is None

    async def stop(self) -> None:
        """Give up what is read ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            await end_tasks([ahead])

    async def _read(self, after: int) -> FeedBlock:
        folding = self._folding
        return await self._event_store.read(after, self._block_size, folding.types, folding.feed_partition)
