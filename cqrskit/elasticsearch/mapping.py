"""Index settings and mappings, made from a document's annotations."""

from typing import Any

from cqrskit.document import DocumentShape, Field, FieldKind

__all__ = ["DELETED_FIELD", "ID_FIELD", "WORDS_FIELD", "index_body"]

ID_FIELD = "cqrskit_id"
"""The document's id as a field that can be sorted by (`_id` cannot)."""
DELETED_FIELD = "cqrskit_deleted"
"""True in the row that a deleted document leaves: Elasticsearch itself forgets deleted versions after a minute."""
WORDS_FIELD = "cqrskit_words"
"""The words of text fields as ``field:word``, so that both read stores find the same."""

_TYPES: dict[FieldKind, dict[str, Any]] = {
    FieldKind.KEYWORD: {"type": "keyword"},
    FieldKind.LONG: {"type": "long"},
    FieldKind.DOUBLE: {"type": "double"},
    FieldKind.BOOLEAN: {"type": "boolean"},
    FieldKind.DATETIME: {"type": "date_nanos", "format": "strict_date_optional_time_nanos"},
    FieldKind.DATE: {"type": "date", "format": "strict_date"},
    FieldKind.FLATTENED: {"type": "flattened"},
    FieldKind.STORED: {"type": "object", "enabled": False},
}


def index_body(shape: DocumentShape, *, identity: str) -> dict[str, Any]:
    """Settings and mapping of a new index. Its refresh is off: the projector refreshes when it has written."""
    properties: dict[str, Any] = {
        ID_FIELD: {"type": "keyword"},
        DELETED_FIELD: {"type": "boolean"},
        WORDS_FIELD: {"type": "keyword"},
    }
    for field in shape.fields.values():
        _place(properties, field)
    description = {"identity": identity, "fields": shape.descriptions}
    return {
        "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "-1"},
        "mappings": {"dynamic": False, "_meta": {"cqrskit": description}, "properties": properties},
    }


def _place(properties: dict[str, Any], field: Field) -> None:
    for step in field.path[:-1]:
        properties = properties.setdefault(step.name, {"properties": {}})["properties"]
    properties[field.path[-1].name] = _type_of(field)


def _type_of(field: Field) -> dict[str, Any]:
    if field.kind is FieldKind.TEXT:
        return {"type": "keyword"} if field.exact else {"type": "text", "index": False, "norms": False}
    return dict(_TYPES[field.kind])
