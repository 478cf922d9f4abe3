"""Index settings and mappings, made from a document's annotations."""

from collections.abc import Sequence
from typing import Any

from cqrskit.document import Field, FieldKind, shape_of
from cqrskit.read_store import IndexSettings, IndexSpec

__all__ = [
    "DELETED_FIELD",
    "ID_FIELD",
    "WORDS_FIELD",
    "index_body",
    "is_template_due",
    "loading_settings",
    "serving_settings",
    "template_body",
]

ID_FIELD = "cqrskit_id"
"""The document's id as a field that can be sorted by (`_id` cannot)."""
DELETED_FIELD = "cqrskit_deleted"
"""True in the row that a deleted document leaves: Elasticsearch itself forgets deleted versions after a minute."""
WORDS_FIELD = "cqrskit_words"
"""The words of text fields as ``field:word``, so that both read stores find the same."""

ANALYZED = "analyzed"
"""Sub-field of a text with an analyzer, for whoever uses the client itself; `cqrskit.document.Text` tells of it."""

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


TEMPLATE_VERSION = 1
"""Raise it when `template_body` changes: a template with a lower number is replaced."""
TEMPLATE_PRIORITY = 300
"""Above those that Elasticsearch ships, which go up to 200."""


def template_body(prefix: str) -> dict[str, Any]:
    """What an operator finds under the prefix, and the guard against an index that a stray write would make.

    Indexes carry their settings themselves: a template of an operator's own, with a higher priority, may add to them.
    """
    return {
        "index_patterns": [f"{prefix}-*"],
        "priority": TEMPLATE_PRIORITY,
        "version": TEMPLATE_VERSION,
        "allow_auto_create": False,
        "template": {"settings": _settings(IndexSettings()), "mappings": {"dynamic": False}},
        "_meta": {"description": "Read models of cqrskit, one index for each generation of a projection"},
    }


def is_template_due(prefix: str, found: Sequence[Any]) -> bool:
    """Whether our template is missing or old, seen what is `found` under its name; one of somebody else's is kept."""
    ours = template_body(prefix)["_meta"]
    templates = [each["index_template"] for each in found]
    return all(each.get("_meta") == ours and each.get("version", 0) < TEMPLATE_VERSION for each in templates)


def index_body(index: IndexSpec, *, identity: str) -> dict[str, Any]:
    """Settings and mapping of a new index. Its refresh is off: the projector refreshes when it has written."""
    shape = shape_of(index.document)
    properties: dict[str, Any] = {
        ID_FIELD: {"type": "keyword"},
        DELETED_FIELD: {"type": "boolean"},
        WORDS_FIELD: {"type": "keyword"},
    }
    for field in shape.fields.values():
        _place(properties, field)
    description = {"identity": identity, "fields": shape.descriptions}
    return {
        "settings": {**index.elasticsearch.settings, **_settings(index.elasticsearch)},
        "mappings": {"dynamic": False, "_meta": {"cqrskit": description}, "properties": properties},
    }


def _settings(wanted: IndexSettings) -> dict[str, Any]:
    return {"number_of_shards": wanted.shards, **serving_settings(wanted)}


def serving_settings(wanted: IndexSettings) -> dict[str, Any]:
    """The settings of an index that serves searches, as far as they can be changed."""
    replicas: dict[str, Any] = {"auto_expand_replicas": "0-1"}
    if wanted.replicas is not None:
        replicas = {"number_of_replicas": wanted.replicas, "auto_expand_replicas": False}
    return {**replicas, "refresh_interval": "-1"}


def loading_settings() -> dict[str, Any]:
    """The settings of an index that is being filled: no copies, which are made in one go at the end."""
    return {"number_of_replicas": 0, "auto_expand_replicas": False, "refresh_interval": "-1"}


def _place(properties: dict[str, Any], field: Field) -> None:
    for step in field.path[:-1]:
        made = {"type": "nested", "include_in_root": True} if step.nested else {}
        properties = properties.setdefault(step.name, {**made, "properties": {}})["properties"]
    properties[field.path[-1].name] = _type_of(field)


def _type_of(field: Field) -> dict[str, Any]:
    if field.kind is not FieldKind.TEXT:
        return dict(_TYPES[field.kind])
    text = {"type": "keyword"} if field.exact else {"type": "text", "index": False, "norms": False}
    if field.analyzer is None:
        return text
    return {**text, "fields": {ANALYZED: {"type": "text", "analyzer": field.analyzer}}}
