"""What Elasticsearch is told about an index: the annotations' mapping, and a projection's own settings."""

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from cqrskit import DefinitionError, IndexSettings, Nested, Projection, RecordedEvent, Text, Unindexed, on
from cqrskit.document import shape_of
from cqrskit.document_codec import NESTED_MAX, Unstorable, codec_of
from cqrskit.elasticsearch.mapping import index_body, is_template_due, template_body
from cqrskit.read_store import IndexSpec
from tests.unit.versioned_account import Account


class Leg(msgspec.Struct, frozen=True):
    owner: Annotated[str, Text(analyzer="german")]
    amount: int
    note: Annotated[Any, Unindexed()] = None


class Entry(msgspec.Struct, frozen=True):
    key: UUID
    title: Annotated[str, Text(keyword=True, analyzer="english")]
    remark: Annotated[str | None, Text(analyzer="english")] = None
    plain: Annotated[str, Text()] = ""
    colour: Literal["red", "blue"] = "red"
    moment: datetime | None = None
    due: date | None = None
    number: int = 0
    ratio: float = 0.0
    flag: bool = False
    labels: dict[str, str] = {}
    legs: Annotated[tuple[Leg, ...], Nested()] = ()
    flat: tuple[Leg, ...] = ()
    kept: Annotated[Any, Unindexed()] = None


def mapping_of(document: type[msgspec.Struct]) -> dict[str, Any]:
    properties: dict[str, Any] = index_body(IndexSpec("x", 1, document), identity="i")["mappings"]["properties"]
    return {name: properties[name] for name in properties if not name.startswith("cqrskit_")}


def test_every_annotation_has_its_mapping() -> None:
    unsearched = {"type": "text", "index": False, "norms": False}
    english = {"fields": {"analyzed": {"type": "text", "analyzer": "english"}}}
    leg = {
        "owner": {**unsearched, "fields": {"analyzed": {"type": "text", "analyzer": "german"}}},
        "amount": {"type": "long"},
        "note": {"type": "object", "enabled": False},
    }
    assert mapping_of(Entry) == {
        "key": {"type": "keyword"},
        "title": {"type": "keyword", **english},
        "remark": {**unsearched, **english},
        "plain": unsearched,
        "colour": {"type": "keyword"},
        "moment": {"type": "date_nanos", "format": "strict_date_optional_time_nanos"},
        "due": {"type": "date", "format": "strict_date"},
        "number": {"type": "long"},
        "ratio": {"type": "double"},
        "flag": {"type": "boolean"},
        "labels": {"type": "flattened"},
        "legs": {"type": "nested", "include_in_root": True, "properties": leg},
        "flat": {"properties": leg},
        "kept": {"type": "object", "enabled": False},
    }


def test_an_analyzer_and_a_nested_list_are_part_of_the_shape() -> None:
    descriptions = shape_of(Entry).descriptions
    assert descriptions["title"] == "text keyword analyzed as english"
    assert descriptions["legs.amount"] == "long many nested in legs"
    assert descriptions["flat.amount"] == "long many"


class Loop(msgspec.Struct, frozen=True):
    inner: Annotated["tuple[Loop, ...]", Nested()] = ()


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Annotated[Leg, Nested()], "Nested"),
        (Annotated[tuple[int, ...], Nested()], "Nested"),
        (Annotated[tuple[tuple[Leg, ...], ...], Nested()], "Nested"),
        (Annotated[tuple[Leg, ...], Nested(), Unindexed()], "Nested"),
        (Annotated[dict[str, str], Nested()], "Nested"),
        (Loop, "Nested"),
        (Annotated[int, Text(analyzer="english")], "Text"),
        (Annotated[str, Text(analyzer="English!")], "analyzer"),
        (Annotated[str, Text(analyzer="")], "analyzer"),
    ],
)
def test_an_impossible_combination_is_refused_at_definition(annotation: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        shape_of(msgspec.defstruct("Bad", [("x", annotation)], frozen=True))


def test_a_document_with_more_fields_than_an_index_takes_is_refused_at_definition() -> None:
    wide = msgspec.defstruct("Wide", [(f"f{number}", int) for number in range(901)], frozen=True)
    with pytest.raises(DefinitionError, match="901 fields"):
        shape_of(wide)
    deep: Any = int
    for level in range(21):
        deep = msgspec.defstruct(f"Level{level}", [("x", deep)], frozen=True)
    with pytest.raises(DefinitionError, match="21 levels"):
        shape_of(deep)


def test_a_document_with_too_many_nested_elements_is_refused_on_every_store() -> None:
    def entry(count: int) -> Entry:
        return Entry(key=UUID(int=1), title="", legs=(Leg("a", 1),) * count, flat=(Leg("a", 1),) * 5)

    codec_of(Entry).encode(entry(NESTED_MAX))
    with pytest.raises(Unstorable, match="10001 elements"):
        codec_of(Entry).encode(entry(NESTED_MAX + 1))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (IndexSettings(), {"number_of_shards": 1, "auto_expand_replicas": "0-1"}),
        (IndexSettings(shards=3), {"number_of_shards": 3, "auto_expand_replicas": "0-1"}),
        (
            IndexSettings(replicas=2, settings={"codec": "best_compression"}),
            {
                "number_of_shards": 1,
                "number_of_replicas": 2,
                "auto_expand_replicas": False,
                "codec": "best_compression",
            },
        ),
    ],
)
def test_a_projection_says_how_its_index_is_kept(settings: IndexSettings, expected: dict[str, Any]) -> None:
    class Sums(Projection):
        document = Leg
        elasticsearch = settings

        @on(Account.Credited)
        def credited(self, leg: Leg, event: Account.Credited, at: RecordedEvent) -> Leg:
            return leg

    body = index_body(Sums.index(1), identity="i")
    assert body["settings"] == {**expected, "refresh_interval": "-1"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"shards": 0}, "shards=0"),
        ({"shards": 1025}, "shards=1025"),
        ({"replicas": -1}, "replicas=-1"),
        ({"settings": {"refresh_interval": "1s"}}, "REFRESH_INTERVAL"),
        ({"settings": {"number_of_replicas": 3}}, "use `shards` and `replicas`"),
        ({"settings": {"index.codec": "x"}}, "leave `index` out"),
        ({"settings": {"index": {"codec": "x"}}}, "leave `index` out"),
        ({"settings": {"blocks.write": True}}, "cqrskit sets that itself"),
    ],
)
def test_impossible_settings_of_an_index_are_refused_at_definition(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        IndexSettings(**values)


def test_a_template_of_somebody_else_is_left_alone_and_an_old_one_of_ours_replaced() -> None:
    ours = {"index_template": template_body("t")}
    older = {"index_template": {**template_body("t"), "version": 0}}
    theirs = {"index_template": {"index_patterns": ["t-*"]}}
    assert [is_template_due("t", found) for found in ([], [ours], [older], [theirs])] == [True, False, True, False]
