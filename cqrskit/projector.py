"""The read path, top to bottom: feed → fold → write → checkpoint → refresh.

A projector moves one partition of a projection: it reads a block of the feed, folds its events into their documents and
writes each changed one once, while it reads and folds the next block. A document's version is the position of its last
event; older ones are skipped, so redelivery, crashes and two projectors at once are harmless. The checkpoint is moved
only by the holder of the partition's newest lease.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping

import msgspec
import structlog

from cqrskit.checkpoints import Checkpoints, Lease, ParkedKey
from cqrskit.consistency import Positions
from cqrskit.errors import LeaseLost, ProjectionStopped, ServerUnavailable
from cqrskit.event_store import EventStore, FeedBlock
from cqrskit.events import EventRegistry
from cqrskit.folding import Folded, Folding, Item
from cqrskit.parking import fold_into_stored, fold_parked
from cqrskit.projection import Projection
from cqrskit.read_store import Change, ReadStore, Stored
from cqrskit.settings import Settings
from cqrskit.tasks import end_tasks

__all__ = ["Projector"]

log = structlog.get_logger(__name__)

HELD_DOCUMENTS_MAX = 20_000
BULK_BLOCKS = 4
"""How much more a projector reads, and holds in memory, while it builds documents that nobody reads yet."""
RETRY_SECONDS_MAX = 5.0
CATCHING_UP = 10
"""How much rarer documents are made searchable while there is more to read."""


class _Block(msgspec.Struct):
    """A block that has been folded: what is to be written, and noted when that is done."""

    until: int
    groups: dict[str, list[Item]]
    changes: list[Change]
    parked: list[ParkedKey]
    waiting: dict[str, int]


class Projector:
    """Keeps one partition's documents level with the log. `open` it, `run` it as a task, cancel that to stop."""

    def __init__(
        self,
        projection: Projection,
        lease: Lease,
        *,
        event_store: EventStore,
        read_store: ReadStore,
        checkpoints: Checkpoints,
        positions: Positions,
        registry: EventRegistry,
        settings: Settings,
        wake: asyncio.Event,
        bulk: bool = False,
    ) -> None:
        """`wake` is set by whoever knows that the log has grown; the projector polls as well.

        `bulk`: nobody reads these documents yet, so they are not made searchable, and more is done at once.
        """
        self.projection = projection
        self.lease = lease
        self.position = lease.position
        self.visible_position = lease.visible_position
        self.failure: str | None = None
        self._event_store = event_store
        self._read_store = read_store
        self._checkpoints = checkpoints
        self._positions = positions
        self._registry = registry
        self._settings = settings
        self._wake = wake
        self._bulk = bulk
        self._block_size = settings.block_size_max * (BULK_BLOCKS if bulk else 1)
        self._held_max = HELD_DOCUMENTS_MAX * (BULK_BLOCKS if bulk else 1)
        self._all_held = bulk and lease.position == 0
        self._folding = Folding(projection, registry, lease.partition)
        self._index = projection.index(lease.generation)
        self._held: OrderedDict[str, Stored] = OrderedDict()
        self._holds = not self._folding.only_begins
        self._parked: dict[str, int] = {}
        self._refused: set[str] = set()
        self._doubtful = False
        self._writing: asyncio.Task[None] | None = None
        self._read_until = lease.position
        self._unrefreshed = True
        self._refreshed_at = 0.0
        self._looked_at = 0.0

    async def run(self) -> None:
        """Follow the log until cancelled. Servers that do not answer are tried again, with a growing pause.

        Raises LeaseLost when another worker has taken over, or another CqrskitError when the partition cannot go on.
        """
        pause_seconds = 0.1
        try:
            while True:
                try:
                    level = await self.step()
                    pause_seconds = 0.1
                    self.failure = None
                    if level:
                        await self._sleep()
                except ServerUnavailable as error:
                    self.failure = str(error)
                    log.warning("projector.waits_for_server", projection=self.projection.name, reason=str(error))
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)
        finally:
            await self.stop()

    async def open(self) -> None:
        """Take up the checkpoint, the parked keys and the events that were given up; before `run` or `step`.

        Raises ServerUnavailable.
        """
        await self._load_skipped()
        await self._load_parked()
        self._positions.publish(self.lease, self.position, self.visible_position, self._parked)

    async def stop(self) -> None:
        """Give up what is being written; it is folded again by whoever goes on."""
        self._positions.withdraw(self.lease)
        if self._writing is not None:
            await end_tasks([self._writing])
            self._writing = None

    async def step(self) -> bool:
        """Fold one block, if there is one, and refresh when it is due. True: the partition is level with the log.

        A block that is not the last one may still be under way when this returns.
        """
        try:
            return await self._step()
        except BaseException:
            await self._go_back()
            raise

    async def _step(self) -> bool:
        self._wake.clear()
        if self._doubtful:
            await self._load_parked()
            self._doubtful = False
        if self._parked and time.monotonic() - self._looked_at >= self._settings.poll_interval_seconds:
            await self.retry_parked()
        feed = await self._event_store.read(
            self._read_until, self._block_size, self._folding.types, self._folding.feed_partition
        )
        if feed.until > self._read_until:
            block = await self._fold(feed)
            await self._finish_writing()
            self._leave_out_parked(block)
            self._writing = asyncio.create_task(self._write(block), name=f"cqrskit-write-{self.projection.name}")
            self._read_until = feed.until
        level = feed.until >= feed.head
        if level:
            await self._finish_writing()
        if self._unrefreshed and not self._bulk and self._refresh_due(level):
            await self._finish_writing()
            await self._refresh()
        return level

    async def _go_back(self) -> None:
        """After a failure: what is held may be ahead of what is written, so begin again at the checkpoint."""
        if self._writing is not None:
            await end_tasks([self._writing])
            self._writing = None
        self._held.clear()
        self._all_held = False
        self._refused.clear()
        self._doubtful = True
        self._read_until = self.position

    async def _sleep(self) -> None:
        """Until the log grows, a poll is due, or documents wait to be made visible."""
        seconds = self._settings.poll_interval_seconds
        if self._unrefreshed:
            until_refresh = self._refreshed_at + self._settings.refresh_interval_seconds - time.monotonic()
            seconds = min(seconds, max(until_refresh, 0.0))
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- fold

    async def _fold(self, feed: FeedBlock) -> _Block:
        """Fold a block's events into their documents, in memory."""
        grouped = self._folding.group(feed.events)
        groups = grouped.groups
        block = _Block(feed.until, groups, [], [], {})
        for key in self._parked.keys() & groups.keys():
            parked_at = self._parked[key]
            block.waiting[key] = sum(item[2].position > parked_at for item in groups.pop(key))
        started = await self._start_documents(groups)
        for key, items in groups.items():
            folded = started[key]
            failure = self._folding.fold(folded, items)
            if failure is not None:
                behind = sum(item[2].position > failure.position for item in items)
                self._set_aside(block, ParkedKey(key, failure.position, failure.reason, events_waiting=behind))
            if folded.changed:
                block.changes.append(Change(key, folded.version, folded.document))
                if self._holds:
                    self._held[key] = Stored(key, folded.version, folded.document)
                    self._held.move_to_end(key)
        for key, failure in grouped.failures.items():
            if key not in self._parked:
                self._set_aside(block, ParkedKey(key, failure.position, failure.reason))
        while len(self._held) > self._held_max and len(self._held) > len(block.changes):
            self._held.popitem(last=False)
            self._all_held = False
        return block

    def _set_aside(self, block: _Block, parked: ParkedKey) -> None:
        """Park a key, in memory at once: the next block is folded before this one is written."""
        block.parked.append(parked)
        self._parked[parked.key] = parked.position

    async def _start_documents(self, groups: Mapping[str, list[Item]]) -> dict[str, Folded]:
        """The documents as they were before the block: held, loaded in one request, or not yet there."""
        held = self._held
        wanted = [key for key, items in groups.items() if key not in held and not self._folding.begins(items)]
        if self._all_held:
            wanted = []
        if wanted:
            await self._finish_writing()  # what has left memory must be in the store before it is loaded
        loaded = await self._read_store.load(self._index, wanted) if wanted else {}
        started: dict[str, Folded] = {}
        for key in groups:
            stored = held.get(key) or loaded.get(key)
            started[key] = Folded(0, None) if stored is None else Folded(stored.version, stored.document)
        return started

    def _leave_out_parked(self, block: _Block) -> None:
        """Take out what was folded into documents that the block before could not write."""
        lost = self._refused & block.groups.keys()
        self._refused.clear()
        if lost:
            block.changes = [change for change in block.changes if change.id not in lost]
            block.parked = [key for key in block.parked if key.key not in lost]
            block.waiting.update((key, len(block.groups[key])) for key in lost)
        for key in lost:
            self._held.pop(key, None)

    # --- write

    async def _finish_writing(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def _write(self, block: _Block) -> None:
        """Write a block's documents, park what cannot be, and move the checkpoint."""
        parked = {key.key: key for key in block.parked}
        if block.changes:
            outcomes = await self._read_store.write(self._index, block.changes)
            refused = [
                change.id
                for change, outcome in zip(block.changes, outcomes, strict=True)
                if outcome.refusal is not None
            ]
            for key in refused:
                if len(parked) > self._settings.parked_keys_max:
                    break  # the projection stops; there is no need to look at all of them
                found = await self._find_refused(key, block.groups[key])
                if found is not None:
                    parked[key] = found
                    self._refused.add(key)
        await self._park(list(parked.values()))
        if block.waiting:
            await self._checkpoints.count_waiting(self.lease, block.waiting)
        if block.groups and not self._read_store.writes_are_visible:
            self._unrefreshed = True
        self.position = block.until
        if not self._unrefreshed:
            self.visible_position = self.position
        await self._save()

    async def _find_refused(self, key: str, items: list[Item]) -> ParkedKey | None:
        """The event after which the store does not take the document any more; what was before it is written."""
        failure = await fold_into_stored(self._folding, self._read_store, self._index, key, items)
        if failure is None:
            return None
        behind = sum(item[2].position > failure.position for item in items)
        return ParkedKey(key, failure.position, failure.reason, events_waiting=behind)

    async def _park(self, parked: list[ParkedKey]) -> None:
        if not parked:
            return
        for key in parked:
            log.error(
                "projector.key_parked",
                projection=self.projection.name,
                key=key.key,
                position=key.position,
                reason=key.error,
            )
            self._held.pop(key.key, None)
        await self._checkpoints.park(self.lease, parked)
        for key in parked:
            self._parked[key.key] = min(key.position, self._parked.get(key.key, key.position))
        if len(self._parked) > self._settings.parked_keys_max:
            raise ProjectionStopped(
                f"projection {self.projection.name!r} has parked {len(self._parked)} keys, more than "
                f"CQRSKIT_PARKED_KEYS_MAX allows ({self._settings.parked_keys_max}): its code is probably wrong rather "
                f"than its events; the last one was {parked[-1].key!r}: {parked[-1].error}"
            )

    # --- checkpoint and refresh

    async def _save(self) -> None:
        if not await self._checkpoints.save(self.lease, self.position, self.visible_position):
            number = self.lease.partition.number
            raise LeaseLost(f"partition {number} of projection {self.projection.name!r} belongs to another worker")
        self._positions.publish(self.lease, self.position, self.visible_position, self._parked)

    def _refresh_due(self, level: bool) -> bool:
        """Far behind the log, making documents searchable costs more than it is worth to anybody who waits."""
        interval = self._settings.refresh_interval_seconds * (1 if level else CATCHING_UP)
        return time.monotonic() - self._refreshed_at >= interval

    async def _refresh(self) -> None:
        """Make all written documents searchable, then say so."""
        if not self._read_store.writes_are_visible:
            await self._read_store.refresh(self._index)
        self._refreshed_at = time.monotonic()
        self._unrefreshed = False
        self.visible_position = self.position
        await self._save()

    # --- parked keys

    async def _load_parked(self) -> list[ParkedKey]:
        """The keys of this partition that are parked."""
        parked = await self._checkpoints.parked(self.lease.projection, self.lease.generation)
        own = [key for key in parked if self.lease.partition.owns(key.key)]
        self._parked.clear()
        self._parked.update((key.key, key.position) for key in own)
        return own

    async def _load_skipped(self) -> None:
        """The events that somebody gave up: no fold sees them."""
        skipped = await self._checkpoints.skipped(self.lease.projection)
        self._folding = Folding(
            self.projection,
            self._registry,
            self.lease.partition,
            skipped=[(event.key, event.position) for event in skipped],
        )

    async def retry_parked(self) -> None:
        """Fold what has waited behind those parked keys that somebody asked for, in order, up to the checkpoint.

        The request is forgotten only when its outcome is kept, so that whoever goes on after a crash tries again.
        """
        await self._finish_writing()
        self._looked_at = time.monotonic()
        wanted = {key.key: key.position for key in await self._load_parked() if key.retry_requested}
        if not wanted:
            return
        await self._load_skipped()
        failed = await fold_parked(
            self._folding,
            self._event_store,
            self._read_store,
            self._index,
            wanted,
            until=self.position,
            block_size=self._block_size,
        )
        if not self._read_store.writes_are_visible:
            await self._read_store.refresh(self._index)
        level = [key for key in wanted if key not in failed]
        await self._checkpoints.unpark(self.lease, level)
        for key in level:
            self._parked.pop(key, None)
            log.info("projector.key_retried", projection=self.projection.name, key=key)
        for key, parked in failed.items():
            await self._checkpoints.repark(self.lease, parked)
            self._parked[key] = parked.position
            log.error(
                "projector.key_parked",
                projection=self.projection.name,
                key=key,
                position=parked.position,
                reason=parked.error,
            )
