"""The event store on Postgres: a head row that sequences, binary COPY that writes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cqrskit.errors import CommandFailed, CommitUnknown, ServerUnavailable, StreamConflict
from cqrskit.event_store import FeedBlock
from cqrskit.events import NewEvent, RecordedEvent
from cqrskit.postgres.binary_copy import encode_events
from cqrskit.postgres.connections import AsyncPool, address_of, connect, connection_errors
from cqrskit.postgres.sql import statement

__all__ = ["PostgresEventStore"]

CHANGED_STREAMS_MAX = 20_000


class PostgresAppendTransaction:
    """One open transaction that holds the head row; see `cqrskit.event_store.AppendTransaction`."""

    def __init__(self, connection: AsyncConnection[TupleRow], last_position: int, count: int) -> None:
        self._connection = connection
        self._count = count
        self.previous_head = last_position - count

    async def changed_streams(self, after: int) -> set[UUID] | None:
        """Streams with events at positions > `after`; None if there are more than 20,000 such events."""
        if self.previous_head - after > CHANGED_STREAMS_MAX:
            return None
        cursor = await self._connection.execute(
            statement("list_changed_streams"), {"after": after, "limit": CHANGED_STREAMS_MAX}, binary=True
        )
        return {stream_id for (stream_id,) in await cursor.fetchall()}

    async def resize(self, count: int) -> None:
        """Reserve `count` positions in place of the number given at the start."""
        if count != self._count:
            await self._connection.execute(statement("take_log_head"), {"count": count - self._count})
            self._count = count

    async def append(self, events: Sequence[NewEvent]) -> None:
        """Write the events; StreamConflict if a stream version is taken, CommandFailed if the data is refused."""
        if len(events) != self._count:
            raise ValueError(f"{self._count} positions are reserved, but {len(events)} events were given")
        if not events:
            return
        try:
            async with self._connection.cursor() as cursor, cursor.copy(statement("copy_events")) as copy:
                await copy.write(encode_events(events, self.previous_head + 1))
        except psycopg.errors.UniqueViolation as error:
            raise StreamConflict(str(error)) from error
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise CommandFailed("of this batch", f"Postgres refused its events: {error}") from error


class PostgresEventStore:
    """The log in one Postgres database. Reads use the pool; appends use a connection of their own."""

    def __init__(self, pool: AsyncPool, url: str, *, connect_timeout_seconds: float = 10.0) -> None:
        self._pool = pool
        self._url = url
        self._connect_timeout_seconds = connect_timeout_seconds
        self._writer: AsyncConnection[TupleRow] | None = None

    async def close(self) -> None:
        """Close the connection for appends (the pool belongs to the caller)."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None

    @asynccontextmanager
    async def transaction(self, count: int) -> AsyncIterator[PostgresAppendTransaction]:
        """Take the head row and reserve `count` positions; see the port."""
        connection = await self._writing_connection()
        try:
            with connection_errors(self._url):
                await connection.execute("BEGIN")
                cursor = await connection.execute(statement("take_log_head"), {"count": count})
                row = await cursor.fetchone()
                assert row is not None, "log_head has its one row from the migration"
                yield PostgresAppendTransaction(connection, row[0], count)
        except BaseException:
            await self._roll_back(connection)
            raise
        await self._commit(connection)

    async def _writing_connection(self) -> AsyncConnection[TupleRow]:
        if self._writer is None or self._writer.closed or self._writer.broken:
            self._writer = await connect(self._url, timeout_seconds=self._connect_timeout_seconds)
        return self._writer

    async def _roll_back(self, connection: AsyncConnection[TupleRow]) -> None:
        try:
            await connection.execute("ROLLBACK")
        except psycopg.Error:
            await connection.close()

    async def _commit(self, connection: AsyncConnection[TupleRow]) -> None:
        try:
            await connection.execute("COMMIT")
        except psycopg.OperationalError as error:
            await connection.close()
            raise CommitUnknown from error
        except BaseException as error:
            await connection.close()
            if isinstance(error, psycopg.Error):
                raise ServerUnavailable("Postgres", address_of(self._url), str(error)) from error
            raise

    async def head(self) -> int:
        """Position of the last committed event."""
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                return await _read_head(connection)

    async def load_streams(self, stream_ids: Sequence[UUID]) -> list[RecordedEvent]:
        """All events of these streams, ordered by stream and version."""
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                return await _fetch_events(connection, "load_streams", {"stream_ids": list(stream_ids)})

    async def read(self, after: int, limit: int, types: Sequence[str] | None = None) -> FeedBlock:
        """The next block of the feed: positions `after` + 1 … `after` + `limit`, as far as there are any."""
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                head = await _read_head(connection)
                until = min(head, after + limit)
                if until <= after:
                    return FeedBlock([], max(after, until), head)
                values: dict[str, object] = {"after": after, "until": until}
                name = "read_feed"
                if types is not None:
                    values["types"] = list(types)
                    name = "read_feed_of_types"
                return FeedBlock(await _fetch_events(connection, name, values), until, head)


async def _read_head(connection: AsyncConnection[TupleRow]) -> int:
    cursor = await connection.execute(statement("read_log_head"))
    row = await cursor.fetchone()
    assert row is not None, "log_head has its one row from the migration"
    position: int = row[0]
    return position


async def _fetch_events(
    connection: AsyncConnection[TupleRow], name: str, values: dict[str, object]
) -> list[RecordedEvent]:
    cursor = await connection.execute(statement(name), values, binary=True)
    return [
        RecordedEvent(position, stream_id, version, type_name, data, metadata, _in_utc(recorded_at))
        for position, stream_id, version, type_name, data, metadata, recorded_at in await cursor.fetchall()
    ]


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
