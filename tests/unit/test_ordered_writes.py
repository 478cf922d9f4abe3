"""Writes that overlap are noted in the order in which they were begun, and never overlap on one document."""

import asyncio
from functools import partial

import pytest

from cqrskit.ordered_writes import OrderedWrites, Turn


class Desk:
    """Writes that end when somebody says so, and what was seen of them, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.ends = {name: asyncio.Event() for name in "abcd"}
        self.failing: set[str] = set()

    async def write(self, name: str, turn: Turn) -> None:
        self.seen.append(f"{name} sent")
        await self.ends[name].wait()
        if name in self.failing:
            raise OSError(name)
        await turn()
        self.seen.append(f"{name} noted")

    async def begin(self, writes: OrderedWrites, name: str, *keys: str) -> None:
        await writes.make_room(set(keys))
        writes.begin(set(keys), partial(self.write, name))
        await asyncio.sleep(0)


async def idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_two_writes_of_different_documents_overlap_and_are_noted_in_order() -> None:
    desk, writes = Desk(), OrderedWrites("writes")
    await desk.begin(writes, "a", "x")
    await desk.begin(writes, "b", "y")
    assert desk.seen == ["a sent", "b sent"]
    desk.ends["b"].set()
    await idle()
    assert desk.seen == ["a sent", "b sent"]
    desk.ends["a"].set()
    await writes.finish()
    assert desk.seen == ["a sent", "b sent", "a noted", "b noted"]


async def test_a_third_write_waits_for_the_first() -> None:
    desk, writes = Desk(), OrderedWrites("writes")
    await desk.begin(writes, "a", "x")
    await desk.begin(writes, "b", "y")
    third = asyncio.create_task(desk.begin(writes, "c", "z"))
    await idle()
    assert "c sent" not in desk.seen
    desk.ends["a"].set()
    await third
    assert desk.seen == ["a sent", "b sent", "a noted", "c sent"]
    await writes.stop()


async def test_a_write_of_the_same_document_waits_until_the_one_before_is_noted() -> None:
    desk, writes = Desk(), OrderedWrites("writes")
    await desk.begin(writes, "a", "x", "y")
    second = asyncio.create_task(desk.begin(writes, "b", "y", "z"))
    await idle()
    assert desk.seen == ["a sent"]
    desk.ends["a"].set()
    await second
    assert desk.seen == ["a sent", "a noted", "b sent"]
    await writes.stop()


async def test_what_a_write_failed_with_ends_those_after_it_unnoted() -> None:
    desk, writes = Desk(), OrderedWrites("writes")
    desk.failing.add("a")
    await desk.begin(writes, "a", "x")
    await desk.begin(writes, "b", "y")
    desk.ends["a"].set()
    desk.ends["b"].set()
    with pytest.raises(OSError, match="a"):
        await writes.finish()
    await writes.stop()
    await writes.make_room({"x", "y"})
    assert desk.seen == ["a sent", "b sent"]


async def test_stop_gives_up_what_is_under_way() -> None:
    desk, writes = Desk(), OrderedWrites("writes")
    await desk.begin(writes, "a", "x")
    await writes.stop()
    desk.ends["a"].set()
    await writes.finish()
    assert desk.seen == ["a sent"]
