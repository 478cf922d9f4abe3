"""Plans of queries as SQL over a table of JSONB documents. Values are always bound; names come from the shape."""

from collections.abc import Sequence
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from cqrskit.document import DocumentShape, Field, FieldKind
from cqrskit.query_plan import (
    AllNode,
    AnyNode,
    ExistsNode,
    Node,
    NotNode,
    Plan,
    RangeNode,
    SortKey,
    TermsNode,
    WordNode,
)

__all__ = ["condition_sql", "expression_of", "index_statements", "numbered_statement", "search_statement", "word_token"]

Sql = sql.Composable

_OPERATORS = {"gt": sql.SQL(">"), "gte": sql.SQL(">="), "lt": sql.SQL("<"), "lte": sql.SQL("<=")}


def word_token(field_name: str, word: str) -> str:
    """How a word of a text field is kept in the table's array of words."""
    return f"{field_name}:{word}"


def search_statement(table: Sql, plan: Plan, shape: DocumentShape, values: list[Any]) -> sql.Composed:
    """The statement of one page and one row more; `values` receives what is to be bound, in order."""
    where = condition_sql(plan.where, shape, values)
    after = sql.SQL("") if plan.after is None else sql.SQL(" AND ") + _after_sql(plan.sort, plan.after, values)
    values.append(plan.limit + 1)
    return sql.SQL(
        "SELECT id, version, document::text FROM {} WHERE document IS NOT NULL AND {}{} ORDER BY {} LIMIT %s"
    ).format(table, where, after, _order_sql(plan.sort))


def numbered_statement(table: Sql, plan: Plan, shape: DocumentShape, limit: int, values: list[Any]) -> sql.Composed:
    """Number, id, version and document of the first `limit` rows that a query finds, from 1 in its order."""
    where = condition_sql(plan.where, shape, values)
    values.append(limit)
    return sql.SQL(
        "SELECT row_number() OVER (ORDER BY {0}), id, version, document FROM {1} WHERE document IS NOT NULL AND {2} "
        "ORDER BY {0} LIMIT %s"
    ).format(_order_sql(plan.sort), table, where)


def _order_sql(keys: Sequence[SortKey]) -> Sql:
    return sql.SQL(", ").join(_key_sql(key) + sql.SQL(" DESC" if key.descending else " ASC") for key in keys)


def condition_sql(node: Node, shape: DocumentShape, values: list[Any]) -> Sql:
    """A condition that is true or false, never null."""
    match node:
        case AllNode(nodes):
            return _joined(nodes, " AND ", "true", shape, values)
        case AnyNode(nodes):
            return _joined(nodes, " OR ", "false", shape, values)
        case NotNode(inner):
            return sql.SQL("NOT coalesce({}, false)").format(condition_sql(inner, shape, values))
        case TermsNode(field, wanted):
            return _terms_sql(field, wanted, shape, values)
        case RangeNode():
            return _range_sql(node, values)
        case ExistsNode(field):
            return _exists_sql(field)
        case WordNode(fields, word):
            values.append([word_token(field.name, word) for field in fields])
            return sql.SQL("words && %s::text[]")


def _joined(nodes: Sequence[Node], word: str, empty: str, shape: DocumentShape, values: list[Any]) -> Sql:
    if not nodes:
        return sql.SQL(empty)
    return sql.SQL("({})").format(sql.SQL(word).join(condition_sql(each, shape, values) for each in nodes))


def _terms_sql(field: Field, wanted: Sequence[Any], shape: DocumentShape, values: list[Any]) -> Sql:
    if field.name in _fixed_fields(shape):
        if len(wanted) == 1:  # only plain equality lets the planner read the rest of the B-tree in its order
            values.append(wanted[0])
            return sql.SQL("({} = %s::text)").format(expression_of(field))
        values.append(list(wanted))
        return sql.SQL("{} = ANY(%s::text[])").format(expression_of(field))
    if not wanted:
        return sql.SQL("false")
    parts = []
    for value in wanted:
        values.append(Jsonb(_containing(field, value)))
        parts.append(sql.SQL("document @> %s"))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(parts))


def _containing(field: Field, value: Any) -> Any:
    """The smallest document that has this value in this field."""
    for step in reversed(field.path):
        value = {step.name: [value] if step.many else value}
    return value


def _exists_sql(field: Field) -> Sql:
    if field.many:
        found = sql.SQL("EXISTS (SELECT FROM jsonb_path_query(document, {}) AS found(value) WHERE value <> 'null')")
        return found.format(_path(field))
    return sql.SQL("({} IS NOT NULL)").format(expression_of(field))


def _path(field: Field) -> Sql:
    return sql.Literal("$" + "".join(f'."{step.name}"' + ("[*]" if step.many else "") for step in field.path))


def _range_sql(node: RangeNode, values: list[Any]) -> Sql:
    field = node.field
    if field.many:
        tests = _comparisons(_cast(field.kind, sql.SQL("(found.value #>> '{{}}')").format()), node, values)
        return sql.SQL("EXISTS (SELECT FROM jsonb_path_query(document, {}) AS found(value) WHERE {})").format(
            _path(field), tests
        )
    return sql.SQL("({})").format(_comparisons(expression_of(field), node, values))


def _comparisons(expression: Sql, node: RangeNode, values: list[Any]) -> Sql:
    parts = []
    for operator, value in node.bounds:
        values.append(_comparable(node.field.kind, value))
        parts.append(sql.SQL("{} {} %s").format(expression, _OPERATORS[operator]) + _bound_type(node.field.kind))
    return sql.SQL(" AND ").join(parts)


def _after_sql(keys: Sequence[SortKey], after: Sequence[Any], values: list[Any]) -> Sql:
    """Rows behind the last one seen; one row comparison, which a B-tree serves, where all keys run one way."""
    if len({key.descending for key in keys}) == 1 and not any(key.absent for key in keys):
        left = sql.SQL(", ").join(_key_sql(key) for key in keys)
        right = sql.SQL(", ").join(_bound(key, value, values) for key, value in zip(keys, after, strict=True))
        return sql.SQL("({}) {} ({})").format(left, sql.SQL("<" if keys[0].descending else ">"), right)
    alternatives = []
    for place, key in enumerate(keys):
        if after[place] is None:
            continue  # behind a missing value there is only another id
        parts = [_equal_sql(before, value, values) for before, value in zip(keys[:place], after, strict=False)]
        operator = sql.SQL("<" if key.descending else ">")
        parts.append(sql.SQL("{} {} {}").format(_key_sql(key), operator, _bound(key, after[place], values)))
        alternatives.append(sql.SQL("({})").format(sql.SQL(" AND ").join(parts)))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(alternatives))


def _equal_sql(key: SortKey, value: Any, values: list[Any]) -> Sql:
    if value is None:
        return sql.SQL("{} IS NULL").format(_key_sql(key))
    return sql.SQL("{} = {}").format(_key_sql(key), _bound(key, value, values))


def _bound(key: SortKey, value: Any, values: list[Any]) -> Sql:
    if key.field is None:
        values.append(value)
        return sql.SQL("%s::text")
    if key.absent:
        values.append(value)
        return sql.SQL("%s::boolean")
    values.append(_comparable(key.field.kind, value))
    return sql.SQL("%s") + _bound_type(key.field.kind)


def _key_sql(key: SortKey) -> Sql:
    if key.field is None:
        return sql.SQL("id")
    return sql.SQL("({} IS NULL)").format(expression_of(key.field)) if key.absent else expression_of(key.field)


def expression_of(field: Field) -> Sql:
    """A field with one value, as something that compares in the right order; the same text as in the index."""
    *way, last = (sql.Literal(step.name.replace("%", "%%")) for step in field.path)  # a key may have any character
    return _cast(field.kind, sql.SQL("({}->>{})").format(sql.SQL("->").join([sql.SQL("document"), *way]), last))


def _cast(kind: FieldKind, text: Sql) -> Sql:
    if kind is FieldKind.LONG:
        return sql.SQL("({}::bigint)").format(text)
    if kind is FieldKind.DOUBLE:
        return sql.SQL("({}::float8)").format(text)
    if kind is FieldKind.DATETIME:
        # Stored as ...T10:00:00Z or ...T10:00:00.000001Z: without the Z these order as text.
        return sql.SQL("(rtrim({}, 'Z') COLLATE \"C\")").format(text)
    return sql.SQL('({} COLLATE "C")').format(text)


def _comparable(kind: FieldKind, value: Any) -> Any:
    return value.rstrip("Z") if kind is FieldKind.DATETIME else value


def _bound_type(kind: FieldKind) -> Sql:
    return sql.SQL({FieldKind.LONG: "::bigint", FieldKind.DOUBLE: "::float8"}.get(kind, "::text"))


def _fixed_fields(shape: DocumentShape) -> set[str]:
    """Keyword fields that a B-tree has, so that equality is asked in the B-tree's words."""
    names = {field.index.within for field in shape.fields.values() if field.index is not None and field.index.within}
    own = {field.name for field in shape.fields.values() if field.index is not None and field.kind is FieldKind.KEYWORD}
    return names | own


def index_statements(table_name: str, schema: str, shape: DocumentShape) -> list[sql.Composed]:
    """The table's indexes: one GIN for equality, one for words, a B-tree for each `Indexed` field."""
    table = sql.Identifier(schema, table_name)
    statements: list[sql.Composed] = [
        sql.SQL("CREATE INDEX ON {} USING gin (document jsonb_path_ops) WITH (fastupdate = off)").format(table)
    ]
    if any(field.kind is FieldKind.TEXT for field in shape.fields.values()):
        statements.append(sql.SQL("CREATE INDEX ON {} USING gin (words) WITH (fastupdate = off)").format(table))
    for field in shape.fields.values():
        if field.index is not None:
            within = field.index.within
            keys = [expression_of(shape.fields[within])] if within else []
            keys += [expression_of(field), sql.SQL("id")]
            statements.append(sql.SQL("CREATE INDEX ON {} ({})").format(table, sql.SQL(", ").join(keys)))
    return statements
