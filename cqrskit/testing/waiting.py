"""Waiting for a condition with a deadline, in place of sleeping for a guessed time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

__all__ = ["eventually"]

T = TypeVar("T")


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], *, timeout_seconds: float = 10.0) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], *, timeout_seconds: float = 10.0) -> T: ...
async def eventually(predicate: Callable[[], object], *, timeout_seconds: float = 10.0) -> object:
    """What `predicate` returns as soon as that is truthy; AssertionError with its last value at the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = predicate()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"still {value!r} after {timeout_seconds:g} s")
        await asyncio.sleep(0.02)
