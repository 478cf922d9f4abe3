"""Copies of what stable queries found: a moment that later pages are read from.

A snapshot of Postgres ends with its transaction, and none may stay open between two requests of a reader: it would
hold a connection and keep the server from tidying up. So the first page's statement, which sees one moment, copies the
rows it finds. The tables are unlogged: what they hold is worth nothing after a crash.
"""

import re
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from cqrskit.cursors import GONE, MALFORMED
from cqrskit.document import DocumentShape
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.postgres.query_sql import numbered_statement, search_statement
from cqrskit.postgres.sql import statement
from cqrskit.query import STABLE_FOR_SECONDS
from cqrskit.query_plan import Plan

__all__ = ["ROWS_MAX", "HeldRows"]

ROWS_MAX = 100_000
"""Most rows that one stable query may find."""


class _Place(NamedTuple):
    """A list, and the number of its last row that was given."""

    held_list: UUID
    number: int

    def __str__(self) -> str:
        return f"{self.held_list.hex}:{self.number}"

    @staticmethod
    def parse(held: str) -> "_Place":
        found = _HELD.fullmatch(held)
        if found is None:
            raise InvalidCursor(MALFORMED)
        return _Place(UUID(hex=found[1]), int(found[2]))


_HELD = re.compile(r"([0-9a-f]{32}):([0-9]{1,6})")


class HeldRows:
    """The lists of one prefix: a table of them with their ends, and one of their rows."""

    def __init__(self, schema: str, prefix: str) -> None:
        """No projection's name begins with an underscore, so no table of one has these names."""
        self._names = {
            "schema": sql.Identifier(schema),
            "lists": sql.Identifier(schema, f"{prefix}__lists"),
            "rows": sql.Identifier(schema, f"{prefix}__list_rows"),
        }

    async def page(
        self, connection: AsyncConnection[TupleRow], table: sql.Identifier, plan: Plan, shape: DocumentShape
    ) -> tuple[list[TupleRow], str | None]:
        """Up to `limit` rows and one more, and what the cursor must hold to go on. Raises UndefinedTable."""
        kept_for = f"{table.as_string()} {plan.fingerprint}"
        if plan.held is not None:
            return await self._next(connection, _Place.parse(plan.held), plan.limit, kept_for)
        values: list[Any] = []
        cursor = await connection.execute(search_statement(table, plan, shape, values), values)
        rows = await cursor.fetchall()
        if len(rows) <= plan.limit:
            return rows, None
        await self._make_tables(connection)
        return await self._first(connection, table, plan, shape, kept_for)

    async def _make_tables(self, connection: AsyncConnection[TupleRow]) -> None:
        """If they are not there; that is looked up first, as making them takes a lock."""
        cursor = await connection.execute("SELECT to_regclass(%s)", (self._names["rows"].as_string(),))
        if await cursor.fetchone() != (None,):
            return
        async with connection.transaction():
            await connection.execute(statement("lock_read_model"), (self._names["lists"].as_string(),))
            for each in (_CREATE_LISTS, _CREATE_ROWS):
                await connection.execute(each.format(**self._names))

    async def _first(
        self,
        connection: AsyncConnection[TupleRow],
        table: sql.Identifier,
        plan: Plan,
        shape: DocumentShape,
        kept_for: str,
    ) -> tuple[list[TupleRow], str | None]:
        """Copy what one statement finds, and read the first page from the copy."""
        held_list = uuid4()
        values: list[Any] = [held_list]
        found = numbered_statement(table, plan, shape, ROWS_MAX + 1, values)
        async with connection.transaction():
            await connection.execute(_DELETE_EXPIRED.format(**self._names))
            await connection.execute(_INSERT_LIST.format(**self._names), (held_list, kept_for, STABLE_FOR_SECONDS))
            copied = await connection.execute(_INSERT_ROWS.format(found=found, **self._names), values)
            if copied.rowcount > ROWS_MAX:
                raise InvalidQuery(
                    f"the query finds more than {ROWS_MAX} documents, the most that Postgres keeps for a stable one: "
                    "ask for less, or leave `stable` out"
                )
            cursor = await connection.execute(_SELECT_ROWS.format(**self._names), (held_list, 0, plan.limit + 1))
            return await cursor.fetchall(), str(_Place(held_list, plan.limit))

    async def _next(
        self, connection: AsyncConnection[TupleRow], place: _Place, limit: int, kept_for: str
    ) -> tuple[list[TupleRow], str | None]:
        """Read on, and remove the list with its last page."""
        async with connection.transaction():
            try:
                kept = await connection.execute(
                    _KEEP_LIST.format(**self._names), (STABLE_FOR_SECONDS, place.held_list, kept_for)
                )
            except errors.UndefinedTable:
                raise InvalidCursor(GONE) from None
            if kept.rowcount == 0:
                raise InvalidCursor(GONE)
            cursor = await connection.execute(
                _SELECT_ROWS.format(**self._names), (place.held_list, place.number, limit + 1)
            )
            rows = await cursor.fetchall()
            if len(rows) <= limit:
                await connection.execute(_DELETE_LIST.format(**self._names), (place.held_list,))
        return rows, str(_Place(place.held_list, place.number + limit))


_CREATE_LISTS = sql.SQL("""CREATE UNLOGGED TABLE IF NOT EXISTS {lists} (
    id uuid PRIMARY KEY,
    kept_for text NOT NULL,
    expires_at timestamptz NOT NULL
)""")
_CREATE_ROWS = sql.SQL("""CREATE UNLOGGED TABLE IF NOT EXISTS {rows} (
    list_id uuid NOT NULL REFERENCES {lists} ON DELETE CASCADE,
    number integer NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    document jsonb NOT NULL,
    PRIMARY KEY (list_id, number)
)""")
_DELETE_EXPIRED = sql.SQL("""DELETE FROM {lists}
WHERE id IN (SELECT id FROM {lists} WHERE expires_at <= now() LIMIT 100 FOR UPDATE SKIP LOCKED)""")
_INSERT_LIST = sql.SQL("INSERT INTO {lists} VALUES (%s, %s, now() + make_interval(secs => %s))")
_INSERT_ROWS = sql.SQL("INSERT INTO {rows} SELECT %s::uuid, found.* FROM ({found}) AS found")
_SELECT_ROWS = sql.SQL("""SELECT id, version, document::text FROM {rows}
WHERE list_id = %s AND number > %s ORDER BY number LIMIT %s""")
_KEEP_LIST = sql.SQL("""UPDATE {lists} SET expires_at = now() + make_interval(secs => %s)
WHERE id = %s AND kept_for = %s AND expires_at > now()""")
_DELETE_LIST = sql.SQL("DELETE FROM {lists} WHERE id = %s")
