"""A fault that waits for its moment: how often it has happened, and whether it may happen again."""

import asyncio

__all__ = ["Fault", "Hold"]

HELD_TIMEOUT_SECONDS = 30.0


class Fault:
    """`done` counts how often it has happened, `times` how often it may; None: until it is cancelled."""

    def __init__(self, times: int | None = 1) -> None:
        self.times = times
        self.done = 0

    @property
    def spent(self) -> bool:
        """Whether it has happened as often as it may."""
        return self.times is not None and self.done >= self.times

    def cancel(self) -> None:
        """Let it happen no more."""
        self.times = self.done


class Hold(Fault):
    """Messages that wait on the wire until they are released, or dropped together with their connections."""

    def __init__(self, times: int | None = 1) -> None:
        super().__init__(times)
        self._over = asyncio.Event()
        self._changed = asyncio.Condition()
        self._delivers = True

    async def reached(self, count: int = 1, *, timeout_seconds: float = HELD_TIMEOUT_SECONDS) -> None:
        """Wait until so many messages have been held; AssertionError at the deadline."""
        try:
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(lambda: self.done >= count)
        except TimeoutError:
            raise AssertionError(f"{self.done} messages were held after {timeout_seconds:g} s, not {count}") from None

    def release(self) -> None:
        """Pass on what is held, also where its sender has gone meanwhile, and hold no more."""
        self.cancel()
        self._over.set()

    def drop(self) -> None:
        """Break the connections of what is held, which is never passed on, and hold no more."""
        self._delivers = False
        self.release()

    async def take(self) -> bool:
        """Hold a message; afterwards, whether it is to be passed on. For wires."""
        self.done += 1
        async with self._changed:
            self._changed.notify_all()
        await self._over.wait()
        return self._delivers
