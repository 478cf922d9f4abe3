"""Plans of queries in Elasticsearch's own words."""

from collections.abc import Sequence
from typing import Any

from cqrskit.document import Field, FieldKind
from cqrskit.elasticsearch.mapping import DELETED_FIELD, ID_FIELD, WORDS_FIELD
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

__all__ = ["SOURCE", "count_body", "page_body", "query_body", "scan_body", "search_body"]

SOURCE = {"excludes": [ID_FIELD, WORDS_FIELD]}


def query_body(where: Node) -> dict[str, Any]:
    """What fits, and is not deleted; nothing is scored."""
    return {"bool": {"filter": [condition_body(where)], "must_not": [{"term": {DELETED_FIELD: True}}]}}


def count_body(where: Node) -> dict[str, Any]:
    """The request for the number of documents."""
    return {"query": query_body(where), "size": 0, "track_total_hits": True}


def search_body(plan: Plan) -> dict[str, Any]:
    """The request for one page and one row more."""
    body = page_body(plan.where, plan.sort, plan.limit + 1)
    if plan.after is not None:
        after = zip(plan.sort, plan.after, strict=True)
        body["search_after"] = [_missing(key) if value is None else value for key, value in after if not key.absent]
    return body


def page_body(where: Node, sort: Sequence[SortKey], size: int) -> dict[str, Any]:
    """The request for the first rows that fit, in this order."""
    return {
        "query": query_body(where),
        "sort": [_sort_body(key) for key in sort if not key.absent],
        "size": size,
        "track_total_hits": False,
        "version": True,
        "_source": SOURCE,
    }


def scan_body(after: str | None, size: int) -> dict[str, Any]:
    """The request for all documents in the order of their ids, a part at a time.

    With our own fields: to leave them out of so many documents takes the server longer than to send them.
    """
    body: dict[str, Any] = {
        "query": {"bool": {"must_not": [{"term": {DELETED_FIELD: True}}]}},
        "sort": [{ID_FIELD: {"order": "asc"}}],
        "size": size,
        "track_total_hits": False,
        "version": True,
    }
    return body if after is None else {**body, "search_after": [after]}


_LARGEST: dict[FieldKind, Any] = {
    FieldKind.LONG: 2**63 - 1,
    FieldKind.DOUBLE: "Infinity",
    FieldKind.DATETIME: "2262-01-01T00:00:00Z",
    FieldKind.DATE: "9999-12-31",
}
_SMALLEST: dict[FieldKind, Any] = {
    FieldKind.LONG: -(2**63),
    FieldKind.DOUBLE: "-Infinity",
    FieldKind.DATETIME: "1970-01-01T00:00:00Z",
    FieldKind.DATE: "0001-01-01",
}

_COUNTED: dict[FieldKind, tuple[int, int]] = {
    FieldKind.DATETIME: (9_214_646_400_000_000_000, 0),
    FieldKind.DATE: (253_402_214_400_000, -62_135_596_800_000),
}
"""The same moments as Elasticsearch counts them, in nanoseconds and in milliseconds since 1970."""


def _missing(key: SortKey) -> Any:
    """What a missing value counts as, so that it comes last: the outermost value of the kind, and null for keywords.

    Elasticsearch orders by one value, so a real value of that size stands among the missing ones.
    """
    assert key.field is not None, "an id is never missing"
    return (_SMALLEST if key.descending else _LARGEST).get(key.field.kind)


def _sort_body(key: SortKey) -> dict[str, Any]:
    order: dict[str, Any] = {"order": "desc" if key.descending else "asc"}
    if key.field is None:
        return {ID_FIELD: order}
    if key.field.kind is FieldKind.DATETIME:
        order |= {"format": "strict_date_optional_time_nanos", "numeric_type": "date_nanos"}
    if key.field.kind is FieldKind.DATE:
        order |= {"format": "strict_date"}
    if key.field.nullable and key.field.kind in _COUNTED:
        order |= {"missing": _COUNTED[key.field.kind][key.descending]}
    return {key.field.name: order}


def _exact(field: Field, value: Any) -> Any:
    """A moment to the nanosecond: Elasticsearch takes one of whole seconds for the whole of its second."""
    if field.kind is not FieldKind.DATETIME:
        return value
    whole, _, fraction = value.removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<9}Z"


def condition_body(node: Node) -> dict[str, Any]:
    """A condition in Elasticsearch's query language."""
    match node:
        case AllNode(nodes):
            return {"bool": {"filter": [condition_body(each) for each in nodes]}} if nodes else {"match_all": {}}
        case AnyNode(nodes):
            if not nodes:
                return {"match_none": {}}
            return {"bool": {"should": [condition_body(each) for each in nodes], "minimum_should_match": 1}}
        case NotNode(inner):
            return {"bool": {"must_not": [condition_body(inner)]}}
        case TermsNode(field, values):
            return {"terms": {field.name: [_exact(field, value) for value in values]}}
        case RangeNode(field, bounds):
            return {"range": {field.name: {name: _exact(field, value) for name, value in bounds}}}
        case ExistsNode(field):
            return {"exists": {"field": field.name}}
        case WordNode(fields, word):
            return {"terms": {WORDS_FIELD: [f"{field.name}:{word}" for field in fields]}}
