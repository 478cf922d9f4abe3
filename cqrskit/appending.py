"""Making a batch durable: append it, tell the callers, and go on when that fails.

What was decided from memory is appended in one statement, which shows by itself that the streams that it appends to
were current. What was only looked at is shown by the log's head, or looked up while the head is held. A batch that was
not current is decided again under the lock; one that the database refuses is halved until the culprit stands alone;
one whose answer was lost is looked for in the log. Whatever happens, each caller gets an answer.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from cqrskit.batch import Batch
from cqrskit.decisions import Decider
from cqrskit.errors import (
    AlreadyThere,
    CommandFailed,
    CommitUnknown,
    CqrskitError,
    DeadlineExceeded,
    ServerUnavailable,
    StreamConflict,
)
from cqrskit.event_store import EventStore, LockedLog, Snapshot
from cqrskit.metrics import Metrics
from cqrskit.repository import Repository
from cqrskit.submissions import Waiting
from cqrskit.tasks import retry_delays
from cqrskit.tracing import Tracer, note_phase

__all__ = ["Appender", "undecidable", "unplanned"]

log = structlog.get_logger(__name__)


class UnplannedFailure(CommitUnknown):
    """An error that nobody planned met an append: the log tells whether the batch is there; another try is vain."""


LOOK_SECONDS_MIN = 1.0
LOCKED_BATCHES_MIN, LOCKED_BATCHES_MAX = 4, 256
CAUTIOUS_BATCHES_MIN, CAUTIOUS_BATCHES_MAX = 8, 1_024

REASONS: Sequence[tuple[type[CqrskitError], str]] = (
    (AlreadyThere, "already_there"),
    (StreamConflict, "conflict"),
    (CommitUnknown, "commit_unknown"),
    (ServerUnavailable, "unavailable"),
    (CommandFailed, "refused"),
)


class Appender:
    """The executor's way into the log, one batch at a time.

    `known_head` is the log's head after the last append. All that was appended after `_alone_since` was appended here.
    `locked_batches` more batches are to be decided under the lock, since others write the same streams, and in
    `cautious_batches` more nothing is to be presumed new, since much of what comes is not.
    """

    def __init__(
        self,
        store: EventStore,
        decider: Decider,
        repository: Repository,
        *,
        timeout_seconds: float,
        on_commit: Callable[[], None] | None,
        on_snapshot: Callable[[Snapshot], None],
        on_due: Callable[[], None] | None,
        metrics: Metrics,
        tracer: Tracer | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._decider = decider
        self._repository = repository
        self._timeout_seconds = timeout_seconds
        self._on_commit = on_commit
        self._on_snapshot = on_snapshot
        self._on_due = on_due
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self.known_head = 0
        self._alone_since = 0
        self.locked_batches = 0
        self._locked_batches_next = LOCKED_BATCHES_MIN
        self.cautious_batches = 0
        self._cautious_batches_next = CAUTIOUS_BATCHES_MIN

    def begin(self, head: int) -> None:
        """The log's head at the start."""
        self.known_head = self._alone_since = head

    def wants_lock(self) -> bool:
        """Whether the next batch is to be decided under the lock; asking counts it."""
        wanted = self.locked_batches > 0
        self.locked_batches -= wanted
        return wanted

    def may_presume(self) -> bool:
        """Whether the next batch may presume that what its commands call new is new; asking counts it."""
        cautious = self.cautious_batches > 0
        self.cautious_batches -= cautious
        return not cautious

    def undo(self, batch: Batch) -> list[Waiting]:
        """Take a batch's decisions back; its commands are to be decided again, or told that nothing happened."""
        self._decider.undo(batch)
        return batch.commands

    async def append(self, batch: Batch) -> None:
        """Make what was decided from memory durable, and tell the callers; StreamConflict if it was not current."""
        batch.append_begun_ns = time.time_ns()
        previous_head = await self._append_unlocked(batch)
        self._committed(batch, previous_head)
        self._locked_batches_next = LOCKED_BATCHES_MIN
        if batch.presuming:
            self._cautious_batches_next = max(self._cautious_batches_next // 2, CAUTIOUS_BATCHES_MIN)

    async def _append_unlocked(self, batch: Batch) -> int:
        """Append what was decided from memory, if that was current; StreamConflict if not. The head before it."""
        assert batch.new is not None, "the batch is complete"
        new = batch.new
        anything = bool(new.events or new.receipts)
        looked_at = batch.looked_at()
        if not looked_at:
            previous_head = await self._store.append(new) if anything else self.known_head
            assert previous_head is not None, "no head was expected"
            return previous_head
        if self._are_current(looked_at):
            expected = self.known_head
            found = await self._store.append(new, expected_head=expected) if anything else await self._store.head()
            if found == expected:
                return found
        async with self._store.locked() as held:
            await self._require_current(looked_at, held)
            if anything:
                await held.append(new)
            return held.previous_head

    def _are_current(self, looked_at: Mapping[UUID, tuple[int, int]]) -> bool:
        """Whether these were seen since anybody but us has appended, as far as we know."""
        return all(as_of >= self._alone_since for _, as_of in looked_at.values())

    async def _require_current(self, looked_at: Mapping[UUID, tuple[int, int]], held: LockedLog) -> None:
        """StreamConflict if one of these is not what the log says: not what is in memory now, but what was seen."""
        found = await held.load({stream_id: version for stream_id, (version, _) in looked_at.items()}, (), ())
        if found.events:
            raise StreamConflict(f"stream {found.events[0].stream_id} has changed")
        kept = {each: 0 for each in looked_at if self._repository.known(each) is not None}
        self._repository.learn(kept, found, held.previous_head)

    async def process_locked(self, commands: list[Waiting]) -> None:
        """Decide and append while the log's head is held: nothing can change meanwhile."""
        try:
            rest = commands
            while rest:
                rest = _still_wanted(await self._process_batch_locked(rest))
        finally:
            _answer_all(commands)

    async def _process_batch_locked(self, commands: list[Waiting]) -> list[Waiting]:
        """Process as many of these as one batch has room for; the others are returned."""
        batch = Batch(list(commands))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                with self._metrics.locked_seconds.time():
                    previous_head = await self._append_locked(batch)
            self._committed(batch, previous_head)
        except TimeoutError:
            if batch.new is None:
                for waiting in self.undo(batch):
                    waiting.resolve(DeadlineExceeded(type(waiting.command).__name__, waiting.timeout_seconds))
            else:
                await self.recover(batch, CommitUnknown(), locked=True)
        except CqrskitError as failure:
            await self.recover(batch, failure, locked=True)
        except Exception as error:
            await self.recover(batch, undecidable(error) if batch.new is None else unplanned(error), locked=True)
        return commands[len(batch.commands) :]

    async def _append_locked(self, batch: Batch) -> int:
        async with self._store.locked() as held:
            if held.previous_head != self.known_head:
                self.known_head = self._alone_since = held.previous_head
            self._repository.required_as_of = self._alone_since
            begun_ns = time.time_ns()
            try:
                await self._decider.decide(batch, held, now=self._clock(), as_of=held.previous_head)
            finally:
                self._repository.required_as_of = 0
            batch.leave_undecided()
            if self._tracer is not None:
                note_phase((waiting.trace for waiting in batch.commands), "decide", begun_ns)
            new = self._decider.complete(batch)
            batch.append_begun_ns = time.time_ns()
            if new.events or new.receipts:
                await held.append(new)
            return held.previous_head

    # --- reply

    def _committed(self, batch: Batch, previous_head: int) -> None:
        """The batch is durable behind this head: note it, and tell the callers."""
        assert batch.new is not None, "the batch is complete"
        self._metrics.batch_commands.observe(len(batch.commands))
        if previous_head != self.known_head:
            self._alone_since = previous_head
        position = previous_head
        positions: dict[UUID, int] = {}
        for event in batch.new.events:
            position += 1
            positions[event.stream_id] = position
        self.known_head = position
        batch.positions = positions
        self._repository.committed(positions, position)
        if self._tracer is not None:
            note_phase((waiting.trace for waiting in batch.commands), "append", batch.append_begun_ns)
        for decision in batch.decisions:
            decision.waiting.resolve(decision.settle(previous_head))
        for snapshot in batch.snapshots:
            self._on_snapshot(msgspec.structs.replace(snapshot, position=positions[snapshot.stream_id]))
        if self._on_commit is not None and positions:
            self._on_commit()
        if batch.new.due and self._on_due is not None:
            self._on_due()

    # --- when it fails

    async def recover(self, batch: Batch, failure: CqrskitError, *, locked: bool = False) -> None:
        """Go on with a batch that failed as a whole, so that each of its commands ends as it would have alone."""
        self._metrics.batch_failures.count(_reason(failure))
        try:
            await self._recover_each(batch, failure, locked=locked)
        finally:
            _answer_all(batch.commands)

    async def _recover_each(self, batch: Batch, failure: CqrskitError, *, locked: bool) -> None:
        if isinstance(failure, CommitUnknown):
            await self._find_out(batch, failure)
        elif isinstance(failure, StreamConflict) and not locked:
            self._become_careful(presumed_wrongly=batch.presuming and isinstance(failure, AlreadyThere))
            await self.process_locked(self.undo(batch))
        elif isinstance(failure, ServerUnavailable) or len(batch.commands) == 1:
            for waiting in self.undo(batch):
                waiting.resolve(failure)
        else:
            await self._decide_in_halves(self.undo(batch))

    def _become_careful(self, *, presumed_wrongly: bool) -> None:
        """For a while, and for longer each time that it happens again."""
        if presumed_wrongly:
            self.cautious_batches = self._cautious_batches_next
            self._cautious_batches_next = min(2 * self._cautious_batches_next, CAUTIOUS_BATCHES_MAX)
        else:
            self.locked_batches = self._locked_batches_next
            self._locked_batches_next = min(2 * self._locked_batches_next, LOCKED_BATCHES_MAX)

    async def _decide_in_halves(self, commands: list[Waiting]) -> None:
        """Decide again, in two batches; those that are too late by now are told that nothing was changed."""
        rest = _still_wanted(commands)
        middle = len(rest) // 2
        await self.process_locked(rest[:middle])
        await self.process_locked(rest[middle:])

    async def _find_out(self, batch: Batch, failure: CommitUnknown) -> None:
        """The answer to a commit was lost: ask the log whether the batch is there, until the callers' deadline."""
        loop = asyncio.get_running_loop()
        until = max(waiting.deadline for waiting in batch.commands)
        log.warning("executor.commit_unknown", commands=len(batch.commands))
        async for _ in retry_delays(until - loop.time()):
            try:
                async with asyncio.timeout(max(until - loop.time(), LOOK_SECONDS_MIN)):
                    previous_head = None if batch.new is None else await self._store.settle(batch.new)
            except (CqrskitError, TimeoutError):
                self._metrics.retries.count("commit_lookup")
                for waiting in batch.commands:
                    if waiting.deadline < loop.time():
                        waiting.resolve(CommitUnknown())
                continue
            if previous_head is not None:
                self._committed(batch, previous_head)
            elif isinstance(failure, UnplannedFailure) and len(batch.commands) == 1:
                (waiting,) = self.undo(batch)
                reason = f"{type(failure.__cause__).__name__}: {failure.__cause__}"
                waiting.resolve(CommandFailed(type(waiting.command).__name__, reason))
            else:
                await self._decide_in_halves(self.undo(batch))
            return
        for waiting in self.undo(batch):
            waiting.resolve(CommitUnknown())


def undecidable(error: Exception) -> CommandFailed:
    """An error outside any handler, as of a stream that cannot be folded: halving finds the command that meets it."""
    log.error("executor.batch_undecidable", exc_info=error)
    failure = CommandFailed("of this batch", f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def unplanned(error: Exception) -> UnplannedFailure:
    """An error that came while a batch was appended: nobody knows what of it is in the log until somebody looks."""
    log.error("executor.append_failed", exc_info=error)
    failure = UnplannedFailure()
    failure.__cause__ = error
    return failure


def _reason(failure: CqrskitError) -> str:
    """The word for why a batch failed, for the metrics."""
    return next((word for kind, word in REASONS if isinstance(failure, kind)), "other")


def _still_wanted(commands: Iterable[Waiting]) -> list[Waiting]:
    """Those that are not too late; the others are told that nothing was changed."""
    now = asyncio.get_running_loop().time()
    for waiting in commands:
        if waiting.deadline < now:
            waiting.resolve(DeadlineExceeded(type(waiting.command).__name__, waiting.timeout_seconds))
    return [waiting for waiting in commands if not waiting.resolved]


def _answer_all(commands: Iterable[Waiting]) -> None:
    """Whatever has happened, nobody is left without an answer; who has one keeps it."""
    for waiting in commands:
        waiting.resolve(CommitUnknown())
