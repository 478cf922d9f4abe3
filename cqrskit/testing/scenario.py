"""Given, when, then: what a command decides, without any server.

::

    Scenario(bank).given(ann, Account.Opened(owner="Ann")).when(Credit(account_id=ann, amount=5)).then(
        ann, Account.Credited(amount=5)
    )

Events go through the application's registry as they would through the log, so what cannot be stored fails here too.
"""

from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import msgspec

from cqrskit.aggregate import Event, decision_time
from cqrskit.application import Application
from cqrskit.commands import Command
from cqrskit.errors import Rejected
from cqrskit.event_store import Found
from cqrskit.events import RecordedEvent
from cqrskit.repository import MissingAggregate, Repository

__all__ = ["Scenario"]


class Scenario:
    """One story about an application: events that happened, commands, and what came of the last one.

    `log` holds all that has happened. After `when`, `reply` is what the handler returned, `refusal` what it raised, and
    `events` what it decided: pairs of stream id and event, in order, which are part of the story from then on.
    """

    def __init__(self, application: Application, *, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """`now` is the time that handlers see."""
        self.reply: Any = None
        self.refusal: Rejected | None = None
        self.events: list[tuple[UUID, Event]] = []
        self.now = now
        self._application = application
        self.log: list[RecordedEvent] = []

    def given(self, stream_id: UUID, *events: Event) -> Self:
        """These events happened in a stream."""
        for event in events:
            self._record(stream_id, event)
        return self

    def given_stored(self, stream_id: UUID, stored_name: str, data: dict[str, Any]) -> Self:
        """An event of an old version happened in a stream: its name in the log and its JSON object there.

        Raises UnknownEventType or EventDecodeError if the application cannot read it.
        """
        version = len(self._stream(stream_id)) + 1
        payload = msgspec.json.encode(data)
        recorded = RecordedEvent(len(self.log) + 1, stream_id, version, stored_name, payload, b"{}", self.now)
        self._application.registry.decode(recorded)
        self.log.append(recorded)
        return self

    def when(self, command: Command) -> Self:
        """Decide a command. What the handler raises other than a refusal comes out here."""
        repository = Repository(
            self._application.registry, self._application.snapshots, size_max=1_000, bytes_max=2**40
        )
        repository.now = self.now
        self.reply, self.refusal, self.events = None, None, []
        token = decision_time.set(self.now)
        try:
            self.reply = self._decide(command, repository)
            self.events = [(triggered.originator_id, triggered) for _, triggered in repository.pending]
        except Rejected as refusal:
            self.refusal = refusal
        finally:
            decision_time.reset(token)
        for stream_id, event in self.events:
            self._record(stream_id, event)
        return self

    def then(self, stream_id: UUID, *events: Event) -> Self:
        """The last command was accepted, and decided exactly these events in this stream."""
        assert self.refusal is None, f"refused: {self.refusal}"
        found = [event for event_stream_id, event in self.events if event_stream_id == stream_id]
        assert found == list(events), f"expected {list(events)}, found {found}"
        return self

    def then_reply(self, reply: object) -> Self:
        """The last command was accepted with this reply."""
        assert self.refusal is None, f"refused: {self.refusal}"
        assert self.reply == reply, f"expected {reply!r}, found {self.reply!r}"
        return self

    def then_nothing(self) -> Self:
        """The last command was accepted and changed nothing."""
        assert self.refusal is None, f"refused: {self.refusal}"
        assert not self.events, f"decided {self.events}"
        return self

    def then_refused(self, refusal: type[Rejected] | str) -> Self:
        """The last command was refused with this class, or this code."""
        assert self.refusal is not None, f"accepted, with {self.events}"
        fits = self.refusal.code == refusal if isinstance(refusal, str) else isinstance(self.refusal, refusal)
        assert fits, f"refused as {self.refusal.code}: {self.refusal}"
        return self

    def _decide(self, command: Command, repository: Repository) -> Any:
        handlers = self._application.handlers
        handler = handlers.handler_of(command)
        repository.decide_contained = lambda each: handlers.handler_of(each)(each, repository)
        while True:
            try:
                return handler(command, repository)
            except MissingAggregate as miss:
                repository.forget({event.originator_id for _, event in repository.pending})
                repository.pending.clear()
                found = Found(self._stream(miss.stream_id), [], [])
                repository.learn({miss.stream_id: 0}, found, len(self.log))

    def _stream(self, stream_id: UUID) -> list[RecordedEvent]:
        return [recorded for recorded in self.log if recorded.stream_id == stream_id]

    def _record(self, stream_id: UUID, event: Event) -> None:
        data = self._application.registry.encode(event)
        self._application.registry.class_of(event.stored_name)
        version = len(self._stream(stream_id)) + 1
        self.log.append(RecordedEvent(len(self.log) + 1, stream_id, version, event.stored_name, data, b"{}", self.now))
