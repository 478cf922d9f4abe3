"""The write path: commands of one event each, beside the raw COPY of such rows and eventsourcing's own app."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import psycopg
from eventsourcing.application import Application as PeerApplication
from eventsourcing.domain import Aggregate as PeerAggregate
from eventsourcing.domain import event as peer_event

from cqrskit import Settings
from cqrskit.events import NewEvent
from cqrskit.postgres.binary_copy import encode_events
from cqrskit.postgres.sql import statement
from cqrskit.testing import PostgresServer
from tests.benchmarks.figures import Figure, rate
from tests.integration.counting import Grow, opened

__all__ = ["measure"]

PEER = "eventsourcing's application on its Postgres recorder"


async def measure(postgres: PostgresServer, scale: int) -> list[Figure]:
    """Commands in each second, by how many callers wait at once."""
    commits = await _commits(postgres, 3_000 // scale)
    alone, together = await _peer(postgres, 2_000 // scale, 1), await _peer(postgres, 8_000 // scale, 16)
    figures = []
    for callers, count in ((1, 2_000), (64, 20_000), (512, 40_000)):
        commands = await _callers(postgres, callers, count // scale)
        beside = {"empty commits one by one (limit of one caller)": commits} if callers == 1 else {}
        beside |= {f"{PEER}, one thread": alone} if callers == 1 else {f"{PEER}, 16 threads": together}
        figures.append(Figure(f"one event per command, {callers} callers", "commands", commands, beside))
    many, copied = await _many(postgres, 50_000 // scale), await _copied(postgres, 50_000 // scale)
    beside = {"raw binary COPY of such rows in batches of 1,000 (limit)": copied, f"{PEER}, 16 threads": together}
    figures.append(Figure("one event per command, execute_many", "commands", many, beside))
    return figures


async def _callers(postgres: PostgresServer, callers: int, count: int) -> float:
    url = postgres.create_database()
    ids = [uuid4() for _ in range(1_000)]
    async with opened(Settings(database_url=url)) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])

        async def call(number: int) -> None:
            for step in range(number, count, callers):
                await runtime.executor.execute(Grow(counter_id=ids[step % 1_000]))

        found = await rate(count, lambda: asyncio.gather(*(call(number) for number in range(callers))))
    postgres.drop_database(url)
    return found


async def _many(postgres: PostgresServer, count: int) -> float:
    url = postgres.create_database()
    ids = [uuid4() for _ in range(1_000)]
    async with opened(Settings(database_url=url)) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=each) for each in ids])

        async def run() -> None:
            for begin in range(0, count, 5_000):
                size = min(5_000, count - begin)
                await runtime.executor.execute_many([Grow(counter_id=ids[step % 1_000]) for step in range(size)])

        found = await rate(count, run)
    postgres.drop_database(url)
    return found


async def _commits(postgres: PostgresServer, count: int) -> float:
    """Commits of the head row alone: what the disk gives one caller."""
    url = postgres.create_database()

    with psycopg.connect(url, autocommit=True) as connection:

        async def run() -> None:
            for _ in range(count):
                connection.execute(statement("take_log_head"), {"count": 0})

        await run()  # the server has just started
        found = await rate(count, run)
    postgres.drop_database(url)
    return found


def _rows(stream_ids: Sequence[UUID], version: int) -> list[NewEvent]:
    moment = datetime.now(UTC)
    return [NewEvent(each, version, "Counter.Grown", b'{"by":1}', b'{"command":"Grow"}', moment) for each in stream_ids]


async def _copied(postgres: PostgresServer, count: int) -> float:
    """The same rows, written by nothing but COPY."""
    url = postgres.create_database()
    ids = [uuid4() for _ in range(1_000)]

    async def run() -> None:
        with psycopg.connect(url) as connection:
            for batch in range(count // 1_000):
                connection.execute(statement("take_log_head"), {"count": 1_000})
                with connection.cursor() as cursor, cursor.copy(statement("copy_events")) as copy:
                    copy.write(encode_events(_rows(ids, batch + 1), 1 + batch * 1_000))
                connection.commit()

    found = await rate(count, run)
    postgres.drop_database(url)
    return found


class PeerCounter(PeerAggregate):
    """The same counter in eventsourcing's own words."""

    def __init__(self) -> None:
        self.value = 0

    @peer_event("Grown")
    def grow(self, by: int) -> None:
        """Add to it."""
        self.value += by


async def _peer(postgres: PostgresServer, count: int, threads: int) -> float:
    """The peer on the same server, as its documentation sets it up; each thread has counters of its own."""
    url = postgres.create_database(migrated=False)
    parts = urlsplit(url)
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parts.hostname or parse_qs(parts.query)["host"][0],
        "POSTGRES_PORT": str(parts.port or os.environ.get("PGPORT", "5432")),
        "POSTGRES_USER": parts.username or "postgres",
        "POSTGRES_PASSWORD": parts.password or "none",
        "POSTGRES_MAX_OVERFLOW": str(threads),
    }
    application: Any = PeerApplication(environment)
    counters = [PeerCounter() for _ in range(160)]
    application.save(*counters)

    def grow(thread: int) -> None:
        for step in range(thread, count, threads):
            counter: Any = application.repository.get(counters[step % len(counters)].id)
            counter.grow(by=1)
            application.save(counter)

    async def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(grow, range(threads)))

    found = await rate(count, run)
    application.close()
    postgres.drop_database(url)
    return found
