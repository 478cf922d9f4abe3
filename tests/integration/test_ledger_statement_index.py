"""A span of effective time within an account of many lines is found on Postgres without a look at all its lines."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg

from cqrskit import All, Query, Range, Settings, Sort, Term
from cqrskit.document import shape_of
from cqrskit.postgres.query_sql import search_statement
from cqrskit.query_plan import plan_of
from cqrskit.read_store import Change
from example_ledger.application import ledger
from example_ledger.read_models import StatementLine, StatementLines

ACCOUNT, OTHER = UUID(int=1), UUID(int=2)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LINES = 10_000


def line(position: int) -> Change:
    moment = BEGIN + timedelta(minutes=position)
    document = StatementLine(
        account_id=ACCOUNT if position % 2 else OTHER,
        position=position,
        transfer_id=UUID(int=position),
        direction="debit",
        amount=1,
        balance=position,
        counterparty_account_id=None,
        description=None,
        effective_at=moment,
        recorded_at=moment,
    )
    return Change(f"{document.account_id}:{position}", position, document)


async def test_a_span_of_effective_time_is_read_by_an_index_within_the_account(postgres_dsn: str) -> None:
    async with ledger.open(Settings(database_url=postgres_dsn), projections=[]) as runtime:
        index = StatementLines.index(1)
        await runtime.read_store.prepare(index)
        assert await runtime.read_store.write(index, [line(each) for each in range(1, LINES + 1)]) == {}
    day = Range("effective_at", gte=BEGIN + timedelta(days=2), lt=BEGIN + timedelta(days=2, minutes=60))
    query = Query(where=All(Term("account_id", ACCOUNT), day), sort=[Sort("position", descending=True)], limit=50)
    shape = shape_of(StatementLine)
    values: list[object] = []
    table = psycopg.sql.Identifier("read_models", "cqrskit_statement_lines_1")
    statement = search_statement(table, plan_of(query, shape), shape, values)
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as connection:
        await connection.execute(psycopg.sql.SQL("ANALYZE {}").format(table))
        explained = psycopg.sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + statement
        cursor = await connection.execute(explained, values)
        row = await cursor.fetchone()
    assert row is not None
    assert removed_in(row[0][0]["Plan"]) < LINES / 100, row[0]


def removed_in(plan: dict[str, object]) -> int:
    """Rows that were read in vain."""
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    own = sum(int(str(value)) for name, value in plan.items() if name.startswith("Rows Removed"))
    return own + sum(removed_in(each) for each in below)
