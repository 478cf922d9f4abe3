"""Running commands when their time has come.

A due command is stored with the decision that asked for it (`Repository.schedule`). Each process that takes commands
runs those that are due, side by side with others: it leases some, gives them to the executor under the idempotency key
``·due:ID``, and removes them once their outcome is kept. A process that dies in between leaves them to the next one, to
whom the receipt gives the first outcome. So a lease saves work; what makes a command take effect once is its key.

What is due is told by the clock of this process, the one that the executor decides by: a handler that compares
`Repository.now` with the time that it asked for never finds itself too early. Leases count by the database's clock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import structlog

from cqrskit.commands import Command, HandlerRegistry
from cqrskit.errors import (
    Busy,
    CommitUnknown,
    CqrskitError,
    DeadlineExceeded,
    IdempotencyConflict,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
    UnknownEventType,
)
from cqrskit.events import Metadata
from cqrskit.executor import Executor
from cqrskit.metrics import Metrics
from cqrskit.settings import Settings
from cqrskit.spans import COMMAND_NAME, DUE_KEY
from cqrskit.tasks import end_tasks
from cqrskit.telemetry import correlated
from cqrskit.tracing import Tracer

__all__ = ["ClaimedCommand", "DueCommand", "DueCommandRunner", "DueCommands", "DueCommandsStatus"]

log = structlog.get_logger(__name__)

ReactAgain = Callable[[bytes], Awaitable[list[Command]]]
EMPTY: Mapping[str, ReactAgain] = {}
REACTION = "reaction:"
"""Keys that begin so name an event's position, and are idempotency keys themselves."""
OWN_KEY = "·"
"""Begins the idempotency keys made here: no HTTP header can carry it, so that no client can use one of them before."""
COUNT_MAX = 100
"""So many commands one process leases at once."""
POLL_INTERVAL_SECONDS = 0.5
"""Another process may have stored something that is due earlier than what we wait for."""
ATTEMPTS_MAX = 6
FIRST_PAUSE_SECONDS = 1.0
PAUSE_MAX_SECONDS = 60.0
TRANSIENT = (Busy, CommitUnknown, DeadlineExceeded, ServerUnavailable, ShuttingDown)
"""The command is not at fault: it is tried again for as long as it takes."""
NEWER_CODE_PAUSE_SECONDS = 5.0
"""So long a command waits for newer code that can read the events which it needs."""


class ClaimedCommand(msgspec.Struct, frozen=True):
    """A due command that is leased to us; `attempts` have failed before."""

    id: int
    key: str
    command: str
    content: bytes
    metadata: bytes
    due_at: datetime
    attempts: int


class DueCommand(msgspec.Struct, frozen=True):
    """A stored command as an operator sees it; `error` is its last failure, `parked_at` None while it is to be run."""

    id: int
    key: str
    command: str
    due_at: datetime
    attempts: int
    error: str | None
    parked_at: datetime | None


class DueCommandsStatus(msgspec.Struct, frozen=True):
    """How many commands wait and how many are parked; `overdue_seconds` is how long the oldest waiting one is due.

    Those wait that the code has a handler for; `unknown` are names of others that are overdue: of newer code, of
    another application in this database, or of nobody any more. `waiting` is None where they were not counted.
    `problems` are what somebody should look at, each a sentence.
    """

    waiting: int | None
    parked: int
    overdue_seconds: float
    unknown: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class DueCommands(Protocol):
    """The stored commands; `cqrskit.postgres.due_commands` is the adapter. Each method raises ServerUnavailable."""

    async def claim(
        self, now: datetime, count_max: int, names: Sequence[str], *, seconds: float
    ) -> list[ClaimedCommand]:
        """Lease at most so many of these `names` that are due at `now` and that nobody has, for so long."""

    async def next_run_at(self, names: Sequence[str]) -> datetime | None:
        """When the next one of these `names` is to be tried that nobody has; None if there is none."""

    async def remove(self, ids: Sequence[int]) -> None:
        """Delete those whose outcome is kept."""

    async def put_off(self, claimed: ClaimedCommand, *, attempts: int, run_at: datetime, error: str | None) -> None:
        """End the lease, and have it tried again at a time."""

    async def park(self, claimed: ClaimedCommand, *, attempts: int, error: str) -> None:
        """End the lease, and set it aside with its error."""

    async def status(
        self, names: Sequence[str] | None = None, *, patience_seconds: float = 0.0, count: bool = True
    ) -> DueCommandsStatus:
        """How commands of these names are (None: all), and which others are overdue by more than the patience.

        Those that wait are counted only if asked, for there may be many. Its `problems` are empty.
        """


class DueCommandRunner:
    """Runs due commands through an executor until it is stopped."""

    def __init__(
        self,
        store: DueCommands,
        executor: Executor,
        handlers: HandlerRegistry,
        settings: Settings,
        *,
        react_again: Mapping[str, ReactAgain] = EMPTY,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`react_again` gives the commands of events that were parked, by what stands for a command's name there.

        `metrics` count what becomes of each (default: some that nobody sees), `tracer` traces it (default: nobody).
        """
        self._tracer = tracer
        self._outcomes = (Metrics() if metrics is None else metrics).due_outcomes
        self._react_again = react_again
        self._store = store
        self._executor = executor
        self._classes: dict[str, type[Command]] = {each.__name__: each for each in handlers.command_classes}
        self._names = [*self._classes, *react_again]
        self._settings = settings
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for what is due, overdue commands first."""
        self._task = asyncio.create_task(self._run(), name="cqrskit-due-commands")

    def wake(self) -> None:
        """Something was stored: look again."""
        self._wake.set()

    async def stop(self) -> None:
        """Finish what is running, up to `shutdown_timeout_seconds`; what is left is for the next start."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=self._settings.shutdown_timeout_seconds)
            await end_tasks([self._task])

    async def _run(self) -> None:
        while not self._stopping and self._executor.takes_commands:
            pause_seconds = POLL_INTERVAL_SECONDS
            self._wake.clear()
            try:
                if await self.run_due() == COUNT_MAX:
                    continue
                pause_seconds = await self._pause_seconds()
            except ServerUnavailable as error:
                log.warning("due_commands.wait_for_server", reason=str(error))
            except Exception:
                log.exception("due_commands.failed")
            if self._stopping:
                return
            try:
                async with asyncio.timeout(pause_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _pause_seconds(self) -> float:
        """Until the next one is due, at most until others may have stored something."""
        next_at = await self._store.next_run_at(self._names)
        if next_at is None:
            return POLL_INTERVAL_SECONDS
        return min(max((next_at - self._clock()).total_seconds(), 0.0), POLL_INTERVAL_SECONDS)

    async def status(self, *, count: bool = True) -> DueCommandsStatus:
        """How those are that this process could run; without `count` those that wait are not counted."""
        limit_seconds = self._settings.health_lag_max_seconds
        found = await self._store.status(self._names, patience_seconds=limit_seconds, count=count)
        problems = []
        if found.parked > self._settings.health_parked_keys_max:
            problems.append(f"{found.parked:,} parked: see `cqrskit due list --parked`")
        if found.overdue_seconds > limit_seconds:
            problems.append(f"the oldest is overdue by {found.overdue_seconds:,.0f} s, more than {limit_seconds:,g} s")
        if found.unknown:
            problems.append(f"this code has no handler for what is overdue: {', '.join(found.unknown)}")
        return msgspec.structs.replace(found, problems=tuple(problems))

    async def run_due(self) -> int:
        """Run what is due now, at most 100 commands; how many were leased."""
        now, seconds = self._clock(), self._settings.lease_seconds
        claimed = await self._store.claim(now, COUNT_MAX, self._names, seconds=seconds)
        ended = await asyncio.gather(*map(self._run_one, claimed), return_exceptions=True)
        kept = [each.id for each, outcome in zip(claimed, ended, strict=True) if outcome is None]
        if kept:
            await self._store.remove(kept)
        for each, outcome in zip(claimed, ended, strict=True):
            if isinstance(outcome, Exception):
                await self._failed(each, outcome)
            elif outcome is not None:
                raise outcome
        return len(claimed)

    async def _run_one(self, claimed: ClaimedCommand) -> None:
        """Run one; return once its outcome is kept. A refusal is an outcome."""
        parent = None if self._tracer is None else _cause_of(claimed).trace_parent
        if self._tracer is None or parent is None:
            await self._run_untraced(claimed)
            return
        name = f"due {self._known_name(claimed)}"
        about = {COMMAND_NAME: claimed.command, DUE_KEY: claimed.key}
        span = self._tracer.begin(name, "consumer", parent=parent, attributes=about)
        if span is None:
            await self._run_untraced(claimed)
            return
        error: str | None = None
        try:
            with self._tracer.as_current(span):
                await self._run_untraced(claimed)
        except Exception as failed:
            error = type(failed).__name__
            raise
        finally:
            span.end(error=error)

    async def _run_untraced(self, claimed: ClaimedCommand) -> None:
        react_again = self._react_again.get(claimed.command)
        if react_again is not None:
            for number, made in enumerate(await react_again(claimed.content)):
                await self._execute(claimed, made, f"{claimed.key}:{number}")
            return
        command = msgspec.json.decode(claimed.content, type=self._classes[claimed.command])
        await self._execute(claimed, command, claimed.key if claimed.key.startswith(REACTION) else f"due:{claimed.id}")

    async def _execute(self, claimed: ClaimedCommand, command: Command, key: str) -> None:
        metadata = msgspec.structs.replace(_cause_of(claimed), command=None)
        try:
            await self._executor.execute(command, metadata, key=OWN_KEY + key)
            self._outcomes.count(type(command).__name__, "accepted")
        except IdempotencyConflict:
            raise  # no outcome of this command: somebody has taken its key
        except Rejected as refusal:
            self._outcomes.count(type(command).__name__, "refused")
            with correlated(metadata.correlation_id):
                log.warning("due_command.refused", key=claimed.key, command=claimed.command, reason=str(refusal))

    async def _failed(self, claimed: ClaimedCommand, error: Exception) -> None:
        """Have it tried again after a pause; park it if it is at fault and was tried often enough."""
        reason = str(error) if isinstance(error, CqrskitError) else f"{type(error).__name__}: {error}"
        if isinstance(error, TRANSIENT):
            run_at = self._clock() + timedelta(seconds=FIRST_PAUSE_SECONDS)
            self._outcomes.count(self._known_name(claimed), "put_off")
            await self._store.put_off(claimed, attempts=claimed.attempts, run_at=run_at, error=reason)
            return
        if isinstance(error, UnknownEventType):
            run_at = self._clock() + timedelta(seconds=NEWER_CODE_PAUSE_SECONDS)
            await self._store.put_off(claimed, attempts=claimed.attempts, run_at=run_at, error=reason)
            log.warning("due_command.waits_for_newer_code", key=claimed.key, command=claimed.command, reason=reason)
            return
        attempts = claimed.attempts + 1
        key, command = claimed.key, claimed.command
        if attempts >= ATTEMPTS_MAX:
            await self._store.park(claimed, attempts=attempts, error=reason)
            self._outcomes.count(self._known_name(claimed), "parked")
            with correlated(_cause_of(claimed).correlation_id):
                log.error("due_command.parked", key=key, command=command, attempts=attempts, reason=reason)
            return
        pause_seconds = min(FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), PAUSE_MAX_SECONDS)
        run_at = self._clock() + timedelta(seconds=pause_seconds)
        await self._store.put_off(claimed, attempts=attempts, run_at=run_at, error=reason)
        self._outcomes.count(self._known_name(claimed), "failed")
        with correlated(_cause_of(claimed).correlation_id):
            log.warning("due_command.failed", key=key, command=command, attempts=attempts, reason=reason)

    def _known_name(self, claimed: ClaimedCommand) -> str:
        """The command's name, if this code knows one of that name."""
        return (
            claimed.command if claimed.command in self._classes or claimed.command in self._react_again else "unknown"
        )


def _cause_of(claimed: ClaimedCommand) -> Metadata:
    """Where the decision came from that asked for a command."""
    return msgspec.json.decode(claimed.metadata or b"{}", type=Metadata)
