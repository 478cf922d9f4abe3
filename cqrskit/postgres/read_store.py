"""Read models in Postgres: one table of JSONB documents per index, in the schema ``read_models``."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from cqrskit.document import shape_of
from cqrskit.document_codec import DocumentCodec, Unstorable, check_id, codec_of
from cqrskit.errors import ConfigurationError, IndexMissing, InvalidQuery, ReadStoreError, RebuildRequired
from cqrskit.postgres.connections import UNAVAILABLE, AsyncPool, connection_errors
from cqrskit.postgres.held_rows import HeldRows
from cqrskit.postgres.query_sql import index_statements, search_statement, word_token
from cqrskit.postgres.sql import statement
from cqrskit.postgres.summary_sql import count_statement, groups_in, summary_statement
from cqrskit.query import All, Condition, Query
from cqrskit.query_plan import plan_of, where_of
from cqrskit.read_store import Change, IndexSpec, Page, Stored, numbers_behind, page_of, scan_pages
from cqrskit.summary import Groups, Summary
from cqrskit.summary_plan import plan_of_summary

__all__ = ["PostgresReadStore"]

SCHEMA = "read_models"
REFUSALS = (errors.DataError, errors.ProgramLimitExceeded, errors.IntegrityError)


class _Row(msgspec.Struct, gc=False):
    """One change as the table takes it: JSON text or None, words with their fields, joined by spaces."""

    id: str
    version: int
    document: str | None
    words: str


class _Description(msgspec.Struct):
    """The comment on a read model's table: which table it is, and for which documents it was made."""

    identity: str
    fields: dict[str, str]


class PostgresReadStore:
    """`cqrskit.read_store.ReadStore` on Postgres; a search sees every write at once."""

    writes_are_visible = True
    system = "postgresql"

    def __init__(self, pool: AsyncPool, url: str, prefix: str) -> None:
        """`pool` to `url` stays its owner's; `prefix` begins every table's name."""
        self._pool = pool
        self._url = url
        self._prefix = prefix
        self._held_rows = HeldRows(SCHEMA, prefix)
        self._identities: dict[str, str] = {}

    async def open(self) -> None:
        """Nothing to do: the pool is open."""

    async def close(self) -> None:
        """Nothing to do: the pool's owner closes it."""

    async def ping(self, *, despite_pauses: bool = False) -> None:  # noqa: ARG002 (it makes no pauses)
        """Return if Postgres answers."""
        async with self._connection() as connection:
            await connection.execute("SELECT 1")

    async def identity(self) -> str:
        """Which store this is: the database that has the log as well."""
        return "postgres"

    async def prepare(self, index: IndexSpec) -> str:
        """Make the table and its indexes if they are missing; see the port."""
        async with self._connection() as connection:
            await self._make_schema(connection)
            async with connection.transaction():
                made = await self._make_table(connection, index)
        self._identities[self._name(index)] = made
        return made

    async def _make_table(self, connection: AsyncConnection[TupleRow], index: IndexSpec) -> str:
        shape = shape_of(index.document)
        await self._lock(connection, self.name_of(index))
        cursor = await connection.execute(statement("describe_read_model"), (self.name_of(index),))
        row = await cursor.fetchone()
        if row is not None and row[0] is not None:
            found = msgspec.json.decode(row[0], type=_Description)
            self._check_shape(index, found)
            return found.identity
        made = _Description(identity=uuid4().hex, fields=shape.descriptions)
        comment = msgspec.json.encode(made).decode()
        table = self._table(index)
        await connection.execute(_CREATE_TABLE.format(table))
        for create_index in index_statements(self._name(index), SCHEMA, shape):
            await connection.execute(create_index)
        await connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(comment)))
        return made.identity

    def _check_shape(self, index: IndexSpec, found: _Description) -> None:
        differences = shape_of(index.document).differences_from(found.fields)
        if differences:
            raise RebuildRequired(index.name, index.generation, "; ".join(differences))

    async def make_live(self, index: IndexSpec) -> None:
        """Replace the projection's view by one of this generation's table."""
        view = self._view(index)
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection, self._qualified_view(index), self.name_of(index))
            if await self._size_bytes(connection, index) is None:
                raise ReadStoreError(f"read model {self.name_of(index)} is not there: prepare it first")
            try:
                await connection.execute(_CREATE_VIEW.format(view, self._table(index)))
            except errors.WrongObjectType as error:
                raise ConfigurationError(
                    f"the view {self._qualified_view(index)} cannot be made, as a generation of another projection has "
                    f"that name: rename projection {index.name!r}"
                ) from error
            await connection.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(self._name(index))))

    async def begin_bulk_load(self, index: IndexSpec) -> None:
        """Drop the indexes that only searches need: with them, 100,000 documents took more than twice as long."""
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection, self.name_of(index))
            for names in await self._secondary_indexes(connection, index):
                await connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(*names)))

    async def end_bulk_load(self, index: IndexSpec) -> None:
        """Make them again, all or none, and let the planner know what is in the table."""
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection, self.name_of(index))
            if await self._secondary_indexes(connection, index):
                return
            await connection.execute(_BUILD_MEMORY)
            for create_index in index_statements(self._name(index), SCHEMA, shape_of(index.document)):
                await connection.execute(create_index)
            await connection.execute(sql.SQL("ANALYZE {}").format(self._table(index)))

    async def _make_schema(self, connection: AsyncConnection[TupleRow]) -> None:
        """In a short transaction of its own, so that nobody waits for the making of another index."""
        if await self._has_schema(connection):
            return
        async with connection.transaction():
            await connection.execute(statement("lock_read_models"))
            if not await self._has_schema(connection):
                await connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))

    async def _has_schema(self, connection: AsyncConnection[TupleRow]) -> bool:
        cursor = await connection.execute(statement("count_schemas"), (SCHEMA,))
        return await cursor.fetchone() == (1,)

    async def _lock(self, connection: AsyncConnection[TupleRow], *names: str) -> None:
        """Hold the names until the transaction ends; a view's comes before its table's, so that nobody blocks another.

        Names are held, and not all read models, as the indexes of a large one may be made for an hour.
        """
        for name in names:
            await connection.execute(statement("lock_read_model"), (name,))

    async def _secondary_indexes(
        self, connection: AsyncConnection[TupleRow], index: IndexSpec
    ) -> list[tuple[str, str]]:
        cursor = await connection.execute(statement("list_secondary_indexes"), (self.name_of(index),))
        return [(schema, name) for schema, name in await cursor.fetchall()]

    async def size_bytes(self, index: IndexSpec) -> int:
        """The table with its indexes and long values."""
        async with self._connection() as connection:
            return await self._size_bytes(connection, index) or 0

    async def _size_bytes(self, connection: AsyncConnection[TupleRow], index: IndexSpec) -> int | None:
        cursor = await connection.execute(statement("measure_read_model"), (self.name_of(index),))
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def drop(self, index: IndexSpec) -> None:
        """Remove the table, and the projection's view if it shows this one."""
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection, self._qualified_view(index), self.name_of(index))
            cursor = await connection.execute(statement("describe_read_model"), (self._qualified_view(index),))
            row = await cursor.fetchone()
            if row is not None and row[0] == self._name(index):
                await connection.execute(sql.SQL("DROP VIEW {}").format(self._view(index)))
            await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table(index)))
        self._identities.pop(self._name(index), None)

    async def numbers_of(self, name: str) -> list[int]:
        """Numbers of a projection's generations that have a table here."""
        beginning = f"{self._prefix}_{name}_"
        async with self._connection() as connection:
            values = {"schema": SCHEMA, "beginning": beginning}
            cursor = await connection.execute(statement("list_read_models"), values)
            return numbers_behind(beginning, [found for (found,) in await cursor.fetchall()])

    async def get(self, index: IndexSpec, document_id: str) -> Stored | None:
        """One document as last written."""
        stored = (await self.load(index, [document_id])).get(document_id)
        return None if stored is None or stored.document is None else stored

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the documents that exist, deleted ones included."""
        query = sql.SQL("SELECT id, version, document::text FROM {} WHERE id = ANY(%s)").format(self._table(index))
        possible = [document_id for document_id in document_ids if "\0" not in document_id]
        rows = await self._fetch(index, query, [possible])
        codec = codec_of(index.document)
        return {row[0]: _stored(codec, row) for row in rows}

    async def write(self, index: IndexSpec, changes: Sequence[Change]) -> dict[str, str]:
        """Write in bulk; a document that Postgres refuses does not keep the others from being written."""
        refused: dict[str, str] = {}
        rows: list[_Row] = []
        codec = codec_of(index.document)
        for change, data in zip(changes, codec.encode_all([change.document for change in changes]), strict=True):
            try:
                rows.append(_row(codec, change, data))
            except Unstorable as error:
                refused[change.id] = str(error)
        rows.sort(key=lambda row: row.id)  # one order of locks, so that two projectors cannot block each other
        async with self._connection() as connection:
            await self._check_identity(connection, index)
            await self._upsert(connection, _UPSERT.format(self._table(index)), rows, refused)
        return refused

    async def _check_identity(self, connection: AsyncConnection[TupleRow], index: IndexSpec) -> None:
        """Refuse to write to another table than the one prepared here: it would lack what was written before."""
        identity = self._identities.get(self._name(index))
        if identity is None:
            return
        cursor = await connection.execute(statement("describe_read_model"), (self.name_of(index),))
        row = await cursor.fetchone()
        if row is None or row[0] is None or msgspec.json.decode(row[0], type=_Description).identity != identity:
            raise ReadStoreError(
                f"read model {self.name_of(index)} was removed or replaced while it was being written to: start "
                "again to fill it"
            )

    async def _upsert(
        self, connection: AsyncConnection[TupleRow], upsert: sql.Composed, rows: list[_Row], refused: dict[str, str]
    ) -> None:
        if not rows:
            return
        values = [
            [row.id for row in rows],
            [row.version for row in rows],
            [row.document for row in rows],
            [row.words for row in rows],
        ]
        try:
            await connection.execute(upsert, values)
        except REFUSALS as error:
            if len(rows) == 1:
                refused[rows[0].id] = str(error).splitlines()[0]
                return
            middle = len(rows) // 2
            await self._upsert(connection, upsert, rows[:middle], refused)
            await self._upsert(connection, upsert, rows[middle:], refused)

    async def refresh(self, index: IndexSpec) -> None:
        """Nothing to do: a committed row is visible."""

    async def search(self, index: IndexSpec, query: Query) -> Page:
        """A page of documents."""
        shape = shape_of(index.document)
        plan = plan_of(query, shape)
        codec = codec_of(index.document)
        if plan.stable:
            async with self._connection() as connection:
                try:
                    rows, held = await self._held_rows.page(connection, self._table(index), plan, shape)
                except errors.UndefinedTable as error:
                    raise IndexMissing(self.name_of(index)) from error
            return page_of(plan, [_stored(codec, row) for row in rows], held=held)
        values: list[Any] = []
        rows = await self._fetch(index, search_statement(self._table(index), plan, shape, values), values)
        return page_of(plan, [_stored(codec, row) for row in rows])

    async def count(self, index: IndexSpec, where: Condition | None = None) -> int:
        """Number of documents that fit."""
        shape = shape_of(index.document)
        values: list[Any] = []
        query = count_statement(self._table(index), where_of(where or All(), shape), shape, values)
        ((count,),) = await self._fetch(index, query, values)
        return int(count)

    async def summarize(self, index: IndexSpec, summary: Summary) -> Groups:
        """Counts and sums."""
        shape = shape_of(index.document)
        plan = plan_of_summary(summary, shape)
        values: list[Any] = []
        rows = await self._fetch(index, summary_statement(self._table(index), plan, shape, values), values)
        return plan.groups(groups_in(rows, plan))

    def scan(self, index: IndexSpec) -> AsyncGenerator[Stored, None]:
        """All documents, ordered by id, each as it is when its part is read."""
        return scan_pages(self, index)

    async def _fetch(self, index: IndexSpec, query: sql.Composed, values: list[Any]) -> list[TupleRow]:
        """All rows of a query of the index's table. Raises IndexMissing."""
        async with self._connection() as connection:
            try:
                cursor = await connection.execute(query, values)
                return await cursor.fetchall()
            except errors.UndefinedTable as error:
                raise IndexMissing(self.name_of(index)) from error
            except errors.DataError as error:
                raise InvalidQuery(f"Postgres refused the query: {error}") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                try:
                    yield connection
                except UNAVAILABLE:
                    raise
                except psycopg.Error as error:
                    raise ReadStoreError(f"Postgres refused a request of the read models: {error}") from error

    def _name(self, index: IndexSpec) -> str:
        return f"{self._prefix}_{index.name}_{index.generation}"

    def name_of(self, index: IndexSpec) -> str:
        """The name of this generation's table, with its schema."""
        return f"{SCHEMA}.{self._name(index)}"

    def _table(self, index: IndexSpec) -> sql.Identifier:
        return sql.Identifier(SCHEMA, self._name(index))

    def _view(self, index: IndexSpec) -> sql.Identifier:
        return sql.Identifier(SCHEMA, f"{self._prefix}_{index.name}")

    def _qualified_view(self, index: IndexSpec) -> str:
        return f"{SCHEMA}.{self._prefix}_{index.name}"


_CREATE_TABLE = sql.SQL("""CREATE TABLE {} (
    id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    document jsonb,
    words text[] COLLATE "C" NOT NULL
) WITH (fillfactor = 80)""")
"""A deleted document keeps its row and version, so that an older write cannot bring it back."""

_CREATE_VIEW = sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT id, version, document FROM {} WHERE document IS NOT NULL")
_BUILD_MEMORY = sql.SQL("SELECT set_config('maintenance_work_mem', '256MB', true)")

_UPSERT = sql.SQL("""INSERT INTO {} AS kept (id, version, document, words)
SELECT id, version, document::jsonb, string_to_array(words, ' ')
FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::text[]) AS incoming (id, version, document, words)
ON CONFLICT (id) DO UPDATE
SET version = excluded.version, document = excluded.document, words = excluded.words
WHERE excluded.version > kept.version""")


def _row(codec: DocumentCodec, change: Change, data: bytes | Unstorable | None) -> _Row:
    check_id(change.id)
    if data is None:
        return _Row(change.id, change.version, None, "")
    if isinstance(data, Unstorable):
        raise data
    tokens = (word_token(field, word) for field, words in codec.words(data).items() for word in sorted(words))
    return _Row(change.id, change.version, data.decode(), " ".join(tokens))


def _stored(codec: DocumentCodec, row: TupleRow) -> Stored:
    document_id, version, text = row
    return Stored(document_id, version, None if text is None else codec.decode(text.encode()))
