"""What the log's length costs: append and load with an empty log, and with millions of events in it."""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from functools import partial
from struct import Struct
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from cqrskit import Runtime, Settings
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_most, interleaved, mean_seconds
from tests.benchmarks.peers.raw_copy import BEGIN, COLUMNS, END
from tests.benchmarks.samples import EVENTS_PER_STREAM, METADATA, TYPE, event_batches, payload_of
from tests.benchmarks.writes import append, commands_of_callers, grown
from tests.integration.counting import opened

__all__ = ["fill", "measure"]

LENGTHS: tuple[int, ...] = (0, 1_000_000, 10_000_000)
QUICK_LENGTHS: tuple[int, ...] = (0, 100_000, 300_000)
TINY_LENGTHS: tuple[int, ...] = (0, 40_000)
LEAST = 20_000
"""Events in the log that counts as empty, so that there are streams to load."""
STREAMS_PER_BLOCK = 2_000
FILLERS = 2
STREAMS_LOADED = 1_000
CALLERS = 64
BATCH = 1_000
COPY = f"COPY events {COLUMNS} FROM STDIN (FORMAT BINARY)"
_place = Struct("!hiqi16si").pack


class Log(msgspec.Struct):
    """A log of some length, open, with the ids of some of its streams and of counters that it holds."""

    length: int
    runtime: Any
    counters: list[UUID]
    streams: list[UUID]


async def measure(bench: Bench) -> list[Row]:
    """Three logs side by side, measured in turns."""
    lengths = LENGTHS if bench.share >= 1 else QUICK_LENGTHS if bench.share >= 0.01 else TINY_LENGTHS
    batches, commands = bench.amount(30, at_least=3), bench.amount(10_000, at_least=CALLERS)
    async with AsyncExitStack() as stack:
        logs = [await _log(bench, stack, length) for length in lengths]
        bench.say("appending to and loading from each")
        sides = {
            (what, log.length): Side(f"{what} at {log.length}", work)
            for log in logs
            for what, work in (
                ("append", partial(_append_microseconds, log.runtime, batches)),
                ("commands", partial(_command_microseconds, log, commands)),
                ("load", partial(_load_milliseconds, log)),
            )
        }
        await interleaved(bench.rounds, *sides.values())
    names = {
        "append": ("appending batches of 1,000, per event", "µs", at_most(1.3)),
        "commands": (f"one-event commands, {CALLERS} callers, each", "µs", at_most(1.3)),
        "load": (f"loading {STREAMS_LOADED:,} streams of 10 events at once", "ms", None),
    }
    return [
        Row(f"{name} at {length:,} events", unit, sides[what, length].value, "at 0", sides[what, 0].value, limit)
        for what, (name, unit, limit) in names.items()
        for length in lengths[1:]
    ]


async def _log(bench: Bench, stack: AsyncExitStack, length: int) -> Log:
    url = stack.enter_context(bench.database())
    bench.say(f"filling a log with {length:,} events")
    streams = await fill(url, max(length, LEAST))
    runtime: Runtime = await stack.enter_async_context(opened(Settings(database_url=url)))
    return Log(length, runtime, await grown(runtime), streams)


async def fill(url: str, length: int) -> list[UUID]:
    """Write events straight into the log, ten to each stream, as if many streams had grown side by side.

    Returns the ids of some streams from all over the log.
    """
    size = STREAMS_PER_BLOCK * EVENTS_PER_STREAM
    blocks = -(-length // size)
    found = await asyncio.gather(*(asyncio.to_thread(_fill, url, range(n, blocks, FILLERS)) for n in range(FILLERS)))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE log_head SET position = %s", (blocks * size,))
        connection.execute("VACUUM (ANALYZE) events")
        connection.execute("CHECKPOINT")
    return [stream_id for part in found for stream_id in part]


def _fill(url: str, blocks: range) -> list[UUID]:
    kept = max(1, STREAMS_LOADED * 20 // (len(blocks) * FILLERS or 1))
    some: list[UUID] = []
    with psycopg.connect(url) as connection:
        for block in blocks:
            streams = [UUID(bytes=os.urandom(16), version=4) for _ in range(STREAMS_PER_BLOCK)]
            some += streams[:kept]
            with connection.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(_block(streams, 1 + block * STREAMS_PER_BLOCK * EVENTS_PER_STREAM))
            connection.commit()
    return some


def _block(streams: list[UUID], position: int) -> bytes:
    rows = []
    for stream_id in streams:
        columns = [TYPE.encode(), payload_of(stream_id), METADATA, bytes(8)]
        rows.append((stream_id.bytes, b"".join(len(each).to_bytes(4, "big") + each for each in columns)))
    parts = [BEGIN]
    for version in range(1, EVENTS_PER_STREAM + 1):
        for stream_bytes, rest in rows:
            parts.append(_place(7, 8, position, 16, stream_bytes, 4) + version.to_bytes(4, "big") + rest)
            position += 1
    parts.append(END)
    return b"".join(parts)


async def _append_microseconds(runtime: Runtime, count: int) -> float:
    batches = event_batches(count, BATCH)
    return 1e6 * await mean_seconds(count * BATCH, lambda: append(runtime, batches))


async def _command_microseconds(log: Log, count: int) -> float:
    return 1e6 / await commands_of_callers(log.runtime, log.counters, CALLERS, count)


async def _load_milliseconds(log: Log) -> float:
    """Streams picked at random; the events are counted, so that none is missing."""
    wanted = random.sample(log.streams, STREAMS_LOADED)
    found = 0

    async def run() -> None:
        nonlocal found
        found = len(await log.runtime.event_store.load_streams(wanted))

    taken = 1000 * await mean_seconds(1, run)
    assert found == STREAMS_LOADED * EVENTS_PER_STREAM, f"{found} events were loaded"
    return taken
