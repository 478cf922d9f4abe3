"""Waking followers: one coalesced NOTIFY after commits, and a listener for those who follow."""

import asyncio
from collections.abc import Callable
from weakref import WeakSet

import psycopg
import structlog

from cqrskit.errors import ServerUnavailable
from cqrskit.postgres.connections import connect, is_pooled
from cqrskit.postgres.sql import statement
from cqrskit.tasks import end_tasks

__all__ = ["LogListener", "LogNotifier"]

log = structlog.get_logger(__name__)

NOTIFY_INTERVAL_SECONDS = 0.02
RECONNECT_INTERVAL_SECONDS = 1.0


class LogNotifier:
    """Sends one NOTIFY for any number of commits within 20 ms, outside their transactions."""

    def __init__(self, url: str, *, connect_timeout_seconds: float, on_reconnect: Callable[[], None]) -> None:
        """`on_reconnect` is called when the connection was lost, before it is made anew."""
        self._url = url
        self._on_reconnect = on_reconnect
        self._connect_timeout_seconds = connect_timeout_seconds
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def committed(self) -> None:
        """Tell followers soon that the log has grown."""
        self._wake.set()

    async def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="cqrskit-notifier")

    async def stop(self) -> None:
        """Stop sending; followers poll."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        while True:
            try:
                connection = await connect(self._url, timeout_seconds=self._connect_timeout_seconds)
                async with connection:
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        await connection.execute(statement("notify_followers"))
                        await asyncio.sleep(NOTIFY_INTERVAL_SECONDS)
            except (psycopg.Error, ServerUnavailable) as error:
                log.warning("notifier.disconnected", reason=str(error))
                self._on_reconnect()
                await asyncio.sleep(RECONNECT_INTERVAL_SECONDS)


class LogListener:
    """Listens for the log's growth and sets the events of those who wait for it. Behind a pooler nobody can listen."""

    def __init__(self, url: str, *, connect_timeout_seconds: float, on_reconnect: Callable[[], None]) -> None:
        """`on_reconnect` is called when the connection was lost, before it is made anew."""
        self._url = url
        self._on_reconnect = on_reconnect
        self._connect_timeout_seconds = connect_timeout_seconds
        self._followers: WeakSet[asyncio.Event] = WeakSet()  # projectors come and go with their leases
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> asyncio.Event:
        """An event that is set whenever the log may have grown; its owner clears it."""
        follower = asyncio.Event()
        self._followers.add(follower)
        return follower

    def wake(self) -> None:
        """Wake all followers of this process."""
        for follower in self._followers:
            follower.set()

    async def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run(), name="cqrskit-listener")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        while True:
            try:
                connection = await connect(self._url, timeout_seconds=self._connect_timeout_seconds)
                async with connection:
                    if is_pooled(connection):
                        log.info("listener.polls")
                        return
                    await connection.execute(statement("listen_to_log"))
                    self.wake()
                    async for _ in connection.notifies():
                        self.wake()
            except (psycopg.Error, ServerUnavailable) as error:
                log.warning("listener.disconnected", reason=str(error))
                self._on_reconnect()
            await asyncio.sleep(RECONNECT_INTERVAL_SECONDS)
