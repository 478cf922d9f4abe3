"""Tracing, without knowing by what: the port, and how a command and a block of events are shown by it.

`cqrskit.opentelemetry` is the adapter. Where nobody traces there is no tracer, and all of this costs one comparison.
A place in a trace is a ``traceparent`` of W3C Trace Context; events carry the one of the command that made them
(`Metadata.trace_parent`), so that whoever works on them later goes on with its trace.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from cqrskit.spans import (
    COMMAND_NAME,
    COMMAND_OUTCOME,
    COMMAND_POSITION,
    COMMAND_REFUSAL,
    DB_BATCH_SIZE,
    DB_OPERATION,
    DB_SYSTEM,
    EVENTS_COUNT,
    PARTITION,
    PROJECTION_NAME,
)

__all__ = ["BlockTrace", "CommandTrace", "Span", "Tracer", "is_sampled", "note_phase"]

Attributes = Mapping[str, str | int]
Kind = Literal["server", "internal", "client", "consumer"]
NO_ATTRIBUTES: Attributes = {}
LINKS_MAX = 32
"""To so many commands the span of a block refers at most."""
UNWANTED = frozenset({"failed", "unknown", "late", "unavailable", "busy", "shutting_down"})
"""Outcomes of commands that are errors in a trace. A refusal is none: the domain has answered."""


class Span(Protocol):
    """Some work that has begun. `trace_parent` is its place, also where nobody records it."""

    @property
    def trace_parent(self) -> str:
        """What work that it leads to goes on from."""

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see it; False where the sampler has left its trace out."""

    def rename(self, name: str) -> None:
        """Give it the name that was not known when it began."""

    def phase(
        self,
        name: str,
        begun_ns: int,
        ended_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> None:
        """A part of it that has ended, as a span of its own. Times are nanoseconds of the wall clock."""

    def end(self, attributes: Attributes = NO_ATTRIBUTES, *, error: str | None = None) -> None:
        """It is done; `error` is the kind of error that it ended in, never its message, which may hold anything."""


class Tracer(Protocol):
    """Begins spans. None of its methods raises: what goes wrong with tracing harms nothing else."""

    def begin(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None = None,
        parent_state: str | None = None,
        links: Sequence[str] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        begun_ns: int | None = None,
    ) -> Span | None:
        """Begin a span: of the parent's trace, or of a new one. `parent_state` is the parent's ``tracestate``."""

    def current(self) -> str | None:
        """The place in a trace that this task is at, if it is in one."""

    def as_current(self, span: Span) -> AbstractContextManager[None]:
        """Let this task be at the span as long as the context."""


class CommandTrace:
    """One command's span, from the queue to its outcome, with its phases."""

    def __init__(self, tracer: Tracer, command: str, parent: str | None) -> None:
        """`parent` counts where the task that gives the command is in no trace."""
        self._since_ns = time.time_ns()
        self.span = tracer.begin(
            f"command {command}",
            "internal",
            parent=tracer.current() or parent,
            attributes={COMMAND_NAME: command},
            begun_ns=self._since_ns,
        )

    def waits(self) -> None:
        """It is in the queue again."""
        self._since_ns = time.time_ns()

    def taken(self, at_ns: int) -> None:
        """It has left the queue."""
        if self.span is not None:
            self.span.phase("queue", self._since_ns, at_ns)

    def end(self, outcome: str, *, position: int | None, refusal: str | None, error: str | None) -> None:
        """Its outcome is known: the words are those of the metrics; `error` is the type of an error that is one."""
        if self.span is None:
            return
        attributes: dict[str, str | int] = {COMMAND_OUTCOME: outcome}
        if position is not None:
            attributes[COMMAND_POSITION] = position
        if refusal is not None:
            attributes[COMMAND_REFUSAL] = refusal
        self.span.end(attributes, error=error if outcome in UNWANTED else None)


def note_phase(traces: Iterable[CommandTrace | None], phase: Literal["decide", "append"], begun_ns: int) -> None:
    """A phase that commands went through together has ended now."""
    ended_ns = time.time_ns()
    spans = [trace.span for trace in traces if trace is not None and trace.span is not None]
    for span in spans:
        if phase == "append":
            attributes: Attributes = {DB_SYSTEM: "postgresql", DB_OPERATION: "append", DB_BATCH_SIZE: len(spans)}
            span.phase(phase, begun_ns, ended_ns, kind="client", attributes=attributes)
        else:
            span.phase(phase, begun_ns, ended_ns)


class _Traced(msgspec.Struct):
    trace_parent: str | None = None


_decode = msgspec.json.Decoder(_Traced).decode
_PLACE = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def is_sampled(trace_parent: str) -> bool:
    """Whether a trace is recorded: the lowest bit of its flags. False for what is no ``traceparent``.

    Headers are checked when they come in; what Python code put into the log may be anything.
    """
    return _PLACE.fullmatch(trace_parent) is not None and int(trace_parent[-2:], 16) & 1 == 1


class BlockTrace:
    """The span of events that are folded and written together.

    It goes on from the first of the commands that made them, and is linked to the others; there is none where no
    command's trace is recorded.
    """

    def __init__(self, tracer: Tracer, projection: str, partition: int, store: str) -> None:
        """They belong to a partition of a projection, whose documents are in `store`, as OpenTelemetry names it."""
        self._tracer = tracer
        self._projection = projection
        self._partition = partition
        self._store = store
        self._begun_ns = self._folded_ns = time.time_ns()
        self._commands: dict[str, None] = {}
        self._last = b""

    def folds(self, metadata: Iterable[bytes]) -> None:
        """Events with this metadata are folded."""
        for each in metadata:
            if each == self._last or len(self._commands) > LINKS_MAX:
                continue
            self._last = each
            found = _decode(each).trace_parent
            if found is not None and is_sampled(found):
                self._commands[found] = None

    def folded(self) -> None:
        """All are folded."""
        self._folded_ns = time.time_ns()

    def written(self, write_begun_ns: int, *, events: int, documents: int) -> None:
        """They are durable, in so many documents."""
        if not self._commands:
            return
        first, *others = self._commands
        span = self._tracer.begin(
            f"project {self._projection}",
            "consumer",
            parent=first,
            links=others[:LINKS_MAX],
            attributes={PROJECTION_NAME: self._projection, PARTITION: self._partition, EVENTS_COUNT: events},
            begun_ns=self._begun_ns,
        )
        if span is None:
            return
        span.phase("fold", self._begun_ns, self._folded_ns)
        attributes: Attributes = {DB_SYSTEM: self._store, DB_OPERATION: "write", DB_BATCH_SIZE: documents}
        span.phase("write", write_begun_ns, time.time_ns(), kind="client", attributes=attributes)
        span.end()
