"""Fields: the marks of a document's annotations, and what is known of one field.

`cqrskit.document` offers them to users and says what they mean for queries.
"""

import typing
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["Field", "FieldKind", "Indexed", "Nested", "Step", "Text", "Unindexed", "values_at"]


class Text(msgspec.Struct, frozen=True):
    """Marks a str as full text (`Match`). `keyword=True` keeps it exact and sortable as well.

    `Match` finds whole words, which cqrskit splits itself so that both read stores find the same. `analyzer` adds
    nothing to that: it names an analyzer of Elasticsearch (``"english"``, or one that `IndexSettings` defines) for a
    sub-field ``<field>.analyzed``, which whoever uses the client itself can search with stems, relevance, highlights.
    """

    keyword: bool = False
    analyzer: str | None = None


class Unindexed(msgspec.Struct, frozen=True):
    """Marks a field that is kept with the document but never searched: it may have any JSON-able type and size."""


class Nested(msgspec.Struct, frozen=True):
    """Marks a list of Structs whose elements Elasticsearch keeps apart, at most 10,000 in one document.

    Its client can then ask for a document with one leg that is both Ann's and above 5 (a ``nested`` query). The query
    language of cqrskit asks each value on its own, with the mark as without it: Ann's and above 5 may be two legs.
    """


class Indexed(msgspec.Struct, frozen=True):
    """Marks a field that Postgres gives a B-tree index, so that Range and Sort on it need not read every document.

    `within` names another field of the same document that queries fix with a Term: a statement, for example,
    reads one account's lines in order of position, ``position: Annotated[int, Indexed(within="account_id")]``.
    """

    within: str | None = None


class FieldKind(StrEnum):
    """How a field is searched; the table in this module's docstring says what each kind answers."""

    KEYWORD = "keyword"
    TEXT = "text"
    LONG = "long"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    DATE = "date"
    FLATTENED = "flattened"
    STORED = "stored"


_ORDERED_KINDS = {FieldKind.KEYWORD, FieldKind.LONG, FieldKind.DOUBLE, FieldKind.DATETIME, FieldKind.DATE}


class Step(typing.NamedTuple):
    """One name on the way from the document to a value; `many` where a list follows it, `nested` if it is `Nested`."""

    name: str
    many: bool
    nested: bool = False


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a document that a query can name.

    `name` is the dotted path of stored names, `value_type` what msgspec must accept as one value of it, `exact`
    whether a text is a keyword as well, `nullable` whether the value may be missing, `analyzer` that of Elasticsearch's
    sub-field.
    """

    name: str
    path: tuple[Step, ...]
    kind: FieldKind
    value_type: Any
    nullable: bool = False
    exact: bool = False
    analyzer: str | None = None
    index: Indexed | None = None

    @property
    def many(self) -> bool:
        """Whether one document can have several values here."""
        return any(step.many for step in self.path)

    @property
    def ordered(self) -> bool:
        """Whether its values can be compared by `Range`, and sorted by where there is only one."""
        return self.exact or self.kind in _ORDERED_KINDS

    @property
    def description(self) -> str:
        """The field's kind in a few stable words; two fields with one description are stored alike."""
        words = [self.kind.value, *(["keyword"] if self.exact else []), *(["many"] if self.many else [])]
        nested = [step.name for step in self.path if step.nested]
        words += [f"analyzed as {self.analyzer}"] if self.analyzer else []
        words += [f"nested in {'.'.join(nested)}"] if nested else []
        return " ".join(words)

    def values_in(self, document: Any) -> Iterator[Any]:
        """All values other than null that a document (as plain JSON values) has in this field."""
        return values_at(self.path, document)


def values_at(path: tuple[Step, ...], document: Any) -> Iterator[Any]:
    """All values other than null that a document (as plain JSON values) has at the end of a path."""
    found = [document]
    for step in path:
        found = [holder[step.name] for holder in found if holder.get(step.name) is not None]
        if step.many:
            found = [value for values in found for value in values if value is not None]
    return iter(found)
