"""Commands over HTTP: each is given in the name of its request, and a reply says whether it is the first one."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar
from uuid import UUID

from litestar import Request, Response

from cqrskit.commands import Command
from cqrskit.errors import CqrskitError
from cqrskit.events import Metadata
from cqrskit.executor import CommandResult, Executor
from cqrskit.identifiers import was_made
from cqrskit.submissions import KEY_LENGTH_MAX
from cqrskit.web.positions import at_position
from cqrskit.web.requests import RequestContext

__all__ = ["IDEMPOTENT_REPLAY", "Actor", "Commands", "command_reply"]

T = TypeVar("T")

IDEMPOTENT_REPLAY = "Idempotent-Replay"
"""The header, with the value ``true``, of a reply that was given before."""

Actor = Callable[[Request[Any, Any, Any]], str | None]
"""Who sends a request, for the log; None: not known."""


class Commands:
    """Gives commands to the executor in the name of one request; handlers get it as ``commands``.

    The request's ``Idempotency-Key`` is the command's key, and what its headers say of where it comes from is written
    beside every event. Where the app has API keys, an idempotency key is its actor's own. `key` and `metadata` are for
    those who want more than `execute` and `execute_many`.
    """

    def __init__(self, executor: Executor, context: RequestContext, actor: Actor | None) -> None:
        """Raises InvalidIdempotencyKey, or ValidationException for another header that is not within its limits."""
        self._executor = executor
        self._count = 0
        self.key = context.idempotency_key
        self.metadata = Metadata(
            correlation_id=context.require_correlation_id(),
            causation_id=context.causation_id,
            actor=context.actor if actor is None else actor(Request(context.scope)),
            trace_parent=context.trace_parent,
        )

    async def execute(self, command: Command, *, timeout_seconds: float | None = None) -> CommandResult:
        """Decide one command and wait until its events are durable; raises what `Executor.execute` does.

        The first command of a request has the request's idempotency key, each further one a key made from it and from
        its number: so a handler must give the same commands in the same order again.
        """
        return await self._executor.execute(
            command, self.metadata, key=self._next_key(), timeout_seconds=timeout_seconds
        )

    async def execute_many(
        self, commands: Sequence[Command], *, timeout_seconds: float | None = None
    ) -> list[CommandResult | CqrskitError]:
        """Decide commands in this order, each standing alone (`Executor.execute_many`); keys are as for `execute`."""
        keys = None if self.key is None else [self._next_key() for _ in commands]
        return await self._executor.execute_many(commands, self.metadata, keys=keys, timeout_seconds=timeout_seconds)

    def sent_key_for(self, made: UUID) -> str | None:
        """The request's ``Idempotency-Key`` if this id was made from it, so that its sender knows only the key.

        A refusal that is about such an id should speak of the key.
        """
        return self.key if was_made(made) else None

    def _next_key(self) -> str | None:
        if self.key is None:
            return None
        self._count += 1
        return self.key if self._count == 1 else _numbered(self.key, self._count)


def _numbered(key: str, number: int) -> str:
    numbered = f"{key} #{number}"
    if len(numbered) <= KEY_LENGTH_MAX:
        return numbered
    return f"blake2b:{blake2b(key.encode(), digest_size=32).hexdigest()} #{number}"


def command_reply(content: T, result: CommandResult, status_code: int | None = None) -> Response[T]:
    """A reply to a command: its position in the ``Consistency-Position`` header, by default with the route's status.

    The reply to a retry has status 200 and the header ``Idempotent-Replay: true``.
    """
    if not result.replayed:
        return at_position(content, result.position, status_code)
    response = at_position(content, result.position, 200)
    response.headers[IDEMPOTENT_REPLAY] = "true"
    return response
