"""Connections to Postgres, and what its driver's errors mean for us."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from cqrskit.errors import ConfigurationError, MigrationRequired, ServerUnavailable
from cqrskit.postgres.sql import statement

__all__ = ["UNAVAILABLE", "address_of", "connect", "connection_errors", "is_lasting", "is_pooled", "open_pool"]

NEEDED_ISOLATION = "read committed"
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
"""A server that is gone without a word is noticed within half a minute; what the URL says comes first."""

AsyncPool = AsyncConnectionPool[AsyncConnection[TupleRow]]


def address_of(url: str) -> str:
    """The server's address for people and logs, without user and password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"the database URL cannot be read: {error}".strip()) from None
    host = parts.get("host") or parts.get("hostaddr") or "localhost"
    return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname') or parts.get('user') or ''}"


UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    PoolTimeout,
)
"""What Postgres raises while it cannot serve us, such as a server that only reads for the moment of a failover."""


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Turn the driver's connection failures into ServerUnavailable, and missing tables into MigrationRequired."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise MigrationRequired(
            f"the database at {address_of(url)} lacks what this version needs ({_first_line(error)}); "
            "run `cqrskit migrate`"
        ) from error
    except UNAVAILABLE as error:
        raise ServerUnavailable("Postgres", address_of(url), _first_line(error)) from error


REFUSED = ("28", "3D", "42501")
"""SQLSTATEs of who is not let in, of a database that is not there, and of what somebody may not do."""
REFUSAL = re.compile(
    r"authentication failed|no password supplied|pg_hba\.conf|does not exist|no such (?:database|user)"
    r"|permission denied for|not permitted to log in|invalid (?:\w+ )*(?:value|number)"
    r"|Servname not supported|certificate (?:verify|for)|does not support SSL"
)
"""The same in words, which is all that a connection's failure has; in other languages it is not recognised."""


def is_lasting(error: ServerUnavailable) -> bool:
    """Whether a server that was not reached is there, or its URL is wrong: waiting does not help.

    A host's name that nobody knows may be known in a moment: container networks know who runs.
    """
    cause = error.__cause__
    if not isinstance(cause, psycopg.Error):
        return False
    return (cause.sqlstate or "").startswith(REFUSED) or REFUSAL.search(str(cause)) is not None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


async def connect(url: str, *, timeout_seconds: float, name: str = "cqrskit") -> AsyncConnection[TupleRow]:
    """A connection of one's own, in autocommit, known to the server by `name`.

    Raises ServerUnavailable, or ConfigurationError if a pooler stands before a database with another isolation level.
    """
    with connection_errors(url):
        connection = await AsyncConnection.connect(
            url,
            autocommit=True,
            connect_timeout=max(1, round(timeout_seconds)),
            application_name=name,
            **_keepalives(url),
        )
        try:
            await _begin_session(connection)
        except BaseException:
            await connection.close()
            raise
        return connection


async def open_pool(url: str, *, connections_max: int, timeout_seconds: float) -> AsyncPool:
    """A pool of autocommit connections that has answered once. Raises ServerUnavailable."""
    address_of(url)
    pool: AsyncPool = AsyncConnectionPool(
        url,
        min_size=1,
        max_size=connections_max,
        timeout=timeout_seconds,
        open=False,
        kwargs={"autocommit": True, **_keepalives(url)},
        configure=_begin_session,
        name="cqrskit",
    )
    probe = await connect(url, timeout_seconds=timeout_seconds)
    await probe.close()
    with connection_errors(url):
        try:
            await pool.open(wait=True, timeout=timeout_seconds)
        except BaseException:
            await pool.close()
            raise
    return pool


def is_pooled(connection: AsyncConnection[TupleRow] | Connection[TupleRow]) -> bool:
    """Whether a pooler, such as PgBouncer, may give each transaction of this connection another session.

    Nothing is prepared on such a connection, as the next session would not know of it.
    """
    return connection.prepare_threshold is None


async def _begin_session(connection: AsyncConnection[TupleRow]) -> None:
    """Set what a session of ours needs, and find out whether it is ours."""
    cursor = await connection.execute(
        statement("begin_session"), {"announced": connection.info.backend_pid}, prepare=False
    )
    row = await cursor.fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    is_own, isolation = row[:2]
    if is_own:
        return
    connection.prepare_threshold = None
    if isolation != NEEDED_ISOLATION:
        raise ConfigurationError(
            f"the database's default isolation level is {isolation!r}, which cannot be set through the pooler that "
            f"stands before it: run `ALTER ROLE … SET default_transaction_isolation = '{NEEDED_ISOLATION}'`"
        )


def _keepalives(url: str) -> dict[str, Any]:
    said = conninfo_to_dict(url)
    return {name: value for name, value in KEEPALIVES.items() if name not in said}
