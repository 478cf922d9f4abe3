"""Reactions: events that lead to commands.

::

    class Welcome(Reaction):
        @on(Account.Opened)
        def opened(self, event: Account.Opened, at: RecordedEvent) -> Command | None:
            return CreditBonus(account_id=at.stream_id, amount=5)

A method is pure, like a fold: it returns a command, several in a list, or None. A reaction follows the log with a
checkpoint of its own, and the commands of a block of events are stored as due commands in the statement that moves the
checkpoint. So each event leads to its commands once, whatever crashes, and workers may compete: one of them moves it.
From there on they are due commands that are due at once; their keys are ``reaction:NAME:POSITION:NUMBER``.

There is a checkpoint for each type of event. So a process whose code reacts to fewer types than another's, as while a
new version is deployed, leaves the events of the other types to it; where all are at one place, which is the rule, they
are read and moved together.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

import msgspec
import structlog

from cqrskit.commands import Command, HandlerRegistry
from cqrskit.errors import DefinitionError, ServerUnavailable, UnknownEventType
from cqrskit.event_store import EventStore, FeedBlock
from cqrskit.event_versions import base_of, stored_names_of
from cqrskit.events import EventRegistry, Metadata, RecordedEvent
from cqrskit.metrics import Metrics
from cqrskit.projection import NAME_PATTERN
from cqrskit.settings import Settings
from cqrskit.spans import EVENT_POSITION, REACTION_NAME
from cqrskit.tasks import end_tasks
from cqrskit.telemetry import correlated
from cqrskit.tracing import Attributes, Tracer

__all__ = [
    "PARKED",
    "Reaction",
    "ReactionRunner",
    "ReactionStatus",
    "ReactionStore",
    "StoredCommand",
    "check_reactions",
    "methods_of",
    "types_of",
]

log = structlog.get_logger(__name__)

Method = Callable[[Any, RecordedEvent], Command | Iterable[Command] | None]
PARKED = "reaction:"
"""Begins, before the reaction's name, what stands in place of a command's name where an event is parked."""
POLL_INTERVAL_SECONDS = 0.5
BLOCK_SIZE_MAX = 500


class Reaction:
    """Subclass it with one ``@on`` method ``(self, event, at)`` per event type; see the module's example.

    `name` names its checkpoint (default: the class's name in snake case). `begin` says where a reaction that is new to
    a log begins: with events from now on, or with those that are there. A type of event that a known reaction comes to
    react to later begins where the reaction is then.
    """

    name: ClassVar[str] = ""
    begin: ClassVar[Literal["now", "start"]] = "now"

    def __init_subclass__(cls) -> None:
        """Check what can be checked without an application."""
        super().__init_subclass__()
        if not vars(cls).get("name"):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        if not NAME_PATTERN.match(cls.name):
            raise DefinitionError(f"reaction {cls.__name__} is named {cls.name!r}: use up to 40 of a-z, 0-9 and _")
        if cls.begin not in ("now", "start"):
            raise DefinitionError(f"reaction {cls.__name__} begins at {cls.begin!r}: say 'now' or 'start'")
        if not methods_of(cls()):
            raise DefinitionError(f"reaction {cls.__name__} reacts to nothing: add a method with @on(SomeEvent)")


def methods_of(reaction: Reaction) -> dict[str, Method]:
    """A reaction's methods by the stored names of their events; DefinitionError for what cannot work."""
    found: dict[str, Method] = {}
    for attribute, function in inspect.getmembers(type(reaction), inspect.isfunction):
        for mark in vars(function).get("folds_events", ()):
            where = f"{type(reaction).__name__}.{attribute}"
            if mark.chooses_document:
                raise DefinitionError(
                    f"{where}: a reaction has no documents, so its @on takes no `key` and no `creates`"
                )
            if inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 3:
                raise DefinitionError(f"{where} must be a plain function that takes (self, event, at)")
            for event_class in mark.event_classes:
                for stored_name in stored_names_of(event_class):
                    if stored_name in found:
                        raise DefinitionError(f"{where}: another method reacts to {stored_name}; keep one")
                    found[stored_name] = getattr(reaction, attribute)
    return found


def types_of(reaction: Reaction) -> list[str]:
    """The types of events that a reaction reacts to, without their versions."""
    return sorted({base_of(stored_name) for stored_name in methods_of(reaction)})


def check_reactions(application: str, reactions: Sequence[type[Reaction]], registry: EventRegistry) -> None:
    """DefinitionError for two of one name, or for an event that no aggregate of the application declares."""
    names: set[str] = set()
    for reaction in reactions:
        if reaction.name in names:
            raise DefinitionError(f"two reactions are named {reaction.name!r}: rename one of them")
        names.add(reaction.name)
        for stored_name in methods_of(reaction()):
            if stored_name not in registry or registry.is_retired(stored_name):
                raise DefinitionError(
                    f"reaction {reaction.__name__} reacts to {stored_name}, which no aggregate of application "
                    f"{application!r} declares: add the aggregate to Application(aggregates=[...])"
                )


class StoredCommand(msgspec.Struct, frozen=True):
    """A command to be stored with a checkpoint; with `error` it is the event whose method failed, and is parked."""

    key: str
    command: str
    content: bytes
    metadata: bytes
    error: str | None = None


class ReactionStore(Protocol):
    """The checkpoints of reactions. Each method raises ServerUnavailable."""

    async def register(self, name: str, types: Sequence[str], *, from_start: bool) -> None:
        """Begin a reaction, if it is new to this log; else begin with those types that are new to it."""

    async def positions(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """The checkpoints of these reactions by types, also of types that other code reacts to."""

    async def advance(
        self,
        name: str,
        types: Sequence[str],
        after: int,
        until: int,
        now: datetime,
        commands: Sequence[StoredCommand],
    ) -> bool:
        """Move the checkpoints of these types and store commands, if all of them are still at `after`."""

    async def parked_events(self, names: Sequence[str]) -> dict[str, int]:
        """How many events are parked of these reactions, of those that have any."""


class ReactionStatus(msgspec.Struct, frozen=True):
    """How one reaction is. `position` is that up to which it has looked at all that it reacts to; 0: never started.

    `lag_seconds` is the age of the next event. `failure` says what keeps it from going on, as far as this process
    knows. `problems` are what somebody should look at, each a sentence; parked events are among the due commands'.
    """

    name: str
    position: int
    lag_events: int
    lag_seconds: float
    parked_events: int
    failure: str | None = None
    problems: tuple[str, ...] = ()


class ReactionRunner:
    """Moves reactions until it is stopped; `stored` is called after commands were stored.

    `failures` says what keeps reactions from going on in this process, by their names.
    """

    def __init__(
        self,
        reactions: Sequence[type[Reaction]],
        store: ReactionStore,
        event_store: EventStore,
        registry: EventRegistry,
        handlers: HandlerRegistry,
        settings: Settings,
        *,
        wake: asyncio.Event,
        stored: Callable[[], None],
        metrics: Metrics,
        tracer: Tracer | None,
    ) -> None:
        self._reactions = [each() for each in reactions]
        self._methods = {each.name: methods_of(each) for each in self._reactions}
        self._types = {each.name: types_of(each) for each in self._reactions}
        self.failures: dict[str, str] = {}
        self._store = store
        self._event_store = event_store
        self._registry = registry
        self._handlers = handlers
        self._settings = settings
        self._block_size = min(settings.block_size_max, BLOCK_SIZE_MAX)
        self._wake = wake
        self._stored = stored
        self._metrics = metrics
        self._tracer = tracer
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        for each in self._reactions:
            await self._store.register(each.name, self._types[each.name], from_start=each.begin == "start")
        if self._reactions:
            self._tasks = [asyncio.create_task(self._run(), name="cqrskit-reactions")]

    async def stop(self) -> None:
        """Stop; a checkpoint moves in one statement, so nothing is left half done."""
        await end_tasks(self._tasks)

    async def statuses(self) -> list[ReactionStatus]:
        """How each reaction is, be it run here or by others."""
        names = list(self._methods)
        if not names:
            return []
        found, parked = await self._store.positions(names), await self._store.parked_events(names)
        head = await self._event_store.head()
        return [await self._status(name, found.get(name, {}), head, parked.get(name, 0)) for name in names]

    async def _status(self, name: str, positions: Mapping[str, int], head: int, parked: int) -> ReactionStatus:
        own = [position for each, position in positions.items() if each in self._types[name]]
        position = min(own, default=0)
        lag, failure = max(head - position, 0), self.failures.get(name)
        oldest = (await self._event_store.read(position, 1)).events if lag else []
        seconds = max((datetime.now(UTC) - oldest[0].recorded_at).total_seconds(), 0.0) if oldest else 0.0
        problems = [] if failure is None else [failure]
        if not own:
            problems.append("it was never started: run `cqrskit serve`")
        elif lag > self._settings.health_lag_max_events:
            problems.append(f"it lags by {lag:,} events, more than {self._settings.health_lag_max_events:,}")
        elif seconds > self._settings.health_lag_max_seconds:
            limit = f"{self._settings.health_lag_max_seconds:,g}"
            problems.append(f"it lags by {seconds:,.0f} s, more than {limit} s: run `cqrskit serve`")
        return ReactionStatus(name, position, lag, seconds, parked, failure, tuple(problems))

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            level = True
            for each in self._reactions:
                level = await self._advance_or_wait(each) and level
            if level:
                try:
                    async with asyncio.timeout(POLL_INTERVAL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _advance_or_wait(self, reaction: Reaction) -> bool:
        """React to the next block; what fails is tried again in the next round. True: wait before that."""
        name = reaction.name
        try:
            level = await self.advance(reaction)
        except ServerUnavailable as error:
            self.failures[name] = str(error)
            log.warning("reactions.wait_for_server", reaction=name, reason=str(error))
            self._metrics.retries.count("reactions")
        except UnknownEventType as error:
            if self.failures.get(name) != str(error):
                log.error("reaction.waits_for_newer_code", reaction=name, reason=str(error))
            self.failures[name] = str(error)
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {error}"
            log.exception("reactions.failed", reaction=name)
        else:
            self.failures.pop(name, None)
            return level
        return True

    async def advance(self, reaction: Reaction) -> bool:
        """React to the next block of events; whether the log has no more.

        Raises UnknownEventType, once all that comes before is done, at an event that only newer code can read.
        """
        name = reaction.name
        positions = (await self._store.positions([name]))[name]
        own = {each: positions[each] for each in self._types[name]}
        after = min(own.values())
        types = [each for each, position in own.items() if position == after]
        ahead = min([position for position in own.values() if position > after], default=after + self._block_size)
        block = await self._event_store.read(after, min(ahead - after, self._block_size), types)
        commands, until, unknown = self._commands_of(name, block)
        if until > after:
            moved = await self._store.advance(name, types, after, until, datetime.now(UTC), commands)
            if moved:
                self._count(name, [row for row in block.events if row.position <= until], commands)
            if moved and commands:
                self._stored()
        if unknown is not None:
            raise unknown
        return block.until >= block.head

    def _count(self, name: str, seen: Sequence[RecordedEvent], commands: Sequence[StoredCommand]) -> None:
        parked = sum(each.error is not None for each in commands)
        self._metrics.reaction_events.count(name, "reacted", number=len(seen) - parked)
        if parked:
            self._metrics.reaction_events.count(name, "parked", number=parked)

    def _commands_of(self, name: str, block: FeedBlock) -> tuple[list[StoredCommand], int, UnknownEventType | None]:
        """What a block leads to, up to which position, and what stops us there."""
        commands: list[StoredCommand] = []
        for row in block.events:
            try:
                commands += self._stored_of(name, row)
            except UnknownEventType as unknown:
                return commands, row.position - 1, unknown
        return commands, block.until, None

    def _stored_of(self, name: str, row: RecordedEvent) -> list[StoredCommand]:
        key = f"reaction:{name}:{row.position}"
        cause = msgspec.json.decode(row.metadata, type=Metadata)
        span = None
        if self._tracer is not None and cause.trace_parent is not None:
            about: Attributes = {REACTION_NAME: name, EVENT_POSITION: row.position}
            span = self._tracer.begin(f"react {name}", "consumer", parent=cause.trace_parent, attributes=about)
        if span is not None:
            cause = msgspec.structs.replace(cause, trace_parent=span.trace_parent)
        metadata = msgspec.json.encode(msgspec.structs.replace(cause, command=None, causation_id=str(row.position)))
        try:
            commands = self._react(name, row)
            return [
                StoredCommand(f"{key}:{number}", type(each).__name__, msgspec.json.encode(each), metadata)
                for number, each in enumerate(commands)
            ]
        except UnknownEventType:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            with correlated(cause.correlation_id):
                log.error("reaction.event_parked", reaction=name, position=row.position, reason=reason)
            return [StoredCommand(key, PARKED + name, msgspec.json.encode((name, row.position)), metadata, reason)]
        finally:
            if span is not None:
                span.end()

    def _react(self, name: str, row: RecordedEvent) -> list[Command]:
        event = self._registry.decode(row)  # first, since a version that we do not know has no method either
        made = self._methods[name][row.type](event, row)
        commands = [] if made is None else [made] if isinstance(made, Command) else list(made)
        for each in commands:
            self._handlers.handler_of(each)
        return commands

    @property
    def by_parked_name(self) -> dict[str, Callable[[bytes], Awaitable[list[Command]]]]:
        """What gives the commands of an event that was parked, by what stands for a command's name there."""
        return {PARKED + each.name: self.react_again for each in self._reactions}

    async def react_again(self, content: bytes) -> list[Command]:
        """The commands of an event whose method has failed before. Raises UnknownEventType."""
        name, position = msgspec.json.decode(content, type=tuple[str, int])
        block = await self._event_store.read(position - 1, 1)
        return self._react(name, block.events[0])
