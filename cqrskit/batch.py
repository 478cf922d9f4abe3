"""A batch: commands that are decided together and appended in one transaction, with what was decided on each."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from cqrskit.errors import CqrskitError, Rejected, StreamConflict, remembered_refusal
from cqrskit.event_store import DueChange, NewBatch, Snapshot
from cqrskit.events import NewEvent
from cqrskit.receipts import NewReceipt, Receipt
from cqrskit.submissions import CommandResult, Waiting

__all__ = ["Batch", "Decision"]


class Decision(msgspec.Struct):
    """What became of one command: its events, and its reply or its refusal.

    `looks` are the streams that it rests on beside those it appends to, with the version that was seen and the head at
    which that was certainly current. `content` and `outcome` are those of a command with a key, and `remembered_under`
    the keys for which receipts are to be written. `replay_of` is the receipt or the decision whose outcome it gets.
    `due` is what it changes of the commands that wait for their time. `contains` are the decisions on commands that it
    contains, which are durable with it. `rests_on` is the position of what other commands were told before and this one
    repeats, None if that has no position yet.
    """

    waiting: Waiting
    now: datetime
    events: list[NewEvent]
    looks: list[tuple[UUID, int, int]]
    reply: Any = None
    error: CqrskitError | None = None
    outcome: bytes | None = None
    content: bytes | None = None
    replay_of: "Receipt | Decision | None" = None
    remembered_under: tuple[str, ...] = ()
    position: int | None = None
    place: int = 0
    due: Sequence[DueChange] = ()
    contains: "Sequence[Decision]" = ()
    rests_on: int | None = 0
    result: Any = None

    @property
    def only_looks(self) -> bool:
        """Whether it was accepted, here and now, and changed nothing."""
        return not self.events and self.error is None and self.replay_of is None

    @property
    def size_bytes(self) -> int:
        """About what is to be written."""
        size = sum([len(event.data) + len(event.metadata) for event in self.events])
        if self.outcome is not None and self.content is not None:
            size += len(self.content) + len(self.outcome)
        if self.due:
            size += sum([len(change.content) + len(change.metadata) for change in self.due])
        return size + sum(each.size_bytes for each in self.contains) if self.contains else size

    def receipts(self) -> list[NewReceipt]:
        """What is to be remembered of it, and of what it contains; its place in the log is known by now."""
        found = []
        if self.remembered_under:
            assert self.content is not None
            outcome, position, place = self._what_is_remembered()
            found = [NewReceipt(key, self.content, outcome, position, place, self.now) for key in self.remembered_under]
        for each in self.contains:
            each.position, each.place = self.position, self.place
            found += each.receipts()
        return found

    def _what_is_remembered(self) -> tuple[bytes, int | None, int]:
        """The outcome with its position, or with its place in the batch that is completed."""
        first = self.replay_of
        if isinstance(first, Receipt):
            return first.outcome, first.position, 0
        if first is not None:
            return first._what_is_remembered()
        assert self.outcome is not None
        position = self.position if self.result is None else self.result.position
        return self.outcome, position, self.place

    def settle(self, previous_head: int) -> Any:
        """Note what the caller is told now that the batch is durable, and what those are who ask again; return it."""
        self.result = self.result_after(previous_head)
        for each in self.contains:
            each.result = each.result_after(previous_head)
        return self.result

    def result_after(self, previous_head: int) -> CommandResult | CqrskitError:
        """What the caller is told when the batch is durable; `result` keeps it for duplicates of the command."""
        if isinstance(self.replay_of, Decision):
            first = self.replay_of.result
            if isinstance(first, Rejected):
                return remembered_refusal(first.code, str(first), first.details, first.position)
            return first if isinstance(first, CqrskitError) else CommandResult(first.reply, first.position, False, True)
        position = previous_head + self.place if self.position is None else self.position
        if self.error is not None:
            if isinstance(self.error, Rejected) and self.remembered_under and self.replay_of is None:
                self.error.position = position
            return self.error
        if self.replay_of is not None:
            return CommandResult(self.reply, self.replay_of.position, False, True)
        return CommandResult(self.reply, position, bool(self.events))


class Batch:
    """Commands that are decided together and appended in one transaction, in this order.

    `after` is the batch that is being appended meanwhile, on whose decisions these rest. `commands` are decided, or
    about to be; a batch that could not be decided as a whole has fewer `decisions`. `done` when its appending has
    ended, and then `failure` says why it is not durable. `new` is what is to be appended, once that is known.
    While `presuming`, what its commands call new is taken to be new (see `cqrskit.decisions`).
    `full` when its events have reached a limit: what is not decided then waits for the next batch.
    """

    def __init__(self, commands: list[Waiting], *, after: "Batch | None" = None) -> None:
        self.commands = commands
        self.after = after
        self.presuming = False
        self.decisions: list[Decision] = []
        self.decided: dict[UUID, list[Any]] = {}
        self.keys: dict[str, Decision] = {}
        self.due_snapshots: set[UUID] = set()
        self.snapshots: list[Snapshot] = []
        self.new: NewBatch | None = None
        self.positions: dict[UUID, int] = {}
        self.append_begun_ns = 0
        self.appending: asyncio.Task[None] | None = None
        self.done = False
        self.failure: CqrskitError | None = None
        self.event_count = 0
        self.size_bytes = 0
        self.full = False

    def leave_undecided(self) -> list[Waiting]:
        """Take out the commands that there was no room for any more; they are for the next batch, in their order."""
        rest = self.commands[len(self.decisions) :]
        del self.commands[len(self.decisions) :]
        return rest

    def looked_at(self) -> dict[UUID, tuple[int, int]]:
        """Streams that were looked at and not appended to, each with the version seen and the head it was current at.

        Only a look at the log tells whether these are current. StreamConflict if a decision saw a stream otherwise than
        those before left it: it was loaded anew meanwhile, and somebody else had changed it.
        """
        if not any(decision.looks for decision in self.decisions):
            return {}
        looked: dict[UUID, tuple[int, int]] = {}
        versions: dict[UUID, int] = {}
        for decision in self.decisions:
            for stream_id, version, as_of in decision.looks:
                looked.setdefault(stream_id, (version, as_of))
                if versions.setdefault(stream_id, version) != version:
                    raise StreamConflict(f"stream {stream_id} was seen in two versions")
            for event in decision.events:
                before = event.stream_version - 1
                if versions.get(event.stream_id, before) != before:
                    raise StreamConflict(f"stream {event.stream_id} was seen in two versions")
                versions[event.stream_id] = event.stream_version
        return {stream_id: seen for stream_id, seen in looked.items() if stream_id not in self.decided}

    def events_of(self, stream_id: UUID) -> Iterator[Any]:
        """Events of a stream that were decided here or in the batch before."""
        for batch in (self.after, self):
            if batch is not None:
                yield from batch.decided.get(stream_id, ())

    def begun(self, stream_id: UUID) -> bool:
        """Whether events of a stream were decided here or in the batch before."""
        return stream_id in self.decided or (self.after is not None and stream_id in self.after.decided)

    def first_with(self, key: str) -> Decision | None:
        """The decision of a command with this key, here or in the batch before."""
        return self.keys.get(key) or (None if self.after is None else self.after.keys.get(key))
