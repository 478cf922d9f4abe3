"""The fault kit does what it says: wires are cut where they should be, servers die and come back, disks fill up."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection, OperationalError
from psycopg.rows import TupleRow

from cqrskit.errors import ConfigurationError
from cqrskit.testing import CuttableWire, RestartablePostgres, SmallDisk, commits, eventually, every, says
from cqrskit.testing.postgres_messages import ClientMessages
from cqrskit.testing.wire import Delivery

INSERT = "INSERT INTO notes VALUES (%s)"


@pytest.fixture
async def wire(postgres_dsn: str) -> AsyncIterator[CuttableWire]:
    """A wire to a database with a table of notes."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (note int)")
    async with CuttableWire(postgres_dsn) as wire:
        yield wire


async def connect(wire: CuttableWire) -> AsyncConnection[TupleRow]:
    """A connection by way of the wire."""
    return await AsyncConnection.connect(wire.url, autocommit=True)


def notes(dsn: str) -> list[int]:
    """What the server has, seen past the wire."""
    with psycopg.connect(dsn) as connection:
        return [note for (note,) in connection.execute("SELECT note FROM notes ORDER BY note").fetchall()]


def is_broken(connection: psycopg.Connection[TupleRow]) -> bool:
    """Whether the server has ended this session; after a kill -9 of its main process it may still answer once."""
    try:
        connection.execute("SELECT 1")
    except OperationalError:
        return True
    return False


async def commit_note(connection: AsyncConnection[TupleRow], note: int, *, prepare: bool) -> None:
    """One note in a transaction of its own."""
    await connection.execute("BEGIN")
    await connection.execute(INSERT, (note,))
    await connection.execute("COMMIT", prepare=prepare)


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize(("delivery", "kept"), [("delivered", [1, 2]), ("lost", [1])])
async def test_a_wire_is_cut_at_a_commit_before_or_after_it_arrives(
    wire: CuttableWire, postgres_dsn: str, delivery: Delivery, kept: list[int], prepare: bool
) -> None:
    connection = await connect(wire)
    await commit_note(connection, 1, prepare=prepare)
    cut = wire.cut_at(commits, delivery)
    with pytest.raises(OperationalError):
        await commit_note(connection, 2, prepare=prepare)
    assert cut.done == 1
    assert notes(postgres_dsn) == kept
    again = await connect(wire)
    await commit_note(again, 3, prepare=prepare)
    assert notes(postgres_dsn) == [*kept, 3]
    await again.close()


async def test_a_late_commit_arrives_after_its_client_has_lost_the_connection(
    wire: CuttableWire, postgres_dsn: str
) -> None:
    connection = await connect(wire)
    wire.cut_at(commits, "late", late_seconds=0.5)
    with pytest.raises(OperationalError):
        await commit_note(connection, 1, prepare=False)
    assert notes(postgres_dsn) == []
    await eventually(lambda: notes(postgres_dsn) == [1])


@pytest.mark.parametrize("prepare", [False, True])
async def test_one_commit_is_delayed_while_others_go_on(wire: CuttableWire, postgres_dsn: str, prepare: bool) -> None:
    slow, quick = await connect(wire), await connect(wire)
    hold = wire.hold_at(commits)
    committing = asyncio.create_task(commit_note(slow, 1, prepare=prepare))
    await hold.reached()
    await commit_note(quick, 2, prepare=prepare)
    assert notes(postgres_dsn) == [2]
    assert not committing.done()
    hold.release()
    await committing
    assert notes(postgres_dsn) == [1, 2]
    await commit_note(slow, 3, prepare=prepare)
    assert hold.done == 1
    await slow.close()
    await quick.close()


async def test_what_is_dropped_never_reaches_the_server(wire: CuttableWire, postgres_dsn: str) -> None:
    connection = await connect(wire)
    hold = wire.hold_at(says("insert into notes"))
    writing = asyncio.create_task(connection.execute(INSERT, (1,)))
    await hold.reached()
    hold.drop()
    with pytest.raises(OperationalError):
        await writing
    assert notes(postgres_dsn) == []


async def test_a_hold_that_nobody_reaches_says_so(wire: CuttableWire) -> None:
    with pytest.raises(AssertionError, match="0 messages were held"):
        await wire.hold_at(commits).reached(timeout_seconds=0.05)


async def test_statements_are_recognised_in_pipelines_and_counted(wire: CuttableWire, postgres_dsn: str) -> None:
    cut = wire.cut_at(every(2, says("insert into NOTES")), "delivered")
    for _ in range(2):
        connection = await connect(wire)
        try:
            async with connection.pipeline():
                await connection.execute("SELECT 1")
                await connection.execute(INSERT, (cut.done,))
        except OperationalError:
            assert cut.done == 1
    assert cut.spent
    assert connection.broken
    assert notes(postgres_dsn) == [0, 0]


async def test_a_wire_is_cut_after_so_many_bytes(wire: CuttableWire, postgres_dsn: str) -> None:
    wire.cut_after_bytes(3_000)
    connection = await connect(wire)
    answered = 0

    async def insert_on() -> None:
        nonlocal answered
        while True:
            await connection.execute(INSERT, (answered,), prepare=False)
            answered += 1

    with pytest.raises(OperationalError):
        await insert_on()
    assert 10 < answered < 90
    assert len(notes(postgres_dsn)) in (answered, answered + 1)


async def test_a_cut_wire_refuses_until_it_is_mended(wire: CuttableWire) -> None:
    connection = await connect(wire)
    url = wire.url
    await wire.cut()
    with pytest.raises(OperationalError):
        await connection.execute("SELECT 1")
    with pytest.raises(OperationalError):
        await connect(wire)
    await wire.mend()
    assert wire.url == url
    again = await connect(wire)
    await wire.drop_connections()
    with pytest.raises(OperationalError):
        await again.execute("SELECT 1")
    await (await connect(wire)).close()


async def test_only_a_wire_to_postgres_knows_messages() -> None:
    async with CuttableWire("http://127.0.0.1:9200/path") as wire:
        assert wire.url.endswith("/path")
        with pytest.raises(ConfigurationError, match="no Postgres messages"):
            wire.cut_at(commits)
        with pytest.raises(ConfigurationError, match="no Postgres messages"):
            wire.hold_at(commits)


def test_messages_are_recognised_in_pieces_of_any_size() -> None:
    start = b"\0\0\0\x08\x04\xd2\x16\x2f" + b"\0\0\0\x09\0\3\0\0\0"
    query = b"Q" + (4 + len(b"SELECT 1; commit\0")).to_bytes(4, "big") + b"SELECT 1; commit\0"
    parsed = b"P" + (4 + len(b"s\0COMMIT\0\0\0")).to_bytes(4, "big") + b"s\0COMMIT\0\0\0"
    bound = b"B" + (4 + len(b"\0s\0\0\0\0\0\0\0")).to_bytes(4, "big") + b"\0s\0\0\0\0\0\0\0"
    executed = b"E" + (4 + 5).to_bytes(4, "big") + b"\0\0\0\0\0"
    stream = start + query + parsed + bound + executed + b"S\0\0\0\4"
    for size in (1, 3, len(stream)):
        messages = ClientMessages()
        found = [
            message for place in range(0, len(stream), size) for message in messages.take(stream[place : place + size])
        ]
        assert [each.kind for each in found] == ["Start", "Start", "Query", "Parse", "Bind", "Execute", "Sync"]
        assert [commits(each) for each in found] == [False, False, True, False, False, True, False]
        assert b"".join(each.raw for each in found) == stream


@pytest.mark.parametrize("how", ["fast", "immediate", "kill", "kill_backend"])
async def test_a_restartable_postgres_comes_back_at_the_same_address_with_what_was_committed(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str, how: str
) -> None:
    server, dsn = restartable_postgres, restartable_postgres_dsn
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (note int)")
        connection.execute("INSERT INTO notes VALUES (1)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO notes VALUES (2)")
        assert server.writers(dsn, "notes") == [connection.info.backend_pid]
        if how == "kill":
            server.kill()
        elif how == "kill_backend":
            server.kill_backend(connection.info.backend_pid)
        elif how in ("fast", "immediate"):
            server.shut_down("fast" if how == "fast" else "immediate")
        await eventually(lambda: is_broken(connection))
    if how != "kill_backend":
        await eventually(lambda: not server.running)
    server.start_again()
    assert notes(dsn) == [1]


def test_a_terminated_backend_is_the_only_one_to_go(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    with psycopg.connect(restartable_postgres_dsn) as one, psycopg.connect(restartable_postgres_dsn) as other:
        restartable_postgres.terminate_backend(one.info.backend_pid)
        with pytest.raises(OperationalError):
            one.execute("SELECT 1")
        other.execute("SELECT 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_small_disk_is_filled_and_freed() -> None:
    with SmallDisk(2) as disk:
        folder: Path = disk.folder
        assert disk.free_bytes == 2 * 1024 * 1024
        disk.fill()
        assert disk.free_bytes == 0
        with pytest.raises(OSError, match="No space left"):
            (folder / "more").write_bytes(bytes(100_000))
        disk.free()
        (folder / "more").write_bytes(bytes(100_000))
    assert not folder.exists()
