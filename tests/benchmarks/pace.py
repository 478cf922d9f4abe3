"""Arrivals at moments that do not depend on answers: an open loop.

A closed loop asks again only when it was answered, so a stall delays the very questions that would have shown it
(coordinated omission). Here each arrival has a moment at which it is due, and its latency counts from there, also
when the loop was late to begin it.
"""

import asyncio
import ctypes
import os
import random
import sys
import time
from collections.abc import Callable

__all__ = ["arrivals", "at_moments"]

CLOCK_MONOTONIC, NONBLOCKING_CLOEXEC, ABSOLUTE = 1, 0o2004000, 1


class _TimerSpecification(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


def arrivals(per_second: float, seconds: float, *, seed: int = 1) -> list[float]:
    """Moments of a Poisson process, in seconds from its beginning."""
    random_number = random.Random(seed)
    moments = []
    moment = random_number.expovariate(per_second)
    while moment < seconds:
        moments.append(moment)
        moment += random_number.expovariate(per_second)
    return moments


async def at_moments(moments: list[float], fire: Callable[[float], object]) -> None:
    """Call `fire` with the due time (of ``time.perf_counter``) at each of `moments`, counted from now.

    Timers of event loops tick in milliseconds, too coarse for thousands of arrivals each second; Linux' own timers
    do not.
    """
    begun = time.perf_counter() + 0.01
    due = [begun + moment for moment in moments]
    if sys.platform == "linux":
        await _by_timer(due, fire)
        return
    for moment in due:
        if (wait := moment - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        fire(moment)


async def _by_timer(due: list[float], fire: Callable[[float], object]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    timer = libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCKING_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "cannot make a timer")
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    place = 0

    def arm(moment: float) -> None:
        seconds, nanoseconds = divmod(round(moment * 1e9), 1_000_000_000)
        specification = _TimerSpecification(0, 0, seconds, nanoseconds)
        libc.timerfd_settime(timer, ABSOLUTE, ctypes.byref(specification), None)

    def tick() -> None:
        nonlocal place
        try:
            os.read(timer, 8)
        except BlockingIOError:
            return
        now = time.perf_counter()
        try:
            while place < len(due) and due[place] <= now:
                fire(due[place])
                place += 1
        except Exception as error:
            finished.set_exception(error)
            return
        if place < len(due):
            arm(due[place])
        elif not finished.done():
            finished.set_result(None)

    loop.add_reader(timer, tick)
    try:
        arm(due[0] if due else time.perf_counter())
        await finished
    finally:
        loop.remove_reader(timer)
        os.close(timer)
