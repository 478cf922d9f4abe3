"""Several writer processes and a follower: every position once, in order, though commits are late."""

import asyncio

import psycopg

from cqrskit import Settings
from tests.integration.counting import opened
from tests.integration.running_processes import finish, start

COMMANDS = 200


async def test_a_follower_sees_every_position_once_in_order_while_four_processes_write(postgres_dsn: str) -> None:
    delays = ("0", "0", "0", "0.1")
    writers = [await start(postgres_dsn, str(COMMANDS), delay, module="tests.faults.writer") for delay in delays]
    ends = asyncio.gather(*(finish(writer) for writer in writers))
    seen: list[int] = []
    async with opened(Settings(database_url=postgres_dsn)) as runtime:
        position = 0
        while True:
            finished = ends.done()
            block = await runtime.event_store.read(position, 100)
            seen += [event.position for event in block.events]
            position = block.until
            if finished and position == block.head:
                break
            await asyncio.sleep(0.001)
    results = await ends
    assert [result.code for result in results] == [0] * 4, results
    acknowledged = sum(int(result.out) for result in results)
    assert acknowledged == 4 * COMMANDS
    assert seen == list(range(1, 2 * acknowledged + 1))
    with psycopg.connect(postgres_dsn) as connection:
        row = connection.execute("SELECT max(position), count(*) FROM events").fetchone()
    assert row == (2 * acknowledged, 2 * acknowledged)
