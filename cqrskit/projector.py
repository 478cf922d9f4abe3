"""The read path, top to bottom: feed → fold → write → checkpoint → refresh.

A projector reads a block of the feed, folds all its events into the documents they belong to, and writes each
changed document once. A document's version is the position of the last event folded into it, kept by the read
store as an external version; events at or below it are skipped. So redelivery, a crash between write and
checkpoint, and two projectors at once are harmless.
"""

import asyncio
import time
from collections import OrderedDict

import structlog

from cqrskit.consistency import Checkpoint, Checkpoints, ParkedKey, Positions
from cqrskit.errors import CqrskitError, ServerUnavailable
from cqrskit.event_store import EventStore, FeedBlock
from cqrskit.events import EventRegistry
from cqrskit.folding import Folded, Folding, Item
from cqrskit.projection import Projection
from cqrskit.read_store import Change, ReadStore, Stored
from cqrskit.settings import Settings

__all__ = ["Projector"]

log = structlog.get_logger(__name__)

HELD_DOCUMENTS_MAX = 20_000
RETRY_SECONDS_MAX = 5.0


class Projector:
    """Keeps the documents of one projection level with the log. `open` it, `run` it as a task, cancel that to stop."""

    def __init__(
        self,
        projection: Projection,
        *,
        event_store: EventStore,
        read_store: ReadStore,
        checkpoints: Checkpoints,
        positions: Positions,
        registry: EventRegistry,
        settings: Settings,
        wake: asyncio.Event,
    ) -> None:
        """`wake` is set by whoever knows that the log has grown; the projector polls as well."""
        self.projection = projection
        self.position = 0
        self.visible_position = 0
        self.failure: str | None = None
        self._event_store = event_store
        self._read_store = read_store
        self._checkpoints = checkpoints
        self._positions = positions
        self._settings = settings
        self._wake = wake
        self._folding = Folding(projection, registry)
        self._index = projection.index
        self._index_identity = ""
        self._held: OrderedDict[str, Stored] = OrderedDict()
        self._parked: set[str] = set()
        self._unrefreshed = False
        self._refreshed_at = 0.0

    async def run(self) -> None:
        """Follow the log until cancelled. Servers that do not answer are tried again, with a growing pause."""
        pause_seconds = 0.1
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
            except CqrskitError as error:
                self.failure = str(error)
                log.error("projector.stopped", projection=self.projection.name, reason=str(error))
                raise

    async def open(self) -> None:
        """Make the index if need be and take up the checkpoint; before `run`.

        Raises ServerUnavailable, or ConfigurationError if the index was made for other documents.
        """
        self._index_identity = await self._read_store.prepare(self._index)
        checkpoint = await self._checkpoints.register(self._index.name, self._index.generation, self._index_identity)
        self.position, self.visible_position = checkpoint.position, checkpoint.visible_position
        self._unrefreshed = self.visible_position < self.position
        parked = await self._checkpoints.parked_keys(self._index.name, self._index.generation)
        self._parked = {key.key for key in parked}
        self._positions.publish(checkpoint)

    async def step(self) -> bool:
        """Fold one block, if there is one, and refresh when it is due. True: the projection is level with the log."""
        self._wake.clear()
        block = await self._event_store.read(self.position, self._settings.block_size_max, self._folding.types)
        if block.until > self.position:
            await self._fold_block(block)
            self.position = block.until
            if not self._unrefreshed:
                self.visible_position = self.position
            await self._save()
        level = self.position >= block.head
        if self._unrefreshed and self._refresh_due():
            await self._refresh()
        return level

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

    async def _fold_block(self, block: FeedBlock) -> None:
        grouped = self._folding.group(block.events)
        groups = grouped.groups
        skipped = {key: len(groups.pop(key)) for key in self._parked & groups.keys()}
        started = await self._start_documents(groups)
        parked: list[ParkedKey] = []
        for key, items in groups.items():
            failure = self._folding.fold(started[key], items)
            if failure is not None:
                parked.append(ParkedKey(key, failure.position, failure.reason))
        failed = {each.key for each in parked} | self._parked
        parked += [
            ParkedKey(key, failure.position, failure.reason)
            for key, failure in grouped.failures.items()
            if key not in failed
        ]
        await self._write(started, parked)
        await self._park(parked)
        if skipped:
            await self._checkpoints.count_skipped(self._index.name, self._index.generation, skipped)

    async def _start_documents(self, groups: dict[str, list[Item]]) -> dict[str, Folded]:
        """The documents as they were before the block: held, loaded in one request, or not yet there."""
        held = self._held
        wanted = [key for key, items in groups.items() if key not in held and not self._folding.begins(items)]
        loaded = await self._read_store.load(self._index, wanted) if wanted else {}
        started: dict[str, Folded] = {}
        for key in groups:
            stored = held.get(key) or loaded.get(key)
            started[key] = Folded(0, None) if stored is None else Folded(stored.version, stored.document)
        return started

    # --- write

    async def _write(self, started: dict[str, Folded], parked: list[ParkedKey]) -> None:
        changes = [Change(key, folded.version, folded.document) for key, folded in started.items() if folded.changed]
        if not changes:
            return
        self._unrefreshed = not self._read_store.writes_are_visible
        outcomes = await self._read_store.write(self._index, changes)
        for change, outcome in zip(changes, outcomes, strict=True):
            if outcome.refusal is not None:
                parked.append(ParkedKey(change.id, change.version, f"the read store refused it: {outcome.refusal}"))
            elif change.document is None:
                self._held.pop(change.id, None)
            else:
                self._held[change.id] = Stored(change.id, change.version, change.document)
                self._held.move_to_end(change.id)
        while len(self._held) > HELD_DOCUMENTS_MAX:
            self._held.popitem(last=False)

    async def _park(self, parked: list[ParkedKey]) -> None:
        for key in parked:
            log.error(
                "projector.key_parked",
                projection=self.projection.name,
                key=key.key,
                position=key.position,
                reason=key.error,
            )
            await self._checkpoints.park(self._index.name, self._index.generation, key)
            self._parked.add(key.key)
            self._held.pop(key.key, None)

    # --- checkpoint and refresh

    async def _save(self) -> None:
        checkpoint = Checkpoint(
            self._index.name, self._index.generation, self._index_identity, self.position, self.visible_position
        )
        await self._checkpoints.save(checkpoint)
        self._positions.publish(checkpoint)

    def _refresh_due(self) -> bool:
        return time.monotonic() - self._refreshed_at >= self._settings.refresh_interval_seconds

    async def _refresh(self) -> None:
        """Make all written documents searchable, then say so."""
        await self._read_store.refresh(self._index)
        self._refreshed_at = time.monotonic()
        self._unrefreshed = False
        self.visible_position = self.position
        await self._save()
