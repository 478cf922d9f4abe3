"""Beginning what may take long, and giving it up when somebody wants to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from cqrskit.tasks import enter_unless_stopped
from cqrskit.testing import eventually


class Opening:
    """Something that is open once `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.told: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        self.told.append("begun")
        try:
            await self.go_on.wait()
            self.told.append("open")
            yield "it"
        finally:
            self.told.append("closed")


async def test_what_has_begun_stays_open_whatever_is_stopped_later() -> None:
    opening, stop = Opening(), asyncio.Event()
    opening.go_on.set()
    async with AsyncExitStack() as stack:
        assert await enter_unless_stopped(stack, opening.open(), stop) == "it"
        stop.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert opening.told == ["begun", "open"]
    assert opening.told == ["begun", "open", "closed"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_stop_ends_what_is_beginning(when: str) -> None:
    opening, stop = Opening(), asyncio.Event()
    if when == "before":
        stop.set()
    else:
        asyncio.get_running_loop().call_later(0.01, stop.set)
    async with AsyncExitStack() as stack:
        assert await enter_unless_stopped(stack, opening.open(), stop) is None
        assert opening.told == ["begun", "closed"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_stop_and_the_end_of_the_beginning_at_once_leave_no_cancellation_behind() -> None:
    for turns in range(6):
        opening, stop = Opening(), asyncio.Event()

        async def both(opening: Opening = opening, stop: asyncio.Event = stop, turns: int = turns) -> None:
            stop.set()
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.go_on.set()

        async with AsyncExitStack() as stack:
            setting = asyncio.create_task(both())
            await enter_unless_stopped(stack, opening.open(), stop)
            await asyncio.sleep(0.01)
            await setting
        assert opening.told[-1] == "closed"


async def test_a_time_out_of_what_is_beginning_is_its_own() -> None:
    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)
        yield

    async with AsyncExitStack() as stack:
        with pytest.raises(TimeoutError):
            await enter_unless_stopped(stack, slow(), asyncio.Event())


async def test_a_cancellation_of_the_caller_is_a_cancellation() -> None:
    opening = Opening()

    async def enter() -> None:
        async with AsyncExitStack() as stack:
            await enter_unless_stopped(stack, opening.open(), asyncio.Event())

    task = asyncio.create_task(enter())
    await eventually(lambda: opening.told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opening.told == ["begun", "closed"]
