"""Ending asyncio tasks for certain, trying again with a deadline, and beginning what may take long."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any, TypeVar

__all__ = ["end_tasks", "enter_unless_stopped", "retry_delays"]

T = TypeVar("T")

CANCEL_AGAIN_SECONDS = 1.0
FIRST_DELAY_SECONDS = 0.01
DELAY_MAX_SECONDS = 0.5


async def retry_delays(timeout_seconds: float) -> AsyncIterator[int]:
    """Count attempts, 1, 2, 3 …, with growing pauses between them, until the time is over; at least one."""
    deadline = time.monotonic() + timeout_seconds
    delay_seconds = FIRST_DELAY_SECONDS
    attempt = 1
    while True:
        yield attempt
        if time.monotonic() + delay_seconds > deadline:
            return
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(2 * delay_seconds, DELAY_MAX_SECONDS)
        attempt += 1


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended, however they end.

    A cancellation can be lost in code of others, such as Python 3.11's `asyncio.wait_for`, so it is repeated.
    """
    tasks = list(tasks)
    remaining = {task for task in tasks if not task.done()}
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen here, so that asyncio does not complain that nobody has


async def enter_unless_stopped(
    stack: AsyncExitStack, context: AbstractAsyncContextManager[T], stop: asyncio.Event
) -> T | None:
    """What the context gives, entered on the stack; None if `stop` was set before, which undoes what was begun.

    The context is entered in the caller's own task, as some of them need.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.ensure_future(stop.wait())
    limit = asyncio.timeout(None)

    def end(_: object) -> None:
        with suppress(RuntimeError):  # it has been entered meanwhile
            limit.reschedule(loop.time())

    stopping.add_done_callback(end)
    try:
        async with limit:
            entered = await stack.enter_async_context(context)
            await asyncio.sleep(0)  # a cancellation that is on its way arrives here, not later elsewhere
            return entered
    except TimeoutError:
        if not limit.expired():
            raise
        return None
    finally:
        stopping.remove_done_callback(end)
        await end_tasks([stopping])
