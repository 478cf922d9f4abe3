"""Serving under uvicorn: fails at the start rather than at the first request, and stops without dropping anything."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import structlog
import uvicorn
from litestar import Litestar

from cqrskit.errors import ConfigurationError
from cqrskit.settings import Settings
from cqrskit.tasks import enter_unless_stopped, retry_delays
from cqrskit.web.plugin import CqrskitPlugin

__all__ = ["serve"]

log = structlog.get_logger(__name__)

BACKLOG = 2048
LINGER_SECONDS_MAX = 0.5
"""So long a stopping server keeps connections that are idle, to answer what is on its way on them."""


async def serve(
    app: Litestar,
    settings: Settings,
    *,
    stop: asyncio.Event,
    on_listening: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Serve `app` on the settings' host and port until `stop` is set; then finish the requests in flight.

    Once stopped it takes no connection any more, finishes accepted commands, and answers new ones that come on
    connections which are there already with 503 ``shutting_down``. A start that waits for servers is given up.

    `on_listening` is told the address when requests are answered; it runs beside the server, and its error ends it.
    Raises ConfigurationError if the address cannot be had, and whatever the app's start raises.
    """
    listener = _bind(settings.host, settings.port)
    with contextlib.closing(listener):
        async with contextlib.AsyncExitStack() as stack:
            if not await enter_unless_stopped(stack, _lifespan(app), stop):
                return
            _listen(listener, settings)
            async with _listening(app, listener, settings) as server:
                await _until_stopped(server, stop, on_listening, address_of(listener))


@contextlib.asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[bool]:
    """The app's lifespan: True, once it is there. Errors come out as themselves, not in a group that Litestar makes."""
    try:
        async with app.lifespan():
            yield True
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from error.__cause__


async def _until_stopped(
    server: "asyncio.Task[None]",
    stop: asyncio.Event,
    on_listening: Callable[[str], Awaitable[None]] | None,
    address: str,
) -> None:
    """Wait for `stop`, for the server's end, or for an error of the callback."""
    log.info("service.listening", address=address)
    stopping = asyncio.ensure_future(stop.wait())
    callback = None if on_listening is None else asyncio.ensure_future(on_listening(address))
    waited_for: set[asyncio.Future[Any]] = {stopping, server}
    try:
        if callback is not None:
            await asyncio.wait({*waited_for, callback}, return_when=asyncio.FIRST_COMPLETED)
            if callback.done():
                callback.result()
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, callback):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})


@contextlib.asynccontextmanager
async def _listening(app: Litestar, listener: socket.socket, settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """Uvicorn at work on a listening socket; leaving the context lets it finish its requests."""
    _log_through_structlog()
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout_seconds)),
    )
    server = _Server(config, on_stop=lambda: _begin_drain(app))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="cqrskit-http")
    try:
        yield task
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers, since the program that serves has its own, and with a gentler end.

    Uvicorn closes idle connections at once, also when a request is on its way on them, whose sender then does not know
    what became of it. Here each reply of a stopping server ends its connection, and only those that stay idle for a
    while are closed unasked.
    """

    def __init__(self, config: uvicorn.Config, *, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what is on its way, and close what is left."""
        for server in self.servers:
            server.close()
        for each in sockets or ():
            each.close()
        self._on_stop()
        async for _ in retry_delays(min(LINGER_SECONDS_MAX, (self.config.timeout_graceful_shutdown or 1) / 4)):
            if not self.server_state.connections:
                break
        await super().shutdown(sockets)


def _begin_drain(app: Litestar) -> None:
    for plugin in app.plugins:
        if isinstance(plugin, CqrskitPlugin):
            plugin.begin_drain()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _listen(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings.host, settings.port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot listen on {host}:{port}: {error.strerror or error}. Choose another with --port or CQRSKIT_PORT "
        "(0 picks a free one)."
    )


def address_of(listener: socket.socket) -> str:
    """The URL that reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Forward(logging.Handler):
    """Hands uvicorn's warnings and errors to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        log.log(record.levelno, "server.message", message=record.getMessage(), exc_info=record.exc_info)


def _log_through_structlog() -> None:
    logger = logging.getLogger("uvicorn")
    logger.handlers = [_Forward()]
    logger.setLevel(logging.WARNING)
    logger.propagate = False
