"""The outermost layer of an app: counts and times each request, also one that no route was found for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from cqrskit.metrics import Metrics

__all__ = ["observed"]


@contextmanager
def observed(app: Litestar, metrics: Metrics) -> Iterator[None]:
    """Observe the requests of an app as long as the context.

    It is put around the finished app, since a middleware sees neither the requests that no route was found for nor the
    status that an error becomes.
    """
    inner = app.asgi_handler
    app.asgi_handler = _observing(inner, metrics)
    try:
        yield
    finally:
        app.asgi_handler = inner


def _observing(inner: ASGIApp, metrics: Metrics) -> ASGIApp:
    async def observe(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await inner(scope, receive, send)
            return
        status: int | None = None

        async def see_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begun_at = time.perf_counter()
        try:
            await inner(scope, receive, see_status)
        finally:
            route = scope.get("path_template")  # the router has put it there
            metrics.request_ended(scope["method"], route, status, time.perf_counter() - begun_at)

    return observe
