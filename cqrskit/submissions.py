"""Commands on their way to the executor, and the results on their way back to whoever gave them."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec

from cqrskit.collectors import Counts
from cqrskit.commands import Command
from cqrskit.errors import (
    Busy,
    CommandFailed,
    CommitUnknown,
    CqrskitError,
    DeadlineExceeded,
    InvalidIdempotencyKey,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
)
from cqrskit.events import Metadata
from cqrskit.metrics import Metrics
from cqrskit.tracing import CommandTrace, Tracer

__all__ = [
    "KEY_LENGTH_MAX",
    "CommandQueue",
    "CommandResult",
    "SingleSubmission",
    "Submission",
    "Waiting",
    "usable_keys",
]

RETRY_AFTER_SECONDS = 0.5
LOOK_FOR_DEADLINES_SECONDS = 0.25
KEY_LENGTH_MAX = 255

encode_json = msgspec.json.Encoder().encode


class CommandResult(msgspec.Struct, frozen=True, gc=False):
    """What a handler returned, and the position at which a reader sees everything that it rests on.

    For a command that appended events this is the position of the last of them; for one that changed nothing,
    the last position of the aggregates it looked at. `appended` tells which. `replayed`: the command's idempotency key
    was used before for the same command, and this is the reply of then.
    """

    reply: Any
    position: int
    appended: bool
    replayed: bool = False


class Submission:
    """Commands that were given to the executor together, and the future that resolves with all their results."""

    __slots__ = ("future", "remaining", "results")

    def __init__(self, count: int, future: "asyncio.Future[list[CommandResult | CqrskitError]]") -> None:
        self.results: list[Any] = [None] * count
        self.remaining = count
        self.future = future

    def resolve(self, index: int, result: CommandResult | CqrskitError) -> None:
        """Take one result; the last one resolves the future."""
        self.results[index] = result
        self.remaining -= 1
        if self.remaining == 0 and not self.future.done():
            self.future.set_result(self.results)


class SingleSubmission:
    """One command that was given to the executor, and the future that resolves with its result."""

    __slots__ = ("future",)

    def __init__(self, future: "asyncio.Future[CommandResult | CqrskitError]") -> None:
        self.future = future

    def resolve(self, _: int, result: CommandResult | CqrskitError) -> None:
        """Take the result."""
        if not self.future.done():
            self.future.set_result(result)


class Waiting(msgspec.Struct, gc=False):
    """One command in the queue. `deadline` is on the event loop's clock, `timeout_seconds` what it was made of.

    `keys` are its idempotency keys: the command's own, the one given for it, both, or none. `contained_keys` are those
    of the commands that it contains.
    """

    command: Command
    metadata: bytes
    keys: tuple[str, ...]
    deadline: float
    timeout_seconds: float
    submission: Any
    index: int
    outcomes: Counts
    contained_keys: tuple[str, ...] = ()
    trace: CommandTrace | None = None
    resolved: bool = False

    def resolve(self, result: CommandResult | CqrskitError) -> None:
        """Take the result; only the first one counts."""
        if not self.resolved:
            self.resolved = True
            outcome = _outcome(result)
            self.outcomes.count(type(self.command).__name__, outcome)
            if self.trace is not None:
                _end_trace(self.trace, outcome, result)
            self.submission.resolve(self.index, result)


class CommandQueue:
    """Commands that wait to be decided: at most `length_max`, each until its deadline. `wake` is set when one comes.

    `decided` are those that were decided already and wait until they can be appended, so that they can be given up too.
    """

    def __init__(self, length_max: int, timeout_seconds: float, metrics: Metrics, tracer: Tracer | None) -> None:
        """`timeout_seconds` is how long a command waits whose caller does not say."""
        self._tracer = tracer
        self._outcomes = metrics.outcomes
        self._queue_seconds = metrics.queue_seconds
        self.wake = asyncio.Event()
        self.decided: Sequence[Waiting] = ()
        self._timeout_seconds = timeout_seconds
        self._length_max = length_max
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(
        self, command: Command, metadata: Metadata | None, keys: tuple[str, ...], timeout_seconds: float | None
    ) -> "asyncio.Future[CommandResult | CqrskitError]":
        """Take this command, or raise Busy or InvalidIdempotencyKey; the future gives its result."""
        self._require_room((command,))
        contained = contained_keys_of(command, keys)
        loop = asyncio.get_running_loop()
        submission = SingleSubmission(loop.create_future())
        wait_seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        waiting = Waiting(
            command,
            b"",
            keys,
            loop.time() + wait_seconds,
            wait_seconds,
            submission,
            0,
            self._outcomes,
            contained,
        )
        if self._tracer is None:
            waiting.metadata = _encode_metadata(metadata, type(command))
        else:
            self._trace(self._tracer, waiting, metadata)
        self._waiting.append(waiting)
        self.wake.set()
        return submission.future

    def submit_many(
        self,
        commands: Sequence[Command],
        metadata: Metadata | None,
        keys: Sequence[tuple[str, ...]],
        timeout_seconds: float | None,
    ) -> "asyncio.Future[list[CommandResult | CqrskitError]]":
        """Take all of these commands, or raise Busy or InvalidIdempotencyKey; the future gives their results."""
        self._require_room(commands)
        contained = list(map(contained_keys_of, commands, keys))
        loop = asyncio.get_running_loop()
        submission = Submission(len(commands), loop.create_future())
        wait_seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        deadline = loop.time() + wait_seconds
        encoded = {each: _encode_metadata(metadata, each) for each in {type(command) for command in commands}}
        for index, command in enumerate(commands):
            waiting = Waiting(
                command,
                encoded[type(command)],
                keys[index],
                deadline,
                wait_seconds,
                submission,
                index,
                self._outcomes,
                contained[index],
            )
            if self._tracer is not None:
                self._trace(self._tracer, waiting, metadata)
            self._waiting.append(waiting)
        self.wake.set()
        return submission.future

    def _trace(self, tracer: Tracer, waiting: Waiting, metadata: Metadata | None) -> None:
        """Begin a command's span; its events say that they come from there."""
        command_class = type(waiting.command)
        metadata = metadata or Metadata()
        trace = CommandTrace(tracer, command_class.__name__, metadata.trace_parent)
        if trace.span is not None:
            metadata = msgspec.structs.replace(metadata, trace_parent=trace.span.trace_parent)
            waiting.trace = trace if trace.span.is_recorded else None
        waiting.metadata = _encode_metadata(metadata, command_class)

    def _require_room(self, commands: Sequence[Command]) -> None:
        if len(self._waiting) + len(commands) > self._length_max:
            for command in commands:
                self._outcomes.count(type(command).__name__, "busy")
            raise Busy(len(self._waiting), RETRY_AFTER_SECONDS)

    def take(self, count: int) -> list[Waiting]:
        """The next commands that somebody still waits for; those that are too late are told so."""
        waiting = self._waiting
        if not waiting:
            return []
        now = asyncio.get_running_loop().time()
        self._queue_seconds.observe(max(now - waiting[0].deadline + waiting[0].timeout_seconds, 0.0))
        taken: list[Waiting] = []
        while waiting and len(taken) < count:
            next_one = waiting.popleft()
            if next_one.deadline < now:
                _give_up(next_one)
            elif not next_one.resolved and not next_one.submission.future.done():
                taken.append(next_one)
        if self._tracer is not None:
            at_ns = time.time_ns()
            for each in taken:
                if each.trace is not None:
                    each.trace.taken(at_ns)
        return taken

    def put_back(self, commands: Iterable[Waiting]) -> None:
        """Let commands that were taken be the next ones again, in their order."""
        again = list(commands)
        self._waiting.extendleft(reversed(again))
        if self._tracer is not None:
            for each in again:
                if each.trace is not None:
                    each.trace.waits()

    async def give_up_late_ones(self) -> None:
        """Tell callers whose commands wait longer than they would, also while nothing moves; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_FOR_DEADLINES_SECONDS)
            now = loop.time()
            for waiting in chain(self._waiting, self.decided):
                if waiting.deadline < now:
                    _give_up(waiting)

    def refuse_all(self, error: CqrskitError) -> None:
        """End the wait of all that are left."""
        while self._waiting:
            self._waiting.popleft().resolve(error)


OUTCOMES: Sequence[tuple[type[CqrskitError], str]] = (
    (Rejected, "refused"),
    (CommandFailed, "failed"),
    (CommitUnknown, "unknown"),
    (DeadlineExceeded, "late"),
    (ServerUnavailable, "unavailable"),
    (ShuttingDown, "shutting_down"),
)


def _outcome(result: CommandResult | CqrskitError) -> str:
    """The word for how a command ended, for the metrics."""
    if isinstance(result, CommandResult):
        return "replayed" if result.replayed else "accepted"
    return next((word for kind, word in OUTCOMES if isinstance(result, kind)), "failed")


def _end_trace(trace: CommandTrace, outcome: str, result: CommandResult | CqrskitError) -> None:
    position = result.position if isinstance(result, CommandResult) else None
    refusal = result.code if isinstance(result, Rejected) else None
    error = type(result).__name__ if isinstance(result, CqrskitError) else None
    trace.end(outcome, position=position, refusal=refusal, error=error)


def _give_up(waiting: Waiting) -> None:
    waiting.resolve(DeadlineExceeded(type(waiting.command).__name__, waiting.timeout_seconds))


def usable_keys(command: Command, given: str | None) -> tuple[str, ...]:
    """A command's idempotency keys: its own, then the one given for it. Raises InvalidIdempotencyKey."""
    own = command.idempotency_key()
    if own is None:
        if given is None:
            return ()
        keys: tuple[str, ...] = (given,)
    else:
        keys = (own,) if given is None or given == own else (own, given)
    for key in keys:
        _require_usable(key)
    return keys


def contained_keys_of(command: Command, keys: tuple[str, ...]) -> tuple[str, ...]:
    """The own keys of the commands that this one contains; `keys` are those of the whole.

    Raises InvalidIdempotencyKey, also for a key that would stand for the whole and for a part of it.
    """
    contained = command.contained_commands()
    if not contained:
        return ()
    own = [each.idempotency_key() for each in contained]
    found = dict.fromkeys(key for key in own if key is not None)
    for key in found:
        _require_usable(key)
    for key in keys:
        if key in found:
            raise InvalidIdempotencyKey(key, "it is that of a command that this one contains")
    return tuple(found)


def _require_usable(key: str) -> None:
    if not (0 < len(key) <= KEY_LENGTH_MAX and key.isprintable()):
        raise InvalidIdempotencyKey(key)


def _encode_metadata(metadata: Metadata | None, command_class: type[Command]) -> bytes:
    if metadata is None:
        return _encode_bare_metadata(command_class)
    return encode_json(msgspec.structs.replace(metadata, command=metadata.command or command_class.__name__))


@lru_cache(maxsize=1_000)
def _encode_bare_metadata(command_class: type[Command]) -> bytes:
    return encode_json(Metadata(command=command_class.__name__))
