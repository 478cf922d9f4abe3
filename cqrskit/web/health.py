"""Liveness and readiness: quick answers, also when a server hangs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from cqrskit.application import ProjectionStatus, Runtime
from cqrskit.errors import CqrskitError

__all__ = ["Dependency", "Live", "Ready", "health_routes"]

CHECK_TIMEOUT_SECONDS = 1.5


class Live(msgspec.Struct, frozen=True):
    """The event loop runs."""

    status: str = "live"


class Dependency(msgspec.Struct, frozen=True):
    """Whether one server that the service rests on answers."""

    name: str
    ok: bool
    reason: str | None = None


class Ready(msgspec.Struct, frozen=True):
    """Whether requests can be served. A projection with a `failure` makes the service not ready; a lag does not.

    `draining`: it is stopping, and takes no command any more, so it is not ready either.
    """

    ready: bool
    dependencies: list[Dependency]
    projections: list[ProjectionStatus]
    draining: bool = False


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
    """The two health routes of an app; `runtime` gives the application at work."""
    checks = _Checks()

    @get("/health/live", tags=["health"], summary="Whether the process runs")
    async def live() -> Live:
        return Live()

    @get("/health/ready", tags=["health"], summary="Whether requests can be served, and how far projections are")
    async def ready() -> Response[Ready]:
        answer = await _readiness(checks, runtime(), draining=is_draining())
        return Response(answer, status_code=200 if answer.ready else 503)

    return [live, ready]


async def _readiness(checks: _Checks, runtime: Runtime, *, draining: bool) -> Ready:
    results = await checks.run(
        {
            "postgres": runtime.event_store.head,
            "read_store": runtime.read_store.ping,
            "projections": lambda: runtime.status(count_documents=False),
        }
    )
    projections = results.pop("projections")
    dependencies = [_dependency(name, result) for name, result in results.items()]
    known: list[ProjectionStatus] = [] if isinstance(projections, BaseException) else projections
    ready = (
        not draining
        and all(dependency.ok for dependency in dependencies)
        and not isinstance(projections, BaseException)
        and not any(projection.failure for projection in known)
    )
    return Ready(ready, dependencies, known, draining)


def _dependency(name: str, result: object) -> Dependency:
    if not isinstance(result, BaseException):
        return Dependency(name, ok=True)
    known = isinstance(result, CqrskitError | TimeoutError)
    return Dependency(name, ok=False, reason=str(result) if known else type(result).__name__)
