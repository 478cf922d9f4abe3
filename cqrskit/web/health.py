"""Liveness and readiness: quick answers, also when a server hangs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from cqrskit.application import Runtime
from cqrskit.due_commands import DueCommandsStatus
from cqrskit.errors import CqrskitError
from cqrskit.reactions import ReactionStatus
from cqrskit.status import ProjectionStatus
from cqrskit.web.access import open_to_all

__all__ = ["Dependency", "Live", "Ready", "health_routes"]

CHECK_TIMEOUT_SECONDS = 1.5
NEEDED = "postgres"
"""The server without which neither commands nor queries are answered."""
WITHOUT_KEY: list[dict[str, list[str]]] = [{}]
"""For the API description: nothing has to be shown."""


class Live(msgspec.Struct, frozen=True):
    """The event loop runs."""

    status: str = "live"


class Dependency(msgspec.Struct, frozen=True):
    """Whether one server that the service rests on answers."""

    name: str
    ok: bool
    reason: str | None = None


class Ready(msgspec.Struct, frozen=True):
    """Whether requests can be served.

    ``ready``: all is well. ``degraded`` (200): commands are taken, but somebody should look at the `problems`: the read
    store does not answer, so that queries are refused; a projection lags, has parked keys, has failed, is moved by
    nobody, or could not be measured; a reaction lags or has failed; due commands are overdue or parked.
    ``unready`` (503): Postgres does not answer, without which there is nothing to do, or the service is stopping.
    """

    status: Literal["ready", "degraded", "unready"]
    problems: list[str]
    dependencies: list[Dependency]
    projections: list[ProjectionStatus]
    reactions: list[ReactionStatus]
    due_commands: DueCommandsStatus | None


class _Checks:
    """Runs named checks with a time limit. One that hangs is waited for again, not started anew, so none pile up."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def run(self, checks: dict[str, Callable[[], Awaitable[Any]]]) -> dict[str, Any]:
        """The result, or the exception, of each check; TimeoutError for one that takes too long."""
        tasks: dict[str, asyncio.Task[Any]] = {}
        for name, check in checks.items():
            running = self._running.get(name)
            tasks[name] = asyncio.ensure_future(check()) if running is None else running
        self._running = tasks
        await asyncio.wait(tasks.values(), timeout=CHECK_TIMEOUT_SECONDS)
        self._running = {name: task for name, task in tasks.items() if not task.done()}
        return {name: _outcome(task) for name, task in tasks.items()}


def _outcome(task: "asyncio.Task[Any]") -> object:
    if not task.done():
        return TimeoutError(f"no answer within {CHECK_TIMEOUT_SECONDS:g} s")
    return task.exception() or task.result()


def health_routes(runtime: Callable[[], Runtime], is_draining: Callable[[], bool]) -> list[HTTPRouteHandler]:
    """The two health routes of an app; `runtime` gives the application at work, `is_draining` tells that it stops."""
    checks = _Checks()

    @get("/health/live", opt=open_to_all(), security=WITHOUT_KEY, tags=["health"], summary="Whether the process runs")
    async def live() -> Live:
        return Live()

    @get(
        "/health/ready",
        opt=open_to_all(),
        security=WITHOUT_KEY,
        tags=["health"],
        summary="Whether requests can be served, and how far projections are",
        responses={503: ResponseSpec(Ready, generate_examples=False, description="Requests cannot be served")},
    )
    async def ready() -> Response[Ready]:
        answer = await _readiness(checks, runtime(), draining=is_draining())
        return Response(answer, status_code=503 if answer.status == "unready" else 200)

    return [live, ready]


async def _readiness(checks: _Checks, runtime: Runtime, *, draining: bool) -> Ready:
    results = await checks.run(
        {
            NEEDED: runtime.event_store.head,
            "read_store": runtime.read_store.ping,
            "projections": lambda: runtime.status(count_documents=False),
            "reactions": runtime.reaction_statuses,
            "due commands": lambda: runtime.due_status(count=False),
        }
    )
    measured = {name: results.pop(name) for name in ("projections", "reactions", "due commands")}
    dependencies = [_dependency(name, result) for name, result in results.items()]
    problems = [f"{each.name}: {each.reason}" for each in dependencies if not each.ok]
    if draining:
        problems.append("the service is stopping")
    unready = draining or any(each.name == NEEDED and not each.ok for each in dependencies)
    for what, result in measured.items():
        if isinstance(result, BaseException):
            problems.append(f"the {what} could not be measured: {_reason(result)}")
    projections, reactions, due = (None if isinstance(each, BaseException) else each for each in measured.values())
    problems += _problems_of(projections or (), reactions or (), due)
    status: Literal["ready", "degraded", "unready"] = "unready" if unready else "degraded" if problems else "ready"
    return Ready(status, problems, dependencies, projections or [], reactions or [], due)


def _problems_of(
    projections: Iterable[ProjectionStatus], reactions: Iterable[ReactionStatus], due: DueCommandsStatus | None
) -> list[str]:
    """What somebody should look at, each sentence with the name of what it is about."""
    return [
        *(f"{each.name}: {problem}" for each in projections for problem in each.problems),
        *(f"reaction {each.name}: {problem}" for each in reactions for problem in each.problems),
        *(f"due commands: {problem}" for problem in (() if due is None else due.problems)),
    ]


def _dependency(name: str, result: object) -> Dependency:
    if not isinstance(result, BaseException):
        return Dependency(name, ok=True)
    return Dependency(name, ok=False, reason=_reason(result))


def _reason(error: BaseException) -> str:
    """What may be said to everybody: of errors that nobody planned, only the kind."""
    return str(error) if isinstance(error, CqrskitError | TimeoutError) else type(error).__name__
