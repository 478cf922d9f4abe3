"""Deciding a batch: handlers run one after another on the same aggregates, and nothing is durable yet.

An aggregate that is not in memory stops a handler; what the whole batch misses is then loaded in one query, and those
handlers run again. A handler that fails after it changed an aggregate has its changes undone. A command whose
idempotency key was used before does not run: it gets the first reply.

A batch may presume that keys are new, and so are the aggregates that its commands call new: then nothing is loaded for
them. Where a command is accepted, the append shows whether that was so, since each key and each first version can be
taken once; if it was not, the batch is decided again without presuming. Where a decision rests on a presumption that no
append will show (a refusal does), everything is looked up before the command is decided.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from cqrskit.aggregate import ProbeStopped, decision_time
from cqrskit.batch import Batch, Decision
from cqrskit.commands import HandlerRegistry, uuids_of
from cqrskit.contained import ContainedCommands
from cqrskit.errors import CommandFailed, CqrskitError, IdempotencyConflict, Rejected
from cqrskit.event_store import DueChange, LogReader, NewBatch
from cqrskit.events import EventRegistry, Metadata, NewEvent
from cqrskit.loading import Loader
from cqrskit.receipts import NewReceipt, Receipt, ReceiptCodec
from cqrskit.repository import PRESUMED, MissingAggregate, Repository, Unproven
from cqrskit.scheduling import due_changes
from cqrskit.submissions import Waiting
from cqrskit.telemetry import correlated

__all__ = ["Decider"]

log = structlog.get_logger(__name__)

STREAMS_MAX = 20_000
"""So many streams, and those of one command more, are loaded for a batch before its first commands are decided."""
YIELD_EVERY_COMMANDS = 32
"""So often others get a turn while a batch is decided: above all the append of the batch before."""


class Decider:
    """Runs handlers. What it decides changes the repository's aggregates at once; `undo` takes that back."""

    def __init__(
        self,
        registry: EventRegistry,
        handlers: HandlerRegistry,
        repository: Repository,
        *,
        snapshot_every_events: int,
        events_max: int,
        bytes_max: int,
    ) -> None:
        """A batch is full once its decisions have made `events_max` events, or `bytes_max` bytes to be written."""
        self._registry = registry
        self._handlers = handlers
        self._repository = repository
        self._loader = Loader(repository)
        self._codec = ReceiptCodec(handlers)
        self._contained = ContainedCommands(handlers, self._codec, repository)
        self._snapshot_every_events = snapshot_every_events
        self._events_max = events_max
        self._bytes_max = bytes_max

    async def decide(self, batch: Batch, reader: LogReader, *, now: datetime, as_of: int) -> None:
        """Decide the batch's commands that are not decided yet, until it is full.

        `as_of` is a head that what `reader` sees contains.
        """
        if len(batch.decisions) == len(batch.commands):
            return
        self._repository.now = now
        token = decision_time.set(now)
        try:
            while len(batch.decisions) < len(batch.commands) and not batch.full:
                await self._decide_portion(batch, reader, as_of)
        finally:
            decision_time.reset(token)

    async def _decide_portion(self, batch: Batch, reader: LogReader, as_of: int) -> None:
        """Decide the next commands, so many that what they name is not too much to have in memory at once."""
        repository = self._repository
        until = len(batch.decisions)
        wanted: set[UUID] = set()
        while until < len(batch.commands) and len(wanted) < STREAMS_MAX:
            uuids_of(batch.commands[until].command, wanted)
            until += 1
        commands = batch.commands[len(batch.decisions) : until]
        if not batch.presuming:
            await self._decide_looked_up(batch, commands, wanted, reader, as_of)
            return
        new = {each for waiting in commands for each in waiting.command.new_ids() if not batch.begun(each)}
        await self._load(batch, wanted - new, (), reader, as_of)
        repository.presume_absent(new)
        repository.required_as_of = PRESUMED
        try:
            await self._decide_all(batch, commands, {}, reader, as_of)
        except Unproven:
            repository.required_as_of = 0
            rest = batch.commands[len(batch.decisions) : until]
            await self._decide_looked_up(batch, rest, wanted, reader, as_of)
        finally:
            repository.required_as_of = 0

    async def _decide_looked_up(
        self, batch: Batch, commands: list[Waiting], wanted: set[UUID], reader: LogReader, as_of: int
    ) -> None:
        """Decide commands after a look at what they name, and at the receipts of their keys."""
        keys = [
            key
            for waiting in commands
            for key in waiting.keys + waiting.contained_keys
            if batch.first_with(key) is None
        ]
        receipts = await self._load(batch, wanted, keys, reader, as_of)
        await self._decide_all(batch, commands, receipts, reader, as_of)

    async def _decide_all(
        self, batch: Batch, commands: list[Waiting], receipts: dict[str, Receipt], reader: LogReader, as_of: int
    ) -> None:
        """Decide commands, loading what they turn out to need; until the batch is full. Raises Unproven."""
        rest = commands
        while rest and not batch.full:
            before = len(batch.decisions)
            missing = await self._decide_until_miss(batch, rest, receipts)
            rest = rest[len(batch.decisions) - before :]
            await self._load(batch, missing, (), reader, as_of)

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
        due: dict[str, DueChange] = {}
        anybody_looks = any(decision.only_looks for decision in batch.decisions)
        for decision in batch.decisions:
            if decision.events:
                if anybody_looks:
                    places |= {event.stream_id: number for number, event in enumerate(decision.events, place + 1)}
                place += len(decision.events)
                events += decision.events
            elif decision.only_looks:
                self._place_looking(decision, places)
            for change in decision.due:
                due[change.key] = change
            if decision.position is None:
                decision.place = decision.place or place
            if decision.remembered_under or decision.contains:
                receipts += decision.receipts()
        if batch.due_snapshots:
            batch.snapshots = self._repository.take_snapshots(batch.due_snapshots)
        batch.new = NewBatch(events, receipts, list(due.values()))
        return batch.new

    def _place_looking(self, decision: Decision, places: dict[UUID, int]) -> None:
        """A command that changed nothing has the last position of what it looked at, or one after that.

        What was forgotten since, because a later command failed on it, leaves only the batch's own position to be told.
        """
        looked_at = [stream_id for stream_id, _, _ in decision.looks]
        in_batch = [places[each] for each in looked_at if each in places]
        if decision.rests_on is None:
            return
        if in_batch:
            decision.place = max(in_batch)
        elif (looked_at or decision.rests_on) and all(map(self._repository.known, looked_at)):
            decision.position = max(decision.rests_on, *map(self._repository.position_of, looked_at), 0)

    # --- one command after another

    async def _decide_until_miss(
        self, batch: Batch, commands: list[Waiting], receipts: dict[str, Receipt]
    ) -> set[UUID]:
        """Add decisions until a handler misses an aggregate; then return what it and all later ones miss."""
        for number, waiting in enumerate(commands, 1):
            self._repository.touched = []
            try:
                decision = self._decide_or_fail(batch, waiting, receipts)
            except MissingAggregate as miss:
                changed = self._undo_pending()
                return {miss.stream_id, *changed, *self._probe(commands[number:])}
            except Unproven:
                self._undo_pending()
                raise
            self._take(batch, decision)
            if batch.full:
                break
            if number % YIELD_EVERY_COMMANDS == 0:
                await asyncio.sleep(0)
        return set()

    def _take(self, batch: Batch, decision: Decision) -> None:
        """Add a decision to the batch, which may be full then. Only now do later commands find it by its keys."""
        batch.decisions.append(decision)
        for key in decision.remembered_under:
            batch.keys[key] = decision
        for each in decision.contains:
            batch.keys.update(dict.fromkeys(each.remembered_under, each))
        batch.event_count += len(decision.events)
        batch.size_bytes += decision.size_bytes
        batch.full = batch.event_count >= self._events_max or batch.size_bytes >= self._bytes_max

    def _decide_or_fail(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt]) -> Decision:
        try:
            decision = self._decide(batch, waiting, receipts)
        except Exception as unexpected:
            self._require_proof(batch, waiting, ())
            return self._failed(waiting, unexpected)
        written: Collection[str] = decision.remembered_under
        if decision.contains:
            written = {*written, *(key for each in decision.contains for key in each.remembered_under)}
        self._require_proof(batch, waiting, written)
        return decision

    def _require_proof(self, batch: Batch, waiting: Waiting, written: Collection[str]) -> None:
        """Unproven if a key that was not looked up is neither to be written nor that of a command just decided.

        That is so of refusals and failures only, which have changed nothing: what is accepted writes all its keys.
        """
        if self._repository.required_as_of != PRESUMED or (written == waiting.keys and not waiting.contained_keys):
            return
        keys = waiting.keys + waiting.contained_keys
        if any(key not in written and batch.first_with(key) is None for key in keys):
            raise Unproven

    def _failed(self, waiting: Waiting, unexpected: Exception) -> Decision:
        """The handler raised what it should not, or what it decided cannot be stored: this command fails, alone."""
        looks = self._repository.looks(accepted=False)
        name = type(waiting.command).__name__
        with correlated(msgspec.json.decode(waiting.metadata, type=Metadata).correlation_id):
            log.error("executor.handler_failed", command=name, exc_info=unexpected)
        error = CommandFailed(name, f"{type(unexpected).__name__}: {unexpected}")
        error.__cause__ = unexpected
        self._undo_pending()
        return Decision(waiting, self._repository.now, [], looks, error=error)

    def _decide(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt]) -> Decision:
        if not waiting.keys:
            return self._run(batch, waiting, receipts)
        content = self._codec.content_of(waiting.command)
        first: Decision | Receipt | None = None
        conflict: tuple[str, str] | None = None
        for key in waiting.keys:
            known = batch.first_with(key) or receipts.get(key)
            if known is None:
                continue
            before = known.command if isinstance(known, Receipt) else known.content
            assert before is not None
            field = self._codec.differing_field(before, waiting.command, content)
            if field is None:
                first = first or known
            else:
                conflict = conflict or (key, field)
        if conflict is not None and (first is None or conflict[0] != waiting.keys[0]):
            return self._refuse_key(batch, waiting, receipts, conflict)
        if first is not None:
            new_keys = self._new_keys(batch, waiting, receipts)
            # Where its own key is new, another content of it was forgotten since, which had another outcome.
            return self._replay(waiting, first, content, tuple(each for each in new_keys if each != waiting.keys[0]))
        decision = self._run(batch, waiting, receipts)
        if decision.outcome is not None:
            decision.content = content
            decision.remembered_under = waiting.keys
        return decision

    def _new_keys(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt]) -> tuple[str, ...]:
        return tuple(each for each in waiting.keys if each not in receipts and batch.first_with(each) is None)

    def _replay(
        self, waiting: Waiting, first: Decision | Receipt, content: bytes, new_keys: tuple[str, ...]
    ) -> Decision:
        """The outcome of then; a key of the command that is new is remembered with it from now on."""
        decision = Decision(waiting, self._repository.now, [], [], content=content, replay_of=first)
        if isinstance(first, Receipt):
            outcome = self._codec.outcome(first, type(waiting.command))
            decision.error, decision.reply = (outcome, None) if isinstance(outcome, Rejected) else (None, outcome)
        decision.remembered_under = new_keys
        return decision

    def _refuse_key(
        self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt], conflict: tuple[str, str]
    ) -> Decision:
        """The key belongs to another content; a handler that wants to see this may put another refusal first.

        What such a handler refuses with may be another thing later, so it is kept under the caller's own key, if there
        is one. That the key belongs to another content is not: it stays so for as long as that is kept.
        """
        key, field = conflict
        refusal: CqrskitError = IdempotencyConflict(key, field)
        looks: list[tuple[UUID, int, int]] = []
        handler = self._handlers.handler_of(waiting.command)
        if vars(handler).get("sees_key_conflicts") and key == waiting.keys[0]:
            self._repository.conflicting_field = field
            try:
                decision = self._run(batch, waiting, receipts, undoing=True)
            finally:
                self._repository.conflicting_field = None
            looks = decision.looks
            refusal = decision.error or refusal
        decision = Decision(waiting, self._repository.now, [], looks, error=refusal)
        if key == waiting.keys[0] and isinstance(refusal, Rejected) and not isinstance(refusal, IdempotencyConflict):
            decision.content = self._codec.content_of(waiting.command)
            decision.outcome = self._codec.outcome_of_refusal(refusal)
            decision.remembered_under = self._new_keys(batch, waiting, receipts)
        return decision

    def _run(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt], *, undoing: bool = False) -> Decision:
        """Run the handler; with `undoing`, take back what it changed whatever comes of it."""
        repository = self._repository
        command = waiting.command
        self._contained.begin(batch, waiting, receipts)
        try:
            reply = self._handlers.handler_of(command)(command, repository)
        except Rejected as refusal:
            looks = repository.looks(accepted=False)
            self._undo_pending()
            outcome = self._codec.outcome_of_refusal(refusal) if waiting.keys else None
            return Decision(waiting, repository.now, [], looks, error=refusal, outcome=outcome)
        looks = repository.looks(accepted=not undoing)
        if undoing:
            self._undo_pending()
            return Decision(waiting, repository.now, [], looks)
        if waiting.contained_keys:
            self._contained.require_whole()
        outcome = self._codec.outcome_of_reply(reply) if waiting.keys else None
        due = due_changes(repository, self._handlers, waiting) if repository.scheduled else ()
        events = self._collect(batch, waiting.metadata)
        decision = Decision(waiting, repository.now, events, looks, reply, None, outcome, due=due)
        if waiting.contained_keys:
            self._contained.add_to(decision)
        return decision

    def _collect(self, batch: Batch, metadata: bytes) -> list[NewEvent]:
        """Take the handler's events into the batch; all of them are encoded first, since that may fail."""
        pending, now, decided = self._repository.pending, self._repository.now, batch.decided
        encode, every = self._registry.encode, self._snapshot_every_events
        events: list[NewEvent] = []
        for _, triggered in pending:
            place = triggered.__dict__
            data = encode(triggered)
            version = place["originator_version"]
            events.append(NewEvent(place["originator_id"], version, triggered.stored_name, data, metadata, now))
        for (_, triggered), event in zip(pending, events, strict=True):
            stream_id = event.stream_id
            earlier = decided.get(stream_id)
            if earlier is None:
                decided[stream_id] = [triggered]
            else:
                earlier.append(triggered)
            if event.stream_version % every == 0:
                batch.due_snapshots.add(stream_id)
        pending.clear()
        return events

    def _undo_pending(self) -> set[UUID]:
        """Forget, and name, the aggregates that a handler changed in vain; they are loaded and replayed again."""
        pending = self._repository.pending
        self._repository.scheduled = []
        changed = {triggered.__dict__["originator_id"] for _, triggered in pending}
        if changed:
            self._repository.forget(changed)
            pending.clear()
        return changed

    def _probe(self, rest: Iterable[Waiting]) -> set[UUID]:
        """Run handlers only to learn which aggregates they miss; they are stopped before they change one."""
        missing: set[UUID] = set()
        repository = self._repository
        repository.touched = []
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
        return await self._loader.load(stream_ids, keys, reader, as_of=as_of, undurable=batch.events_of)
