"""The outermost layer of an app: counts, times and traces each request, also one that no route was found for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from cqrskit.metrics import METHODS, Metrics
from cqrskit.spans import HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, URL_PATH, URL_SCHEME
from cqrskit.tracing import Span, Tracer
from cqrskit.web.requests import trace_parent_in

__all__ = ["observed"]

SERVER_ERROR = 500


@contextmanager
def observed(app: Litestar, metrics: Metrics, tracer: Tracer | None) -> Iterator[None]:
    """Observe the requests of an app as long as the context.

    It is put around the finished app, since a middleware sees neither the requests that no route was found for nor the
    status that an error becomes.
    """
    inner = app.asgi_handler
    app.asgi_handler = _counting(inner if tracer is None else _tracing(inner, tracer), metrics)
    try:
        yield
    finally:
        app.asgi_handler = inner


def _counting(inner: ASGIApp, metrics: Metrics) -> ASGIApp:
    async def count(scope: Scope, receive: Receive, send: Send) -> None:
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

    return count


def _tracing(inner: ASGIApp, tracer: Tracer) -> ASGIApp:
    async def trace(scope: Scope, receive: Receive, send: Send) -> None:
        span = _begin(tracer, scope) if scope["type"] == ScopeType.HTTP else None
        if span is None:
            await inner(scope, receive, send)
            return
        status: int | None = None

        async def see_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with tracer.as_current(span), structlog.contextvars.bound_contextvars(trace_id=span.trace_parent[3:35]):
                await inner(scope, receive, see_status)
        finally:
            _end(span, scope, status)

    return trace


def _begin(tracer: Tracer, scope: Scope) -> Span | None:
    """The span of a request: a part of the trace that this task is in, or that its headers name, or a new one."""
    sent = [value for header, value in scope["headers"] if header == b"traceparent"]
    states = [value for header, value in scope["headers"] if header == b"tracestate"]
    here = tracer.current()
    parent = here or (trace_parent_in(sent[0]) if len(sent) == 1 else None)
    state = None if here or not states else b",".join(states).decode("latin-1")
    method = _method(scope)
    attributes = {HTTP_METHOD: method, URL_PATH: scope["path"], URL_SCHEME: scope["scheme"]}
    return tracer.begin(method, "server", parent=parent, parent_state=state, attributes=attributes)


def _end(span: Span, scope: Scope, status: int | None) -> None:
    if not span.is_recorded:
        return
    attributes: dict[str, str | int] = {}
    route = scope.get("path_template")
    if route is not None:
        attributes[HTTP_ROUTE] = route
        span.rename(f"{_method(scope)} {route}")
    if status is not None:
        attributes[HTTP_STATUS] = status
    failed = status is None or status >= SERVER_ERROR
    span.end(attributes, error=("no_reply" if status is None else str(status)) if failed else None)


def _method(scope: Scope) -> str:
    """The method, as OpenTelemetry wants it: no word that a caller has made up."""
    method = str(scope.get("method"))
    return method if method in METHODS else "_OTHER"
