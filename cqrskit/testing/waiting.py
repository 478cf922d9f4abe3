"""Waiting for a condition with a deadline, in place of sleeping for a guessed time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["eventually"]

T = TypeVar("T")


async def eventually(predicate: Callable[[], T | Awaitable[T]], *, timeout_seconds: float = 10.0) -> T:
    """What `predicate` returns as soon as that is truthy; AssertionError with its last value at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = predicate()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"still {value!r} after {timeout_seconds:g} s")
        await asyncio.sleep(0.02)
