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
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, Protocol

import msgspec
import structlog

from cqrskit.commands import Command, HandlerRegistry
from cqrskit.errors import DefinitionError, ServerUnavailable
from cqrskit.event_store import EventStore
from cqrskit.event_versions import stored_names_of
from cqrskit.events import EventRegistry, Metadata, RecordedEvent
from cqrskit.metrics import Metrics
from cqrskit.projection import NAME_PATTERN
from cqrskit.settings import Settings
from cqrskit.spans import EVENT_POSITION, REACTION_NAME
from cqrskit.tasks import end_tasks
from cqrskit.telemetry import correlated
from cqrskit.tracing import Attributes, Tracer

__all__ = [
    "Reaction",
    "ReactionRunner",
    "ReactionStatus",
    "ReactionStore",
    "StoredCommand",
    "check_reactions",
    "methods_of",
]

log = structlog.get_logger(__name__)

Method = Callable[[Any, RecordedEvent], Command | Iterable[Command] | None]
POLL_INTERVAL_SECONDS = 0.5
BLOCK_SIZE_MAX = 500


class Reaction:
    """Subclass it with one ``@on`` method ``(self, event, at)`` per event type; see the module's example.

    `name` names its checkpoint (default: the class's name in snake case). `begin` says where a reaction that is new to
    a log begins: with events from now on, or with those that are there.
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
            if inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 3:
                raise DefinitionError(f"{where} must be a plain function that takes (self, event, at)")
            for event_class in mark.event_classes:
                for stored_name in stored_names_of(event_class):
                    if stored_name in found:
                        raise DefinitionError(f"{where}: another method reacts to {stored_name}; keep one")
                    found[stored_name] = getattr(reaction, attribute)
    return found


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

    async def register(self, name: str, *, from_start: bool) -> None:
        """Begin a reaction, if it is new to this log."""

    async def positions(self, names: Sequence[str]) -> dict[str, int]:
        """The checkpoints."""

    async def advance(
        self, name: str, after: int, until: int, now: datetime, commands: Sequence[StoredCommand]
    ) -> bool:
        """Move the checkpoint and store commands, if it is still at `after`."""


class ReactionStatus(msgspec.Struct, frozen=True):
    """How one reaction is: events that it has not looked at, and events that were set aside because it failed."""

    name: str
    lag_events: int
    parked_events: int


class ReactionRunner:
    """Moves reactions until it is stopped; `stored` is called after commands were stored."""

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
        self._store = store
        self._event_store = event_store
        self._registry = registry
        self._handlers = handlers
        self._block_size = min(settings.block_size_max, BLOCK_SIZE_MAX)
        self._wake = wake
        self._stored = stored
        self._metrics = metrics
        self._tracer = tracer
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        for each in self._reactions:
            await self._store.register(each.name, from_start=each.begin == "start")
        if self._reactions:
            self._tasks = [asyncio.create_task(self._run(), name="cqrskit-reactions")]

    async def stop(self) -> None:
        """Stop; a checkpoint moves in one statement, so nothing is left half done."""
        await end_tasks(self._tasks)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            level = True
            try:
                for each in self._reactions:
                    level = await self.advance(each) and level
            except ServerUnavailable as error:
                log.warning("reactions.wait_for_server", reason=str(error))
                self._metrics.retries.count("reactions")
            except Exception:
                log.exception("reactions.failed")
            if level:
                try:
                    async with asyncio.timeout(POLL_INTERVAL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def advance(self, reaction: Reaction) -> bool:
        """React to the next block of events; whether the log has no more."""
        after = (await self._store.positions([reaction.name]))[reaction.name]
        block = await self._event_store.read(after, self._block_size, list(self._methods[reaction.name]))
        if block.until > after:
            commands = [each for row in block.events for each in self._stored_of(reaction.name, row)]
            moved = await self._store.advance(reaction.name, after, block.until, datetime.now(UTC), commands)
            if moved:
                parked = sum(each.error is not None for each in commands)
                self._metrics.reaction_events.count(reaction.name, "reacted", number=len(block.events) - parked)
                if parked:
                    self._metrics.reaction_events.count(reaction.name, "parked", number=parked)
            if moved and commands:
                self._stored()
        return block.until >= block.head

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
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".replace("\0", "")
            with correlated(cause.correlation_id):
                log.error("reaction.event_parked", reaction=name, position=row.position, reason=reason)
            return [StoredCommand(key, "reaction", msgspec.json.encode((name, row.position)), metadata, reason)]
        finally:
            if span is not None:
                span.end()

    def _react(self, name: str, row: RecordedEvent) -> list[Command]:
        made = self._methods[name][row.type](self._registry.decode(row), row)
        commands = [] if made is None else [made] if isinstance(made, Command) else list(made)
        for each in commands:
            self._handlers.handler_of(each)
        return commands

    async def react_again(self, content: bytes) -> list[Command]:
        """The commands of an event whose method has failed before."""
        name, position = msgspec.json.decode(content, type=tuple[str, int])
        block = await self._event_store.read(position - 1, 1)
        return self._react(name, block.events[0])
