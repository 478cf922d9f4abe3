"""The read path, top to bottom: feed → fold → write → checkpoint → refresh.

A projector moves one partition of a projection. It reads blocks of the feed, folds their events into the documents they
belong to, and when enough has been gathered, or nothing is left to read, writes each changed document once. While that
write is under way it reads and folds on. A document's version is the position of its last event; older ones are passed,
so redelivery, crashes and two projectors at once are harmless. Only who has the newest lease moves the checkpoint.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec
import structlog

from cqrskit.checkpoints import Checkpoints, Lease, ParkedKey
from cqrskit.consistency import Positions
from cqrskit.errors import LeaseLost, ServerUnavailable
from cqrskit.event_store import EventStore, FeedBlock
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.feed_reader import FeedReader
from cqrskit.folding import Folded, Folding
from cqrskit.held_documents import HeldDocuments
from cqrskit.metrics import Metrics
from cqrskit.ordered_writes import OrderedWrites, Turn
from cqrskit.parked_keys import ParkedKeys
from cqrskit.parking import fold_parked, parked_key
from cqrskit.projection import Projection
from cqrskit.read_store import Change, ReadStore
from cqrskit.refresher import Refresher
from cqrskit.settings import Settings
from cqrskit.tracing import BlockTrace, Tracer

__all__ = ["Projector"]

log = structlog.get_logger(__name__)

HELD_DOCUMENTS_MAX = 20_000
BULK_HELD_DOCUMENTS_MAX = 80_000
GATHERED_BLOCKS_MAX = 10
"""Blocks that are folded before their documents are written at the latest: far behind, a hot one is written rarely."""
FOLDED_TOGETHER = 500
RETRY_SECONDS_MAX = 5.0


class _Gathered(msgspec.Struct):
    """What has been folded up to a position: what is to be written, and what is to be noted when that is done.

    `events` are the numbers of events that were folded into each document, `waiting` those that wait behind parked
    keys.
    """

    until: int
    events: dict[str, int] = {}
    changes: dict[str, Change] = {}
    parked: list[ParkedKey] = []
    waiting: dict[str, int] = {}
    trace: BlockTrace | None = None


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
        metrics: Metrics,
        tracer: Tracer | None,
        bulk: bool = False,
    ) -> None:
        """`wake` is set by whoever knows that the log has grown; the projector polls as well.

        `bulk`: nobody reads these documents yet, so they are not made searchable, and more are held in memory. Nor is
        anybody in a hurry: it folds or it waits for a write, and so leaves half of two cores to those who are.
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
        self._metrics = metrics.projector(projection.name)
        self._tracer = tracer
        self._bulk = bulk
        self._block_size = settings.block_size_max
        self._enough_documents = settings.elasticsearch_bulk_max_documents
        self._folding = Folding(projection, registry, lease.partition)
        self._feed = FeedReader(event_store, self._folding, settings.block_size_max)
        self._index = projection.index(lease.generation)
        self._refresher = Refresher(read_store, self._index, settings.refresh_interval_seconds)
        self._parked = ParkedKeys(checkpoints, lease, settings.parked_keys_max)
        self._refused: set[str] = set()
        self._doubtful = False
        self._writes = OrderedWrites(f"cqrskit-write-{projection.name}")
        self._held = HeldDocuments(
            self._folding,
            read_store,
            self._index,
            size_max=BULK_HELD_DOCUMENTS_MAX if bulk else HELD_DOCUMENTS_MAX,
            all_held=bulk and lease.position == 0,
            settle=self._writes.finish,
        )
        self._read_until = lease.position
        self._looked_at = 0.0

    async def run(self) -> None:
        """Follow the log until cancelled. Servers that do not answer are tried again, with a growing pause.

        Raises LeaseLost when another worker has taken over, or another CqrskitError when the partition cannot go on.
        """
        pause_seconds = 0.1
        try:
            while True:
                try:
                    level = await self._advance()
                    pause_seconds = 0.1
                    self.failure = None
                    if level:
                        await self._sleep()
                except ServerUnavailable as error:
                    self.failure = str(error)
                    log.warning("projector.waits_for_server", projection=self.projection.name, reason=str(error))
                    self._metrics.retried()
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, RETRY_SECONDS_MAX)
        finally:
            await self.stop()

    async def open(self) -> None:
        """Take up the parked keys and the given-up events; before `run` or `step`. Raises ServerUnavailable."""
        await self._load_skipped()
        await self._parked.load()
        self._positions.publish(self.lease, self.position, self.visible_position, self._parked.positions)

    async def stop(self) -> None:
        """Give up what is being written; it is folded again by whoever goes on."""
        self._positions.withdraw(self.lease)
        await self._end_tasks()

    async def _end_tasks(self) -> None:
        await self._feed.stop()
        await self._refresher.stop()
        await self._writes.stop()

    async def step(self) -> bool:
        """Fold some blocks, if there are any, and refresh when it is due. True: the partition is level with the log.

        The write of blocks that are not the last ones may still be under way when this returns.
        """
        level = await self._advance()
        try:
            await self._refresher.finish()
        except BaseException:
            await self._go_back()
            raise
        return level

    async def _advance(self) -> bool:
        """A step whose refresh may still be under way."""
        try:
            return await self._step()
        except BaseException:
            await self._go_back()
            raise

    async def _step(self) -> bool:
        self._wake.clear()
        if self._doubtful:
            await self._parked.load()
            self._doubtful = False
        if self._parked.positions and time.monotonic() - self._looked_at >= self._settings.poll_interval_seconds:
            await self.retry_parked()
        self._parked.check_number()
        begun_at = time.monotonic()
        gathered, level = await self._gather()
        if gathered.until > self._read_until:
            self._metrics.fold_seconds.observe(time.monotonic() - begun_at)
            if gathered.trace is not None:
                gathered.trace.folded()
            await self._writes.make_room(gathered.events.keys())
            self._leave_out_parked(gathered)
            self._writes.begin(gathered.events.keys(), partial(self._write, gathered))
            self._read_until = gathered.until
        if level or self._bulk:
            await self._writes.finish()
        if not self._bulk:
            await self._refresher.begin_if_due(self.position, self._became_visible, level=level)
        return level

    async def _go_back(self) -> None:
        """After a failure: what is held may be ahead of what is written, so begin again at the checkpoint."""
        await self._end_tasks()
        self._held.forget_all()
        self._refused.clear()
        self._doubtful = True
        self._read_until = self.position

    async def _sleep(self) -> None:
        """Until the log grows, a poll is due, or documents wait to be made visible."""
        seconds = self._settings.poll_interval_seconds
        if self._refresher.is_wanted:
            seconds = min(seconds, self._refresher.seconds_left())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    # --- read

    async def _gather(self) -> tuple[_Gathered, bool]:
        """Read and fold until there is enough to write or nothing left to read; whether that was the log's head."""
        gathered = _Gathered(self._read_until)
        if self._tracer is not None:
            about = self.lease.projection, self.lease.partition.number, self._read_store.system
            gathered.trace = BlockTrace(self._tracer, *about)
        until_at_most = self._read_until + GATHERED_BLOCKS_MAX * self._block_size
        ends_at = time.monotonic() + self._settings.elasticsearch_bulk_max_seconds
        while True:
            feed, is_fresh = await self._feed.read(gathered.until)
            if feed.until > gathered.until:
                await self._fold(feed, gathered)
                gathered.until = feed.until
            level = feed.until >= feed.head
            if level and not is_fresh:
                continue  # it may be older than the wake-up that this step has cleared
            enough = gathered.until >= until_at_most or len(gathered.changes) >= self._enough_documents
            if level or enough or time.monotonic() >= ends_at:
                return gathered, level

    # --- fold

    async def _fold(self, feed: FeedBlock, gathered: _Gathered) -> None:
        """Fold a block's events into their documents, in memory: a few hundred at a time, so that they stay in the
        processor's caches, but all together where documents have to be loaded.
        """
        begin = 0
        while begin < len(feed.events):
            count = len(feed.events) if self._held.loads else FOLDED_TOGETHER
            await self._fold_some(feed.events[begin : begin + count], gathered)
            begin += count

    async def _fold_some(self, events: Sequence[RecordedEvent], gathered: _Gathered) -> None:
        grouped = self._folding.group(events)
        groups, counts, changes = grouped.groups, gathered.events, gathered.changes
        for key in self._parked.positions.keys() & groups.keys():
            parked_at = self._parked.positions[key]
            behind = sum(item[2].position > parked_at for item in groups.pop(key))
            gathered.waiting[key] = gathered.waiting.get(key, 0) + behind
        started = await self._held.start(groups, changes)
        if gathered.trace is not None:
            gathered.trace.folds(item[2].metadata for items in groups.values() for item in items)
        fold, holds = self._folding.fold, self._held.holds
        for key, items in groups.items():
            folded = started.get(key) or Folded(0, None)
            failure = fold(folded, items)
            if failure is not None:
                self._set_aside(gathered, parked_key(self._folding, key, failure, items))
            counts[key] = counts.get(key, 0) + len(items)
            if folded.changed:
                changes[key] = Change(key, folded.version, folded.document)
                if holds:
                    self._held.keep(key, folded)
        for key, failure in grouped.failures.items():
            if key not in self._parked.positions:
                self._set_aside(gathered, parked_key(self._folding, key, failure))
        self._held.trim()

    def _set_aside(self, gathered: _Gathered, parked: ParkedKey) -> None:
        """Park a key, in memory at once: what comes next is folded before this is written."""
        gathered.parked.append(parked)
        self._parked.set_aside(parked.key, parked.position)

    def _leave_out_parked(self, gathered: _Gathered) -> None:
        """Take out what was folded into documents that the write before could not write."""
        lost = self._refused & gathered.events.keys()
        self._refused.clear()
        if lost:
            gathered.parked = [key for key in gathered.parked if key.key not in lost]
        for key in lost:
            gathered.changes.pop(key, None)
            gathered.waiting[key] = gathered.waiting.get(key, 0) + gathered.events[key]
            self._held.forget(key)

    # --- write

    async def _write(self, gathered: _Gathered, turn: Turn) -> None:
        """Write documents; in its turn, park those that cannot be, and move the checkpoint."""
        begun_at, begun_ns = time.monotonic(), time.time_ns()
        parked = {key.key: key for key in gathered.parked}
        refused: Mapping[str, str] = {}
        if gathered.changes:
            refused = await self._read_store.write(self._index, list(gathered.changes.values()))
        await turn()
        if refused:
            found = await self._find_refused([*refused][: self._settings.parked_keys_max + 1], gathered.until)
            parked.update(found)
            self._refused.update(found)
        for key in parked:
            self._held.forget(key)
        await self._parked.park(list(parked.values()))
        self._parked.check_number()  # before the checkpoint: of too many refused documents, some were not looked at
        if gathered.waiting:
            await self._checkpoints.count_waiting(self.lease, gathered.waiting)
        if gathered.events:
            self._refresher.written()
        self.position = gathered.until
        if self._refresher.is_level:
            self.visible_position = self.position
        await self._save()
        self._metrics.write_seconds.observe(time.monotonic() - begun_at)
        events, documents = sum(gathered.events.values()), len(gathered.changes)
        self._metrics.written(events=events, documents=documents, refused=len(refused), parked=len(parked))
        if gathered.trace is not None:
            gathered.trace.written(begun_ns, events=events, documents=documents)

    async def _find_refused(self, keys: list[str], until: int) -> dict[str, ParkedKey]:
        """The events after which the store does not take these documents any more; what was before them is written."""
        before = self.position + 1
        return await self._fold_again({key: ParkedKey(key, before, "", key) for key in keys}, until, retry=False)

    async def _fold_again(self, parked: Mapping[str, ParkedKey], until: int, *, retry: bool) -> dict[str, ParkedKey]:
        """Fold documents' events anew, each from a position on, into what is stored; those that cannot be."""
        return await fold_parked(
            self._folding,
            self._event_store,
            self._read_store,
            self._index,
            parked,
            until=until,
            block_size=self._settings.block_size_max,
            must_be_seen=retry,
        )

    # --- checkpoint

    async def _save(self) -> None:
        if not await self._checkpoints.save(self.lease, self.position, self.visible_position):
            number = self.lease.partition.number
            raise LeaseLost(f"partition {number} of projection {self.projection.name!r} belongs to another worker")
        self._positions.publish(self.lease, self.position, self.visible_position, self._parked.positions)

    async def _became_visible(self, position: int) -> None:
        """Searches see all documents up to a position, and all there are unless more were written meanwhile."""
        while True:
            self.visible_position = max(self.visible_position, position if self._refresher.is_wanted else self.position)
            await self._save()
            if self._refresher.is_wanted or self.visible_position == self.position:
                return

    # --- parked keys

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
        await self._writes.finish()
        self._refused.clear()  # nothing is gathered that was folded before they were refused
        self._looked_at = time.monotonic()
        wanted = {key.key: key for key in await self._parked.load() if key.retry_requested}
        if not wanted:
            return
        await self._load_skipped()
        failed = await self._fold_again(wanted, self.position, retry=True)
        if not self._read_store.writes_are_visible:
            await self._read_store.refresh(self._index)
        for key in wanted:
            self._held.forget(key)
        await self._parked.retried(wanted, failed)
