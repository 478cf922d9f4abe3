"""A PgBouncer in transaction mode stands before Postgres, and fails: the log tells what callers were told."""

import asyncio
from uuid import uuid4

import psycopg
import pytest

from cqrskit import CommitUnknown, ServerUnavailable
from cqrskit.event_store import NewBatch
from cqrskit.testing import ClientMessage, CuttableWire, PgBouncer, PostgresServer, commits, eventually, every
from cqrskit.testing.postgres_messages import Match
from cqrskit.testing.wire import Delivery
from tests.faults.test_lost_postgres import WAIT_SECONDS, at_work, makes_durable, progress
from tests.integration.test_event_store import append, new, opened

CUTS = 25


@pytest.mark.parametrize("delivery", ["delivered", "lost", "late"])
async def test_the_log_tells_what_callers_were_told_though_the_way_to_the_pooler_is_cut(
    postgres_dsn: str, pgbouncer_dsn: str, delivery: Delivery
) -> None:
    async with CuttableWire(pgbouncer_dsn) as wire, at_work(postgres_dsn, wire.url) as load:
        await progress(load)
        cut = wire.cut_at(every(5, makes_durable), delivery, times=CUTS, late_seconds=0.1)
        await eventually(lambda: cut.spent, timeout_seconds=WAIT_SECONDS)
        await progress(load)


def whole_append(message: ClientMessage) -> bool:
    """The first message of an append, so that nothing of it has reached the pooler before."""
    return message.kind == "Parse" and "INSERT INTO command_receipts" in message.statement


@pytest.mark.parametrize("message", [whole_append, commits])
async def test_an_append_that_reaches_the_pooler_late_is_not_written_once_it_was_found_not_to_be(
    pgbouncer_dsn: str, message: Match
) -> None:
    async with CuttableWire(pgbouncer_dsn) as wire, opened(wire.url) as store:
        for _ in range(3):
            await append(store, new(uuid4(), 1))
            cut = wire.cut_at(message, "late", late_seconds=0.5)
            lost = NewBatch([new(uuid4(), 1)], [])
            found = None
            with pytest.raises((CommitUnknown, ServerUnavailable)) as failure:
                await store.append(lost)
            if failure.type is CommitUnknown:
                found = await store.settle(lost)
            await eventually(lambda cut=cut: cut.delivered == 1)  # type: ignore[misc]
            assert bool(await store.load_streams([lost.events[0].stream_id])) == (found is not None)


async def test_the_log_tells_what_callers_were_told_though_the_pooler_is_restarted(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    bouncer = PgBouncer(postgres_server.url)
    await asyncio.to_thread(bouncer.start)
    try:
        async with at_work(postgres_dsn, bouncer.url_of(postgres_dsn)) as load:
            for _ in range(3):
                await progress(load)
                await asyncio.to_thread(bouncer.restart)
            await progress(load)
    finally:
        await asyncio.to_thread(bouncer.stop)


async def test_the_log_tells_what_callers_were_told_though_the_poolers_sessions_are_ended(
    postgres_dsn: str, pgbouncer_dsn: str
) -> None:
    async with at_work(postgres_dsn, pgbouncer_dsn) as load:
        for _ in range(8):
            await progress(load)
            await asyncio.to_thread(_end_sessions, postgres_dsn)
        await progress(load)


def _end_sessions(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
