"""Ending asyncio tasks for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end_tasks"]

CANCEL_AGAIN_SECONDS = 1.0


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended, however they end.

    A cancellation can be lost in code of others, such as Python 3.11's `asyncio.wait_for`, so it is repeated.
    """
    remaining = {task for task in tasks if not task.done()}
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_AGAIN_SECONDS)
