"""Deciding a batch: handlers run one after another on the same aggregates, and nothing is durable yet.

An aggregate that is not in memory stops a handler; what the whole batch misses is then loaded in one query, and those
handlers run again. A handler that fails after it changed an aggregate has its changes undone. A command whose
idempotency key was used before does not run: it gets the first reply.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from cqrskit.aggregate import ProbeStopped, decision_time
from cqrskit.commands import HandlerRegistry, uuids_of
from cqrskit.errors import CommandFailed, CqrskitError, IdempotencyConflict, Rejected, StreamConflict
from cqrskit.event_store import LogReader, NewBatch, Snapshot
from cqrskit.events import EventRegistry, NewEvent
from cqrskit.receipts import NewReceipt, Receipt, ReceiptCodec
from cqrskit.repository import MissingAggregate, Repository
from cqrskit.submissions import CommandResult, Waiting

__all__ = ["Batch", "Decider", "Decision"]

log = structlog.get_logger(__name__)

YIELD_EVERY_COMMANDS = 32
"""So often others get a turn while a batch is decided: above all the append of the batch before."""


class Decision(msgspec.Struct):
    """What became of one command: its events, and its reply or its refusal.

    `touched` are the streams that it rests on, each with the version that was seen and the head at which that was
    certainly current. `content` is that of a command with a key. `replay_of` is the receipt or the decision whose
    outcome it gets.
    """

    waiting: Waiting
    now: datetime
    events: list[NewEvent]
    touched: dict[UUID, tuple[int, int]]
    reply: Any = None
    error: CqrskitError | None = None
    content: bytes | None = None
    replay_of: "Receipt | Decision | None" = None
    remembered: bool = False
    position: int | None = None
    place: int = 0
    result: Any = None

    def result_after(self, previous_head: int) -> CommandResult | CqrskitError:
        """What the caller is told when the batch is durable; `result` keeps it for duplicates of the command."""
        if isinstance(self.replay_of, Decision):
            first = self.replay_of.result
            return first if isinstance(first, CqrskitError) else CommandResult(first.reply, first.position, False, True)
        if self.error is not None:
            return self.error
        if isinstance(self.replay_of, Receipt):
            return CommandResult(self.reply, self.replay_of.position, False, True)
        position = previous_head + self.place if self.position is None else self.position
        return CommandResult(self.reply, position, bool(self.events))


class Batch:
    """Commands that are decided together and appended in one transaction, in this order.

    `after` is the batch that is being appended meanwhile, on whose decisions these rest. `commands` are decided, or
    about to be; a batch that could not be decided as a whole has fewer `decisions`. `done` when its appending has
    ended, and then `failure` says why it is not durable. `new` is what is to be appended, once that is known.
    """

    def __init__(self, commands: list[Waiting], *, after: "Batch | None" = None) -> None:
        self.commands = commands
        self.after = after
        self.decisions: list[Decision] = []
        self.decided: dict[UUID, list[Any]] = {}
        self.keys: dict[str, Decision] = {}
        self.due_snapshots: set[UUID] = set()
        self.snapshots: list[Snapshot] = []
        self.new: NewBatch | None = None
        self.appending: asyncio.Task[None] | None = None
        self.done = False
        self.failure: CqrskitError | None = None

    def looked_at(self) -> dict[UUID, tuple[int, int]]:
        """Streams that were looked at and not appended to, each with the version seen and the head it was current at.

        Only a look at the log tells whether these are current. StreamConflict if a decision saw a stream otherwise than
        those before left it: it was loaded anew meanwhile, and somebody else had changed it.
        """
        looked: dict[UUID, tuple[int, int]] = {}
        versions: dict[UUID, int] = {}
        for decision in self.decisions:
            for stream_id, seen in decision.touched.items():
                if versions.setdefault(stream_id, seen[0]) != seen[0]:
                    raise StreamConflict(f"stream {stream_id} was seen in two versions")
                looked.setdefault(stream_id, seen)
            for event in decision.events:
                versions[event.stream_id] = event.stream_version
        return {stream_id: seen for stream_id, seen in looked.items() if stream_id not in self.decided}

    def events_of(self, stream_id: UUID) -> Iterator[Any]:
        """Events of a stream that were decided here or in the batch before."""
        for batch in (self.after, self):
            if batch is not None:
                yield from batch.decided.get(stream_id, ())

    def first_with(self, key: str) -> Decision | None:
        """The decision of a command with this key, here or in the batch before."""
        return self.keys.get(key) or (None if self.after is None else self.after.keys.get(key))


class Decider:
    """Runs handlers. What it decides changes the repository's aggregates at once; `undo` takes that back."""

    def __init__(
        self,
        registry: EventRegistry,
        handlers: HandlerRegistry,
        repository: Repository,
        *,
        snapshot_every_events: int,
    ) -> None:
        self._registry = registry
        self._handlers = handlers
        self._repository = repository
        self._codec = ReceiptCodec(handlers)
        self._snapshot_every_events = snapshot_every_events

    async def decide(self, batch: Batch, reader: LogReader, *, now: datetime, as_of: int) -> None:
        """Decide the batch's commands that are not decided yet; `as_of` is a head that what `reader` sees contains."""
        commands = batch.commands[len(batch.decisions) :]
        if not commands:
            return
        self._repository.now = now
        token = decision_time.set(now)
        try:
            wanted: set[UUID] = set()
            for waiting in commands:
                uuids_of(waiting.command, wanted)
            keys = [each.key for each in commands if each.key is not None and batch.first_with(each.key) is None]
            receipts = await self._load(batch, wanted, keys, reader, as_of)
            while len(batch.decisions) < len(batch.commands):
                missing = await self._decide_until_miss(batch, receipts)
                await self._load(batch, missing, (), reader, as_of)
        finally:
            decision_time.reset(token)

    def undo(self, batch: Batch) -> None:
        """Forget what the batch changed in memory."""
        self._repository.forget(batch.decided)
        batch.decided = {}
        batch.keys = {}

    def complete(self, batch: Batch) -> NewBatch:
        """Make what is to be appended, once everything is decided and the batch before is durable."""
        place = 0
        places: dict[UUID, int] = {}
        events: list[NewEvent] = []
        receipts: list[NewReceipt] = []
        for decision in batch.decisions:
            if decision.events:
                for event in decision.events:
                    place += 1
                    places[event.stream_id] = place
                events += decision.events
            elif decision.error is None and decision.replay_of is None:
                self._place_looking(decision, places)
            if decision.position is None:
                decision.place = decision.place or place
            if decision.remembered:
                receipts.append(self._receipt_of(decision))
        if batch.due_snapshots:
            batch.snapshots = self._repository.take_snapshots(batch.due_snapshots)
        batch.new = NewBatch(events, receipts)
        return batch.new

    def _place_looking(self, decision: Decision, places: dict[UUID, int]) -> None:
        """A command that changed nothing has the last position of what it looked at, or one after that.

        What was forgotten since, because a later command failed on it, leaves only the batch's own position to be told.
        """
        in_batch = [places[each] for each in decision.touched if each in places]
        if in_batch:
            decision.place = max(in_batch)
        elif decision.touched and all(map(self._repository.known, decision.touched)):
            decision.position = max(map(self._repository.position_of, decision.touched))

    def _receipt_of(self, decision: Decision) -> NewReceipt:
        waiting = decision.waiting
        assert waiting.key is not None
        assert decision.content is not None
        outcome = (
            self._codec.outcome_of_refusal(decision.error)
            if isinstance(decision.error, Rejected)
            else self._codec.outcome_of_reply(decision.reply)
        )
        return NewReceipt(waiting.key, decision.content, outcome, decision.position, decision.place, decision.now)

    # --- one command after another

    async def _decide_until_miss(self, batch: Batch, receipts: dict[str, Receipt]) -> set[UUID]:
        """Add decisions until a handler misses an aggregate; then return what it and all later ones miss."""
        commands = batch.commands[len(batch.decisions) :]
        for number, waiting in enumerate(commands, 1):
            try:
                decision = self._decide(batch, waiting, receipts)
            except MissingAggregate as miss:
                return {miss.stream_id, *self._probe(commands[number:])}
            batch.decisions.append(decision)
            if number % YIELD_EVERY_COMMANDS == 0:
                await asyncio.sleep(0)
        return set()

    def _decide(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt]) -> Decision:
        key = waiting.key
        if key is None:
            return self._run(batch, waiting)
        content = self._codec.content_of(waiting.command)
        first = batch.first_with(key)
        receipt = receipts.get(key)
        before = first.content if first is not None else None if receipt is None else receipt.command
        if before is None:
            decision = self._run(batch, waiting)
            decision.content = content
            decision.remembered = decision.error is None or isinstance(decision.error, Rejected)
            if decision.remembered:
                batch.keys[key] = decision
            return decision
        field = self._codec.differing_field(before, waiting.command, content)
        if field is not None:
            return self._refuse_key(batch, waiting, key, field)
        if first is not None:
            return Decision(waiting, self._repository.now, [], {}, replay_of=first)
        assert receipt is not None
        outcome = self._codec.outcome(receipt, type(waiting.command))
        if isinstance(outcome, Rejected):
            return Decision(waiting, self._repository.now, [], {}, error=outcome, replay_of=receipt)
        return Decision(waiting, self._repository.now, [], {}, reply=outcome, replay_of=receipt)

    def _refuse_key(self, batch: Batch, waiting: Waiting, key: str, field: str) -> Decision:
        """The key belongs to another content; a handler that wants to see this may put another refusal first."""
        refusal: CqrskitError = IdempotencyConflict(key, field)
        touched: dict[UUID, tuple[int, int]] = {}
        handler = self._handlers.handler_of(waiting.command)
        if vars(handler).get("sees_key_conflicts"):
            self._repository.conflicting_field = field
            try:
                decision = self._run(batch, waiting, undoing=True)
            finally:
                self._repository.conflicting_field = None
            touched = decision.touched
            refusal = decision.error or refusal
        return Decision(waiting, self._repository.now, [], touched, error=refusal)

    def _run(self, batch: Batch, waiting: Waiting, *, undoing: bool = False) -> Decision:
        """Run the handler; with `undoing`, take back what it changed whatever comes of it."""
        repository = self._repository
        touched: dict[UUID, tuple[int, int]] = {}
        repository.touched = touched
        command = waiting.command
        reply: Any = None
        error: CqrskitError | None = None
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
        if undoing or error is not None:
            self._undo_pending()
            return Decision(waiting, repository.now, [], touched, None, error)
        return Decision(waiting, repository.now, self._collect(batch, waiting.metadata), touched, reply)

    def _collect(self, batch: Batch, metadata: bytes) -> list[NewEvent]:
        repository = self._repository
        pending, now, decided = repository.pending, repository.now, batch.decided
        encode, every = self._registry.encode, self._snapshot_every_events
        events: list[NewEvent] = []
        for _, triggered in pending:
            place = triggered.__dict__
            stream_id = place["originator_id"]
            version = place["originator_version"]
            events.append(NewEvent(stream_id, version, triggered.stored_name, encode(triggered), metadata, now))
            earlier = decided.get(stream_id)
            if earlier is None:
                decided[stream_id] = [triggered]
            else:
                earlier.append(triggered)
            if version % every == 0:
                batch.due_snapshots.add(stream_id)
        pending.clear()
        return events

    def _undo_pending(self) -> None:
        """Forget the aggregates that a failed handler changed; they are rebuilt from the log and this batch."""
        pending = self._repository.pending
        if pending:
            self._repository.forget({triggered.__dict__["originator_id"] for _, triggered in pending})
            pending.clear()

    def _probe(self, rest: Iterable[Waiting]) -> set[UUID]:
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
        return missing

    async def _load(
        self, batch: Batch, stream_ids: Iterable[UUID], keys: Sequence[str], reader: LogReader, as_of: int
    ) -> dict[str, Receipt]:
        """Load what is not known of these streams, and the receipts of these keys."""
        repository = self._repository
        wanted = repository.versions_to_load(stream_ids)
        if not wanted and not keys:
            return {}
        found = await reader.load(wanted, keys, repository.shapes)
        repository.learn(wanted, found, as_of)
        for stream_id in wanted:
            repository.replay(stream_id, batch.events_of(stream_id))
        return {receipt.key: receipt for receipt in found.receipts}
