"""The one connection of a process that appends to the log, and what its failures mean.

Three things can come of an append: it is written, it is not, or the connection died before anybody told us. The last
is CommitUnknown, and only then: whatever the server itself refuses was not written.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from cqrskit.errors import AlreadyThere, CommandFailed, CommitUnknown, CqrskitError, ServerUnavailable, StreamConflict
from cqrskit.event_store import NewBatch
from cqrskit.postgres.binary_columns import (
    BigintColumn,
    ByteaColumn,
    IntegerColumn,
    TextColumn,
    TimestamptzColumn,
    UuidColumn,
)
from cqrskit.postgres.connections import address_of, connect, connection_errors, is_pooled
from cqrskit.postgres.sql import statement
from cqrskit.tasks import retry_delays

__all__ = ["Writer", "append_batch", "values_of"]

END_TIMEOUT_SECONDS = 5.0
TAKEN_VERSION = re.compile(r"=\(.*, (\d+)\)")
DATA_REFUSED = ("54", "P0")
"""SQLSTATEs of what is too large, and of what a trigger refuses."""
SERVER_ENDS = "57P0"
"""SQLSTATEs of a server that shuts down, crashes or starts."""


class Writer:
    """A connection for appends, made when it is needed and again when it was lost."""

    def __init__(self, url: str, *, connect_timeout_seconds: float, on_reconnect: Callable[[], None]) -> None:
        """`on_reconnect` is called when a connection that was lost is made anew."""
        self._url = url
        self._on_reconnect = on_reconnect
        self._connect_timeout_seconds = connect_timeout_seconds
        self._connection: AsyncConnection[TupleRow] | None = None
        self._name = ""

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def append(self, batch: NewBatch, expected_head: int | None) -> int | None:
        """Append in one statement outside any transaction; see `cqrskit.event_store.EventStore.append`.

        Behind a pooler a transaction is begun first. From then on the server knows us by our name, so that `end_lost`
        finds us; a lone statement that arrives late would be given a session after everybody has looked for it. Due
        commands are a second statement, which needs a transaction around both.
        """
        connection = await self._connected()
        if batch.due or is_pooled(connection):
            async with self.transaction() as begun:
                return await append_batch(begun, self._url, batch, expected_head)
        try:
            return await append_batch(connection, self._url, batch, expected_head)
        except BaseException:
            if connection.pgconn.transaction_status != TransactionStatus.IDLE:
                await connection.close()
            raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        """A transaction that commits at the end, or rolls back on an exception. CommitUnknown as for `append`."""
        connection = await self._begun()
        try:
            yield connection
        except BaseException as error:
            await self._roll_back(connection)
            if isinstance(error, CommitUnknown):  # died before its COMMIT was sent: it cannot have taken effect
                raise ServerUnavailable("Postgres", address_of(self._url), str(error.__cause__)) from error
            raise
        try:
            await connection.execute("COMMIT")
        except psycopg.Error as error:
            raise await self._failed_commit(connection, error) from error
        except BaseException:
            await connection.close()
            raise

    async def _begun(self) -> AsyncConnection[TupleRow]:
        """The connection in a new transaction. One that turns out to be dead, as after a restart, is made anew once."""
        connection = await self._connected()
        with connection_errors(self._url):
            try:
                await connection.execute("BEGIN")
            except BaseException as error:
                await connection.close()
                if not isinstance(error, psycopg.OperationalError):
                    raise
                connection = await self._connected()
                await connection.execute("BEGIN")
        return connection

    async def _failed_commit(self, connection: AsyncConnection[TupleRow], error: psycopg.Error) -> Exception:
        alive = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if alive:
            return ServerUnavailable("Postgres", address_of(self._url), str(error))
        await connection.close()
        return CommitUnknown()

    async def _connected(self) -> AsyncConnection[TupleRow]:
        connection = self._connection
        if connection is not None:
            if connection.pgconn.transaction_status == TransactionStatus.IDLE:
                return connection
            await connection.close()
            await self.end_lost()  # it may hold the log's head until the server notices
            self._on_reconnect()
        self._name = f"cqrskit writer {uuid4().hex}"
        self._connection = await connect(self._url, timeout_seconds=self._connect_timeout_seconds, name=self._name)
        return self._connection

    async def _roll_back(self, connection: AsyncConnection[TupleRow]) -> None:
        try:
            await connection.execute("ROLLBACK")
        except psycopg.Error:
            await connection.close()

    async def end_lost(self) -> None:
        """End the server's side of a connection that was lost, so that nothing of it is carried out later.

        Raises ServerUnavailable if the server does not answer, or still carries it out after some seconds.
        """
        if not self._name or (self._connection is not None and not self._connection.closed):
            return
        with connection_errors(self._url):
            async with await connect(self._url, timeout_seconds=self._connect_timeout_seconds) as connection:
                async for _ in retry_delays(END_TIMEOUT_SECONDS):
                    cursor = await connection.execute(statement("end_lost_writer"), {"name": self._name})
                    if await cursor.fetchone() is None:
                        return
        raise ServerUnavailable("Postgres", address_of(self._url), "it does not end a lost connection's transaction")


async def append_batch(
    connection: AsyncConnection[TupleRow], url: str, batch: NewBatch, expected_head: int | None
) -> int | None:
    """Append through a connection, in its transaction or as one of its own; see `EventStore.append`."""
    try:
        cursor = await connection.execute(
            statement("append_batch"), values_of(batch, expected_head), binary=True, prepare=True
        )
        row = await cursor.fetchone()
        if batch.due and row is not None:
            await connection.execute(statement("change_due_commands"), due_values_of(batch), binary=True)
    except psycopg.errors.UniqueViolation as error:
        raise (AlreadyThere if _is_of_something_new(error) else StreamConflict)(str(error)) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        with connection_errors(url):
            raise
    except psycopg.Error as error:
        if _is_answer(error, connection):
            raise _refusal_of(error, url) from error
        with suppress(psycopg.Error):
            await connection.close()
        raise CommitUnknown from error
    return None if row is None else int(row[0])


def _is_of_something_new(error: psycopg.errors.UniqueViolation) -> bool:
    """Whether a key, or the first version of a stream, was taken; the detail is ``Key (…)=(stream, version) …``."""
    if error.diag.constraint_name == "command_receipts_key":
        return True
    found = TAKEN_VERSION.search(error.diag.message_detail or "")
    return found is not None and found[1] == "1"


def _is_answer(error: psycopg.Error, connection: AsyncConnection[TupleRow]) -> bool:
    """Whether the server itself says that the statement failed; when it dies, it may have committed before."""
    if error.sqlstate is None or error.sqlstate.startswith(SERVER_ENDS):
        return False
    return connection.pgconn.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INERROR)


def _refusal_of(error: psycopg.Error, url: str) -> CqrskitError:
    """What the server's refusal means: the data was at fault, or the server's state (locked, full, too slow)."""
    blames_data = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    if blames_data or (error.sqlstate or "").startswith(DATA_REFUSED):
        return CommandFailed("of this batch", f"Postgres refused its events: {error}")
    return ServerUnavailable("Postgres", address_of(url), str(error).strip())


def values_of(batch: NewBatch, expected_head: int | None = None) -> dict[str, object]:
    """The parameters of append_batch.sql."""
    events, receipts = batch.events, batch.receipts
    return {
        "count": len(events),
        "expected_head": expected_head,
        "stream_ids": UuidColumn.of([each.stream_id for each in events]),
        "stream_versions": IntegerColumn.of([each.stream_version for each in events]),
        "types": TextColumn.of([each.type for each in events]),
        "data": ByteaColumn.of([each.data for each in events]),
        "metadata": ByteaColumn.of([each.metadata for each in events]),
        "recorded_at": TimestamptzColumn.of([each.recorded_at for each in events]),
        "keys": TextColumn.of([each.key for each in receipts]),
        "commands": ByteaColumn.of([each.command for each in receipts]),
        "outcomes": ByteaColumn.of([each.outcome for each in receipts]),
        "positions": BigintColumn.of([each.position for each in receipts]),
        "places": IntegerColumn.of([each.place for each in receipts]),
        "kept_at": TimestamptzColumn.of([each.recorded_at for each in receipts]),
    }


def due_values_of(batch: NewBatch) -> dict[str, object]:
    """The parameters of change_due_commands.sql."""
    stored = [each for each in batch.due if each.due_at is not None]
    return {
        "taken_back": TextColumn.of([each.key for each in batch.due if each.due_at is None]),
        "keys": TextColumn.of([each.key for each in stored]),
        "due_at": TimestamptzColumn.of([each.due_at for each in stored if each.due_at is not None]),
        "commands": TextColumn.of([each.command for each in stored]),
        "contents": ByteaColumn.of([each.content for each in stored]),
        "metadata": ByteaColumn.of([each.metadata for each in stored]),
    }
