"""The write path, top to bottom: queue → batch → decide → append → reply.

Commands wait in a bounded queue. While one batch is being appended the next one is decided, on what that one will have
changed; when the append is done, all that was decided meanwhile is the next batch. So a lone command leaves at once,
many share a transaction (group commit without added delay: the idea of a database's own log, moved up to the commands),
and the processor works while the disk does. `cqrskit.decisions` runs the handlers,
`cqrskit.appending` makes their decisions durable.

Decisions are made outside the log's lock, on aggregates from memory. That these are current is shown by the append
itself: each stream version and each idempotency key can be taken once. What a batch looked at without appending to it
(above all, what a refusal rests on) is shown to be current by the log's head, or looked up while the head is held. A
batch that fails any of this is decided again while the head is held, and then nothing can change beneath it: a batch
is decided at most twice. While that happens often, batches are decided under the lock at once.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from cqrskit.appending import Appender, undecidable, unplanned
from cqrskit.batch import Batch
from cqrskit.commands import Command, HandlerRegistry
from cqrskit.decisions import Decider
from cqrskit.errors import CommitUnknown, CqrskitError, ServerUnavailable, ShuttingDown
from cqrskit.event_store import EventStore
from cqrskit.events import EventRegistry, Metadata
from cqrskit.metrics import Metrics
from cqrskit.repository import Repository
from cqrskit.settings import Settings
from cqrskit.snapshots import SnapshotCodec, SnapshotSaver
from cqrskit.submissions import CommandQueue, CommandResult, usable_keys
from cqrskit.tasks import end_tasks
from cqrskit.tracing import Tracer, note_phase

__all__ = ["CommandResult", "Executor"]

log = structlog.get_logger(__name__)

BATCH_SIZE_ALONE = 32
"""Of many commands that wait while nothing is being appended, half are decided first, so that their append and the
decisions on the others go side by side; fewer than this are not worth it."""


class Executor:
    """Runs commands against one log. Start it with `start`, end it with `stop`; it belongs to one event loop."""

    def __init__(
        self,
        store: EventStore,
        registry: EventRegistry,
        handlers: HandlerRegistry,
        settings: Settings,
        *,
        snapshots: SnapshotCodec | None = None,
        on_commit: Callable[[], None] | None = None,
        on_due: Callable[[], None] | None = None,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`on_commit` is called after each batch, to wake followers, `on_due` after one with due commands.

        `metrics` count what happens (default: some that nobody sees), `tracer` traces it (default: nobody does).

        `clock` gives aware times.
        """
        self._store = store
        self._handlers = handlers
        self._settings = settings
        self._clock = clock
        self._repository = Repository(
            registry,
            snapshots or SnapshotCodec(()),
            size_max=settings.cached_aggregates_max,
            bytes_max=settings.cached_aggregates_max_bytes,
        )
        self._decider = Decider(
            registry,
            handlers,
            self._repository,
            snapshot_every_events=settings.snapshot_every_events,
            events_max=settings.batch_events_max,
            bytes_max=settings.batch_max_bytes,
        )
        self._metrics = Metrics() if metrics is None else metrics
        self._tracer = tracer
        self._queue = CommandQueue(settings.queue_length_max, settings.command_timeout_seconds, self._metrics, tracer)
        self._metrics.watch_executor(self._queue.__len__, self._repository)
        self._snapshots = SnapshotSaver(store.save_snapshots)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._appending: Batch | None = None
        self._appender = Appender(
            store,
            self._decider,
            self._repository,
            timeout_seconds=settings.command_timeout_seconds,
            on_commit=on_commit,
            on_snapshot=self._snapshots.add,
            on_due=on_due,
            metrics=self._metrics,
            tracer=tracer,
            clock=clock,
        )

    # --- callers

    async def execute(
        self,
        command: Command,
        metadata: Metadata | None = None,
        *,
        key: str | None = None,
        timeout_seconds: float | None = None,
    ) -> CommandResult:
        """Decide one command and wait until its events are durable.

        `key` is an idempotency key, beside the command's own `idempotency_key`: under one key a command takes effect
        once, and a retry gets the first reply or refusal. A command that is not decided within `timeout_seconds`
        (default: the setting `command_timeout_seconds`) is given up.

        Raises Rejected (the domain refused it; IdempotencyConflict: the key belongs to another content), CommandFailed,
        CommitUnknown, DeadlineExceeded, ServerUnavailable, UnknownCommand, InvalidIdempotencyKey, Busy or ShuttingDown.
        After any of these but CommitUnknown nothing was changed.
        """
        self._handlers.handler_of(command)
        wanted_keys = usable_keys(command, key)
        self._require_running()
        result = await self._queue.submit(command, metadata, wanted_keys, timeout_seconds)
        if isinstance(result, CqrskitError):
            raise result
        return result

    async def execute_many(
        self,
        commands: Sequence[Command],
        metadata: Metadata | None = None,
        *,
        keys: Sequence[str | None] | None = None,
        timeout_seconds: float | None = None,
    ) -> list[CommandResult | CqrskitError]:
        """Decide commands in this order, each standing alone, and return their results in the same order.

        `keys` has an idempotency key for each, or None where only the command's own counts. Busy, ShuttingDown,
        UnknownCommand and InvalidIdempotencyKey are raised for all of them, before any is accepted.
        """
        for command in commands:
            self._handlers.handler_of(command)
        given = [None] * len(commands) if keys is None else keys
        wanted_keys = [usable_keys(command, key) for command, key in zip(commands, given, strict=True)]
        self._require_running()
        return await self._queue.submit_many(commands, metadata, wanted_keys, timeout_seconds) if commands else []

    def _require_running(self) -> None:
        if not self.takes_commands:
            raise ShuttingDown

    @property
    def takes_commands(self) -> bool:
        """Whether it was started, and does not stop."""
        return bool(self._tasks) and not self._stopping

    @property
    def queue_length(self) -> int:
        """Commands that wait to be decided."""
        return len(self._queue)

    async def start(self) -> None:
        """Begin to take commands."""
        self._appender.begin(await self._store.head())
        self._tasks = [
            asyncio.create_task(self._run(), name="cqrskit-executor"),
            asyncio.create_task(self._queue.give_up_late_ones(), name="cqrskit-deadlines"),
            asyncio.create_task(self._snapshots.run(), name="cqrskit-snapshots"),
        ]

    def refuse_new(self) -> None:
        """Take no more commands: callers are told ShuttingDown, what was accepted goes on."""
        self._stopping = True
        self._queue.wake.set()

    async def stop(self) -> None:
        """Take no more commands, finish those accepted (up to `shutdown_timeout_seconds`), then return."""
        self.refuse_new()
        if self._tasks:
            await asyncio.wait({self._tasks[0]}, timeout=self._settings.shutdown_timeout_seconds)
        await end_tasks(self._tasks)
        self._queue.refuse_all(ShuttingDown())
        await self._snapshots.finish()

    # --- the loop

    async def _run(self) -> None:
        while True:
            if not self._queue and self._appending is None:
                if self._stopping:
                    return
                self._queue.wake.clear()
                await self._queue.wake.wait()
                continue
            batch = Batch([], after=self._appending)
            try:
                await self._turn(batch)
            except BaseException as error:
                await self._give_up(batch)
                if not isinstance(error, Exception):
                    raise
                log.exception("executor.batch_failed", commands=len(batch.commands))
            self._repository.trim()

    async def _turn(self, batch: Batch) -> None:
        """Decide what comes while the batch before is being appended; then begin to append this one."""
        appending = self._appending
        if appending is None and self._appender.wants_lock():
            await self._appender.process_locked(self._queue.take(self._settings.batch_size_max))
            return
        room = None if appending is not None else max(BATCH_SIZE_ALONE, len(self._queue) // 2)
        failure = await self._decide(batch, room)
        self._queue.decided = batch.commands if appending is not None else ()
        while appending is not None and not appending.done and failure is None:
            if self._queue and self._room_in(batch):
                failure = await self._decide(batch)
            else:
                self._queue.wake.clear()
                await self._queue.wake.wait()
        if appending is not None:
            if not appending.done and appending.appending is not None:
                await asyncio.wait({appending.appending})
            self._appending = batch.after = None
            self._queue.decided = ()
            if appending.failure is not None:
                self._queue.put_back(self._appender.undo(batch))
                batch.commands = []
                await self._appender.recover(appending, appending.failure)
                return
            if failure is None and len(batch.commands) < BATCH_SIZE_ALONE:
                failure = await self._decide(batch, max(BATCH_SIZE_ALONE, len(self._queue) // 2))
        if failure is not None:
            await self._appender.recover(batch, failure)
        elif any(waiting.resolved for waiting in batch.commands):  # told that it is too late: the others go without it
            self._queue.put_back(self._appender.undo(batch))
        elif batch.commands:
            if appending is not None and any(decision.only_looks for decision in batch.decisions):
                # What was loaded before that commit, and taken in after it, has older positions.
                self._repository.committed(appending.positions, self._appender.known_head)
            self._decider.complete(batch)
            batch.appending = asyncio.create_task(self._append(batch), name="cqrskit-append")
            self._appending = batch

    # --- decide

    async def _decide(self, batch: Batch, room: int | None = None) -> CqrskitError | None:
        """Decide what waits, as far as there is room; an error that ends the whole batch is returned."""
        space = self._room_in(batch)
        taken = self._queue.take(space if room is None else min(room, space))
        if taken and not batch.commands:
            batch.presuming = self._appender.may_presume()
        batch.commands += taken
        begun_ns = time.time_ns()
        limit_seconds = self._settings.command_timeout_seconds
        try:
            async with asyncio.timeout(limit_seconds):
                with self._metrics.decide_seconds.time():
                    await self._decider.decide(batch, self._store, now=self._clock(), as_of=self._appender.known_head)
        except CqrskitError as error:
            return error
        except TimeoutError:
            return ServerUnavailable("Postgres", "the event store", f"it did not answer within {limit_seconds:g} s")
        except Exception as error:
            return undecidable(error)
        if self._tracer is not None:
            note_phase((waiting.trace for waiting in taken), "decide", begun_ns)
        self._queue.put_back(batch.leave_undecided())
        return None

    def _room_in(self, batch: Batch) -> int:
        """How many more commands the batch may take."""
        return 0 if batch.full else self._settings.batch_size_max - len(batch.commands)

    # --- append and reply

    async def _append(self, batch: Batch) -> None:
        """Make a batch durable and resolve its callers. A failure is kept for the loop, which knows what comes next."""
        try:
            async with asyncio.timeout(self._settings.command_timeout_seconds):
                with self._metrics.append_seconds.time():
                    await self._appender.append(batch)
        except CqrskitError as error:
            batch.failure = error
        except TimeoutError:
            batch.failure = CommitUnknown()  # a slow server is no fault of a command
        except Exception as error:
            batch.failure = unplanned(error)
        finally:
            batch.done = True
            self._queue.wake.set()

    async def _give_up(self, batch: Batch) -> None:
        """An error that nobody planned: say that the outcome is unknown, and trust nothing in memory."""
        commands = list(batch.commands)
        appending, self._appending = self._appending, None
        if appending is not None and appending.appending is not None:
            await end_tasks([appending.appending])
            commands += appending.commands
        for waiting in commands:
            waiting.resolve(CommitUnknown())
        self._repository.forget_all()
