"""The write path, top to bottom: queue → batch → decide → append → reply.

Commands wait in a bounded queue. While one batch is being committed the next one gathers, so a lone command
leaves at once and many share a transaction: group commit without added delay (the idea of a database's own
log, moved up to the commands). Handlers of a batch run one after another on the same aggregates in memory.

Decisions are made outside the log's lock, on aggregates from memory. Under the lock the executor sees from the
log's head alone whether anybody else has appended since; if so, and only if it touched a stream of this batch,
the batch is decided again, now on aggregates that cannot change. So a batch is decided at most twice.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from cqrskit.aggregate import ProbeStopped, decision_time
from cqrskit.commands import Command, HandlerRegistry, uuids_of
from cqrskit.errors import (
    Busy,
    CommandFailed,
    CommitUnknown,
    CqrskitError,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
    StreamConflict,
)
from cqrskit.event_store import AppendTransaction, EventStore
from cqrskit.events import EventRegistry, Metadata, NewEvent
from cqrskit.repository import MissingAggregate, Repository
from cqrskit.settings import Settings
from cqrskit.submissions import CommandResult, Submission, Waiting
from cqrskit.tasks import end_tasks

__all__ = ["CommandResult", "Executor"]

log = structlog.get_logger(__name__)
encode_json = msgspec.json.Encoder().encode

RETRY_AFTER_SECONDS = 0.5


class _Decision(msgspec.Struct):
    """What one handler decided: its events, and its reply or its refusal."""

    events: list[NewEvent]
    touched: set[UUID]
    reply: Any = None
    error: CqrskitError | None = None


class Executor:
    """Runs commands against one log. Start it with `start`, end it with `stop`; it belongs to one event loop."""

    def __init__(
        self,
        store: EventStore,
        registry: EventRegistry,
        handlers: HandlerRegistry,
        settings: Settings,
        *,
        on_commit: Callable[[], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`on_commit` is called after each batch, to wake followers; `clock` gives aware times."""
        self._store = store
        self._registry = registry
        self._handlers = handlers
        self._settings = settings
        self._on_commit = on_commit
        self._clock = clock
        self._repository = Repository(registry, size_max=settings.cached_aggregates_max)
        self._queue: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._known_head = 0
        self._decided: dict[UUID, list[Any]] = {}

    # --- callers

    async def execute(self, command: Command, metadata: Metadata | None = None) -> CommandResult:
        """Decide one command and wait until its events are durable.

        Raises Rejected (the domain refused it), CommandFailed, CommitUnknown, ServerUnavailable, UnknownCommand,
        Busy or ShuttingDown. After any of these but CommitUnknown nothing was changed.
        """
        (result,) = await self.execute_many((command,), metadata)
        if isinstance(result, CqrskitError):
            raise result
        return result

    async def execute_many(
        self, commands: Sequence[Command], metadata: Metadata | None = None
    ) -> list[CommandResult | CqrskitError]:
        """Decide commands in this order, each standing alone, and return their results in the same order.

        Busy, ShuttingDown and UnknownCommand are raised for all of them, before any is accepted.
        """
        for command in commands:
            self._handlers.handler_of(command)
        if self._stopping or self._task is None:
            raise ShuttingDown
        if len(self._queue) + len(commands) > self._settings.queue_length_max:
            raise Busy(len(self._queue), RETRY_AFTER_SECONDS)
        if not commands:
            return []
        submission = Submission(len(commands), asyncio.get_running_loop().create_future())
        encoded: dict[type[Command], bytes] = {}
        for index, command in enumerate(commands):
            command_class = type(command)
            if command_class not in encoded:
                encoded[command_class] = _encode_metadata(metadata, command_class)
            self._queue.append(Waiting(command, encoded[command_class], submission, index))
        self._wake.set()
        return await submission.future

    @property
    def queue_length(self) -> int:
        """Commands that wait for a batch."""
        return len(self._queue)

    async def start(self) -> None:
        """Begin to take commands."""
        self._known_head = await self._store.head()
        self._task = asyncio.create_task(self._run(), name="cqrskit-executor")

    async def stop(self) -> None:
        """Take no more commands, finish those accepted (up to `shutdown_timeout_seconds`), then return."""
        self._stopping = True
        self._wake.set()
        if self._task is None:
            return
        _, unfinished = await asyncio.wait({self._task}, timeout=self._settings.shutdown_timeout_seconds)
        await end_tasks(unfinished)
        while self._queue:
            self._queue.popleft().resolve(ShuttingDown())
        self._task = None

    # --- the loop

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._stopping:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            batch = self._take_batch()
            try:
                await self._process(batch)
            except BaseException as error:
                self._fail_all(batch, CommitUnknown())
                self._repository.forget_all()
                if not isinstance(error, Exception):
                    raise
                log.exception("executor.batch_failed", commands=len(batch))
            self._repository.trim()

    def _take_batch(self) -> list[Waiting]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), self._settings.batch_size_max))]

    async def _process(self, batch: list[Waiting]) -> None:
        """Decide a batch, commit it and resolve its callers; halve it when the database refuses it."""
        try:
            decisions = await self._decide(batch)
            decisions = await self._commit(batch, decisions)
        except (ServerUnavailable, CommitUnknown) as error:
            self._forget_decided()
            self._fail_all(batch, error)
        except CqrskitError as error:
            self._forget_decided()
            if len(batch) == 1:
                self._fail_all(batch, error)
                return
            middle = len(batch) // 2
            await self._process(batch[:middle])
            await self._process(batch[middle:])
        else:
            self._reply(batch, decisions)

    # --- decide

    async def _decide(self, batch: list[Waiting]) -> list[_Decision]:
        """Run the handlers of a batch in order; load what they miss, for the whole batch in one query."""
        self._decided = {}
        repository = self._repository
        repository.now = self._clock()
        token = decision_time.set(repository.now)
        try:
            wanted: set[UUID] = set()
            for waiting in batch:
                uuids_of(waiting.command, wanted)
            await self._load(repository.missing(wanted))
            decisions: list[_Decision] = []
            while len(decisions) < len(batch):
                missing = self._decide_until_miss(batch, decisions)
                await self._load(missing)
            return decisions
        finally:
            decision_time.reset(token)

    def _decide_until_miss(self, batch: list[Waiting], decisions: list[_Decision]) -> list[UUID]:
        """Add decisions until a handler misses an aggregate; then return what it and all later ones miss."""
        for waiting in batch[len(decisions) :]:
            try:
                decisions.append(self._decide_one(waiting))
            except MissingAggregate as miss:
                return [miss.stream_id, *self._probe(batch[len(decisions) + 1 :], miss.stream_id)]
        return []

    def _decide_one(self, waiting: Waiting) -> _Decision:
        repository = self._repository
        repository.pending.clear()
        touched: set[UUID] = set()
        repository.touched = touched
        command = waiting.command
        error: CqrskitError
        try:
            reply = self._handlers.handler_of(command)(command, repository)
        except MissingAggregate:
            self._undo_pending()
            raise
        except Rejected as rejected:
            error = rejected
        except Exception as unexpected:
            log.exception("executor.handler_failed", command=type(command).__name__)
            error = CommandFailed(type(command).__name__, f"{type(unexpected).__name__}: {unexpected}")
            error.__cause__ = unexpected
        else:
            return _Decision(self._collect(waiting.metadata), touched, reply)
        self._undo_pending()
        return _Decision([], touched, None, error)

    def _collect(self, metadata: bytes) -> list[NewEvent]:
        pending = self._repository.pending
        now = self._repository.now
        events: list[NewEvent] = []
        for _, triggered in pending:
            place = triggered.__dict__
            stream_id = place["originator_id"]
            events.append(
                NewEvent(
                    stream_id,
                    place["originator_version"],
                    triggered.stored_name,
                    self._registry.encode(triggered),
                    metadata,
                    now,
                )
            )
            self._decided.setdefault(stream_id, []).append(triggered)
        pending.clear()
        return events

    def _undo_pending(self) -> None:
        """Forget the aggregates that a failed handler changed; they are rebuilt from the log and this batch."""
        pending = self._repository.pending
        self._repository.forget({triggered.__dict__["originator_id"] for _, triggered in pending})
        pending.clear()

    def _probe(self, rest: Iterable[Waiting], known_miss: UUID) -> set[UUID]:
        """Run handlers only to learn which aggregates they miss; they are stopped before they change one."""
        missing: set[UUID] = set()
        repository = self._repository
        repository.pending.probing = True
        try:
            for waiting in rest:
                try:
                    self._handlers.handler_of(waiting.command)(waiting.command, repository)
                except MissingAggregate as miss:
                    missing.add(miss.stream_id)
                except (ProbeStopped, Exception):
                    continue
        finally:
            repository.pending.probing = False
        missing.discard(known_miss)
        return missing

    async def _load(self, stream_ids: Sequence[UUID]) -> None:
        if not stream_ids:
            return
        self._repository.learn(stream_ids, await self._store.load_streams(stream_ids))
        for stream_id in stream_ids:
            if stream_id in self._decided:
                self._repository.replay(stream_id, self._decided[stream_id])

    def _forget_decided(self) -> None:
        self._repository.forget(self._decided)
        self._decided = {}

    # --- append

    async def _commit(self, batch: list[Waiting], decisions: list[_Decision]) -> list[_Decision]:
        """Make the decisions durable; they may be others than those given, if somebody else appended meanwhile."""
        count = sum(len(decision.events) for decision in decisions)
        if count == 0 and await self._store.head() == self._known_head:
            return decisions
        async with self._store.transaction(count) as transaction:
            if transaction.previous_head != self._known_head:
                decisions = await self._decide_again_if_stale(batch, decisions, transaction)
            events = [event for decision in decisions for event in decision.events]
            try:
                await transaction.append(events)
            except StreamConflict:
                self._repository.forget_all()
                raise
            previous_head = transaction.previous_head
        self._note_positions(decisions, previous_head)
        return decisions

    async def _decide_again_if_stale(
        self, batch: list[Waiting], decisions: list[_Decision], transaction: AppendTransaction
    ) -> list[_Decision]:
        changed = await transaction.changed_streams(self._known_head)
        self._known_head = transaction.previous_head
        if changed is not None and not any(decision.touched & changed for decision in decisions):
            self._repository.forget(changed)
            return decisions
        self._forget_decided()
        if changed is None:
            self._repository.forget_all()
        else:
            self._repository.forget(changed)
        decisions = await self._decide(batch)
        await transaction.resize(sum(len(decision.events) for decision in decisions))
        return decisions

    def _note_positions(self, decisions: list[_Decision], previous_head: int) -> None:
        position = previous_head
        positions: dict[UUID, int] = {}
        for decision in decisions:
            for event in decision.events:
                position += 1
                positions[event.stream_id] = position
        self._repository.committed(positions)
        self._known_head = position

    # --- reply

    def _reply(self, batch: list[Waiting], decisions: list[_Decision]) -> None:
        position = self._known_head - sum(len(decision.events) for decision in decisions)
        for waiting, decision in zip(batch, decisions, strict=True):
            position += len(decision.events)
            if decision.error is not None:
                waiting.resolve(decision.error)
            elif decision.events:
                waiting.resolve(CommandResult(decision.reply, position, True))
            else:
                seen = max(map(self._repository.position_of, decision.touched), default=self._known_head)
                waiting.resolve(CommandResult(decision.reply, seen, False))
        self._decided = {}
        if self._on_commit is not None:
            self._on_commit()

    def _fail_all(self, batch: list[Waiting], error: CqrskitError) -> None:
        for waiting in batch:
            waiting.resolve(error)


def _encode_metadata(metadata: Metadata | None, command_class: type[Command]) -> bytes:
    given = metadata or Metadata()
    return encode_json(msgspec.structs.replace(given, command=given.command or command_class.__name__))
