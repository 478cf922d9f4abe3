"""Plans of summaries as SQL, and what its rows say. Postgres adds whole numbers up as numerics, which have no end."""

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.postgres.query_sql import condition_sql, expression_of
from cqrskit.query_plan import Node
from cqrskit.summary import Figures
from cqrskit.summary_plan import Grouping, GroupingKind, SummaryPlan

__all__ = ["count_statement", "groups_in", "summary_statement"]

Sql = sql.Composable
FIGURES = 4
"""Columns of one field: count, sum, min, max."""


def count_statement(table: Sql, where: Node, shape: DocumentShape, values: list[Any]) -> sql.Composed:
    """The number of documents that fit; `values` receives what is to be bound, in order."""
    condition = condition_sql(where, shape, values)
    return sql.SQL("SELECT count(*) FROM {} WHERE document IS NOT NULL AND {}").format(table, condition)


def summary_statement(table: Sql, plan: SummaryPlan, shape: DocumentShape, values: list[Any]) -> sql.Composed:
    """Mark, count and figures of the groups wanted and of one more; `values` receives what is to be bound, in order."""
    mark = sql.SQL("NULL::text") if plan.by is None else _mark_sql(plan.by, values)
    columns = sql.SQL(", ").join([mark, sql.SQL("count(*)"), *(_figures_sql(field) for field in plan.fields)])
    where = condition_sql(plan.where, shape, values)
    statement = sql.SQL("SELECT {} FROM {} WHERE document IS NOT NULL AND {}").format(columns, table, where)
    if plan.by is None:
        return statement
    if plan.after is not None:
        again = _mark_sql(plan.by, values)
        values.append(_text(plan.after) if plan.by.kind is GroupingKind.VALUE else plan.after)
        later = sql.SQL("({0} > %s{1} OR {2} IS NULL)").format(again, _type_of(plan.by), expression_of(plan.by.field))
        statement += sql.SQL(" AND ") + later
    values.append(plan.limit + 1)
    return statement + sql.SQL(" GROUP BY 1 ORDER BY 1 ASC NULLS LAST LIMIT %s")


def _mark_sql(by: Grouping, values: list[Any]) -> Sql:
    value = expression_of(by.field)
    match by.kind:
        case GroupingKind.VALUE:
            return value
        case GroupingKind.WHOLE:  # a division of bigints cuts off towards zero
            values += [by.interval, by.interval]
            return sql.SQL("({0} / %s::bigint - ({0} %% %s::bigint < 0)::int)").format(value)
        case GroupingKind.REAL:
            values += [by.interval, by.interval]
            return sql.SQL("(floor({} / %s::float8) * %s::float8)").format(value)
        case GroupingKind.CALENDAR:
            values.append(by.interval)
            return sql.SQL("(date_trunc(%s::text, left({}, 10)::date::timestamp)::date)").format(value)


def _type_of(by: Grouping) -> Sql:
    if by.kind is GroupingKind.VALUE:
        return sql.SQL("::bigint" if by.field.kind is FieldKind.LONG else "::text")
    return sql.SQL({GroupingKind.WHOLE: "::bigint", GroupingKind.REAL: "::float8"}.get(by.kind, "::date"))


def _text(value: Any) -> Any:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def _figures_sql(field: Field) -> Sql:
    value = expression_of(field)
    # Floats too are added up as numerics: the order of the rows does not matter then, and nothing overflows.
    added = sql.SQL("(({})::text::numeric)").format(value) if field.kind is FieldKind.DOUBLE else value
    return sql.SQL("count({0}), sum({1}), min({0}), max({0})").format(value, added)


def groups_in(rows: Sequence[Sequence[Any]], plan: SummaryPlan) -> list[tuple[Any, int, list[Figures]]]:
    """Mark, count and figures of each group."""
    return [
        (
            _plain(row[0], plan.by),
            row[1],
            [
                _figures(row[2 + FIGURES * place : 2 + FIGURES * (place + 1)], field)
                for place, field in enumerate(plan.fields)
            ],
        )
        for row in rows
    ]


def _plain(mark: Any, by: Grouping | None) -> Any:
    if mark is None or by is None:
        return None
    if by.kind is GroupingKind.CALENDAR:
        return mark.isoformat()
    return mark == "true" if by.field.kind is FieldKind.BOOLEAN else mark


def _figures(columns: Sequence[Any], field: Field) -> Figures:
    count, total, smallest, largest = columns
    number = int if field.kind is FieldKind.LONG else float
    return Figures(count, number(total or 0), smallest, largest)
