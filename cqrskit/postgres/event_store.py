"""The event store on Postgres: a head row that sequences, one statement that appends a batch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import starmap
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cqrskit.errors import CommitUnknown
from cqrskit.event_store import FeedBlock, Found, NewBatch, Snapshot
from cqrskit.events import RecordedEvent
from cqrskit.partition import Partition
from cqrskit.postgres.binary_columns import BigintColumn, ByteaColumn, IntegerColumn, TextColumn, UuidColumn
from cqrskit.postgres.connections import AsyncPool, connection_errors
from cqrskit.postgres.sql import statement
from cqrskit.postgres.writer import Writer, append_batch
from cqrskit.receipts import Receipt, RecordedReceipt

__all__ = ["PostgresEventStore", "PostgresLockedLog"]

T = TypeVar("T")

RECEIPT, SNAPSHOT = 0, 1
"""Kinds of rows that load_batch.sql tells apart; the others are events."""


class PostgresLockedLog:
    """One open transaction that holds the head row; see `cqrskit.event_store.LockedLog`."""

    def __init__(self, connection: AsyncConnection[TupleRow], url: str, previous_head: int) -> None:
        self._connection = connection
        self._url = url
        self.previous_head = previous_head

    async def load(self, streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
        """See the port; what this sees cannot change before the transaction ends."""
        return await _load(self._connection, streams, keys, shapes)

    async def append(self, batch: NewBatch) -> None:
        """Write the batch; see the port."""
        await append_batch(self._connection, self._url, batch, None)

    async def find_batch(self, batch: NewBatch) -> int | None:
        """The head before this very batch if it is in the log; its first event, or receipt, tells."""
        if batch.events:
            event = batch.events[0]
            where: dict[str, object] = {"stream_id": event.stream_id, "stream_version": event.stream_version}
            position = await self._position_of("find_event", where, event.data, event.metadata, event.recorded_at)
            return None if position is None else position - 1
        if batch.receipts:
            receipt = next((each for each in batch.receipts if each.position is None), batch.receipts[0])
            position = await self._position_of(
                "find_receipt", {"key": receipt.key}, receipt.command, receipt.outcome, receipt.recorded_at
            )
            if position is None:
                return None
            return self.previous_head if receipt.position is not None else position - receipt.place
        return None

    async def _position_of(self, name: str, where: dict[str, object], *content: object) -> int | None:
        """The position in the one row of this place, if the row has this content."""
        cursor = await self._connection.execute(statement(name), where, binary=True)
        row = await cursor.fetchone()
        if row is None or (row[1], row[2], row[3]) != content:
            return None
        position: int = row[0]
        return position


class PostgresEventStore:
    """The log in one Postgres database. Reads use the pool; appends use a connection of their own."""

    def __init__(
        self,
        pool: AsyncPool,
        url: str,
        *,
        connect_timeout_seconds: float = 10.0,
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_reconnect` is called when the connection for appends was lost and is made anew."""
        self._pool = pool
        self._url = url
        self._writer = Writer(url, connect_timeout_seconds=connect_timeout_seconds, on_reconnect=on_reconnect)

    async def close(self) -> None:
        """Close the connection for appends (the pool belongs to the caller)."""
        await self._writer.close()

    async def append(self, batch: NewBatch, *, expected_head: int | None = None) -> int | None:
        """Append in one statement, which is a transaction of its own; see the port."""
        return await self._writer.append(batch, expected_head)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[PostgresLockedLog]:
        """Hold the head row in a transaction; see the port."""
        async with self._writer.transaction() as connection:
            with connection_errors(self._url):
                cursor = await connection.execute(statement("lock_log_head"))
                row = await cursor.fetchone()
                assert row is not None, "log_head has its one row from the migration"
                yield PostgresLockedLog(connection, self._url, row[0])

    async def settle(self, batch: NewBatch) -> int | None:
        """See the port. The lost connection is ended first, and the head is held while looking."""
        await self._writer.end_lost()
        found: int | None = None
        looked = False
        try:
            async with self.locked() as held:
                found = await held.find_batch(batch)
                looked = True
        except CommitUnknown:
            if not looked:
                raise
        return found

    async def load(self, streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
        """See the port."""
        return await self._with_connection(lambda connection: _load(connection, streams, keys, shapes))

    async def save_snapshots(self, snapshots: Sequence[Snapshot]) -> None:
        """See the port."""
        values = {
            "stream_ids": UuidColumn.of([each.stream_id for each in snapshots]),
            "stream_versions": IntegerColumn.of([each.stream_version for each in snapshots]),
            "positions": BigintColumn.of([each.position for each in snapshots]),
            "shapes": TextColumn.of([each.shape for each in snapshots]),
            "states": ByteaColumn.of([each.state for each in snapshots]),
        }
        await self._with_connection(lambda connection: connection.execute(statement("save_snapshots"), values))

    async def prune_receipts(self, before: datetime, count_max: int) -> int:
        """Delete at most so many receipts that were recorded before a moment; how many those were."""
        values = {"before": before, "count": count_max}
        cursor = await self._with_connection(lambda connection: connection.execute(statement("prune_receipts"), values))
        return cursor.rowcount

    async def list_receipts(self, after_key: str, limit: int) -> list[RecordedReceipt]:
        """At most so many receipts of keys after this one, by key: so all of them are read without holding them."""
        values: dict[str, object] = {"after": after_key, "count": limit}
        rows = await self._with_connection(lambda connection: _fetch(connection, "list_receipts", values))
        return [RecordedReceipt(*row) for row in rows]

    async def head(self) -> int:
        """Position of the last committed event."""
        return await self._with_connection(_read_head)

    async def load_streams(self, stream_ids: Sequence[UUID]) -> list[RecordedEvent]:
        """All events of these streams, ordered by stream and version."""
        values: dict[str, object] = {"stream_ids": list(stream_ids)}
        return await self._with_connection(lambda connection: _fetch_events(connection, "load_streams", values))

    async def read(
        self, after: int, limit: int, types: Sequence[str] | None = None, partition: Partition | None = None
    ) -> FeedBlock:
        """The next block of the feed: positions `after` + 1 … `after` + `limit`, as far as there are any."""
        return await self._with_connection(lambda connection: _read_block(connection, after, limit, types, partition))

    async def _with_connection(self, work: Callable[[AsyncConnection[TupleRow]], Awaitable[T]]) -> T:
        """Run work that may run twice: after a restart of the server the pool's connections are dead and look alive."""
        with connection_errors(self._url):
            used: AsyncConnection[TupleRow] | None = None
            try:
                async with self._pool.connection() as connection:
                    used = connection
                    return await work(connection)
            except psycopg.OperationalError:
                if used is None or not used.broken:
                    raise
            await self._pool.check()
            async with self._pool.connection() as connection:
                return await work(connection)


async def _read_block(
    connection: AsyncConnection[TupleRow],
    after: int,
    limit: int,
    types: Sequence[str] | None,
    partition: Partition | None,
) -> FeedBlock:
    head = await _read_head(connection)
    until = min(head, after + limit)
    if until <= after:
        return FeedBlock([], max(after, until), head)
    values: dict[str, object] = {"after": after, "until": until}
    name = "read_feed"
    if types is not None:
        values["types"] = list(types)
        name = "read_feed_of_types"
    if partition is not None:
        values |= {"types": None if types is None else list(types)}
        values |= {"number": partition.number, "count": partition.count}
        name = "read_feed_in_partition"
    return FeedBlock(await _fetch_events(connection, name, values), until, head)


async def _read_head(connection: AsyncConnection[TupleRow]) -> int:
    cursor = await connection.execute(statement("read_log_head"))
    row = await cursor.fetchone()
    assert row is not None, "log_head has its one row from the migration"
    position: int = row[0]
    return position


async def _load(
    connection: AsyncConnection[TupleRow], streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]
) -> Found:
    values = {
        "stream_ids": UuidColumn.of(list(streams)),
        "stream_versions": IntegerColumn.of(list(streams.values())),
        "shapes": TextColumn.of(shapes),
        "keys": TextColumn.of(keys),
    }
    cursor = await connection.execute(statement("load_batch"), values, binary=True, prepare=True)
    found = Found([], [], [])
    for kind, position, stream_id, version, name, data, other, recorded_at in await cursor.fetchall():
        if kind == RECEIPT:
            found.receipts.append(Receipt(name, data, other, position))
        elif kind == SNAPSHOT:
            found.snapshots.append(Snapshot(stream_id, version, position, name, data))
        else:
            found.events.append(RecordedEvent(position, stream_id, version, name, data, other, recorded_at))
    return found


async def _fetch(connection: AsyncConnection[TupleRow], name: str, values: dict[str, object]) -> list[TupleRow]:
    cursor = await connection.execute(statement(name), values, binary=True)
    return await cursor.fetchall()


async def _fetch_events(
    connection: AsyncConnection[TupleRow], name: str, values: dict[str, object]
) -> list[RecordedEvent]:
    return list(starmap(RecordedEvent, await _fetch(connection, name, values)))
