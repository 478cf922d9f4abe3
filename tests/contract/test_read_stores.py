"""Both read stores keep the contract, and answer alike whatever is asked."""

import operator
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.errors import ConfigurationError, ServerUnavailable
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.read_store import PostgresReadStore
from cqrskit.query import All, Condition, Match, Not, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.read_store import Change, IndexSpec, ReadStore
from cqrskit.testing.read_store_contract import Part, ReadStoreContract, Thing, found_in, thing
from cqrskit.testing.search_contract import SearchContract
from cqrskit.words import words_of


@pytest.fixture
async def postgres_store(postgres_dsn: str, index_prefix: str) -> AsyncIterator[ReadStore]:
    pool = await open_pool(postgres_dsn, connections_max=4, timeout_seconds=10)
    yield PostgresReadStore(pool, postgres_dsn, index_prefix)
    await pool.close()


@pytest.fixture
async def elasticsearch_store(elasticsearch_url: str, index_prefix: str) -> AsyncIterator[ReadStore]:
    store = ElasticsearchReadStore(elasticsearch_url, index_prefix, request_timeout_seconds=30)
    yield store
    await store.close()


class TestPostgres(ReadStoreContract):
    @pytest.fixture
    def store(self, postgres_store: ReadStore) -> ReadStore:
        return postgres_store


class TestPostgresSearches(SearchContract):
    @pytest.fixture
    def store(self, postgres_store: ReadStore) -> ReadStore:
        return postgres_store


class TestElasticsearch(ReadStoreContract):
    @pytest.fixture
    def store(self, elasticsearch_store: ReadStore) -> ReadStore:
        return elasticsearch_store


class TestElasticsearchSearches(SearchContract):
    @pytest.fixture
    def store(self, elasticsearch_store: ReadStore) -> ReadStore:
        return elasticsearch_store


async def test_an_elasticsearch_that_is_gone_is_named() -> None:
    store = ElasticsearchReadStore("http://127.0.0.1:1", "t", request_timeout_seconds=5)
    with pytest.raises(ServerUnavailable, match=r"Elasticsearch at 127\.0\.0\.1:1"):
        await store.ping()
    await store.close()


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://localhost", "http://", "http://localhost:port"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Elasticsearch URL"):
        ElasticsearchReadStore(url, "t", request_timeout_seconds=5)


# --- both stores and a plain evaluation in memory give the same

texts = st.sampled_from(["Main street", "MAIN Straße", "a-b c", "", "İz", "ΟΔΟΣ", "x1"])
days = st.dates(date(2026, 1, 1), date(2026, 1, 4))
moments = st.integers(0, 3).map(lambda step: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=step))
things = st.builds(
    lambda number, **fields: thing(number, **fields),
    st.integers(-3, 3),
    group=st.sampled_from(["a", "b", "B", "é"]),
    place=st.integers(0, 2),
    ratio=st.sampled_from([-1.5, 0.0, 0.1, 1e300]),
    flag=st.booleans(),
    colour=st.sampled_from(["red", "blue", None]),
    rank=st.one_of(st.none(), st.integers(-1, 1)),
    moment=moments,
    due=st.one_of(st.none(), days),
    remark=st.one_of(st.none(), texts),
    labels=st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", "w"]), max_size=2),
    parts=st.lists(st.builds(Part, st.sampled_from(["ann", "ben"]), st.integers(0, 2)), max_size=2).map(tuple),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "group": st.sampled_from(["a", "b", "B", "é", "z"]),
    "number": st.integers(-3, 3),
    "place": st.integers(0, 2),
    "ratio": st.sampled_from([-1.5, 0.0, 0.1, 1e300]),
    "rank": st.integers(-1, 1),
    "moment": moments,
    "due": days,
    "parts.weight": st.integers(0, 2),
    "parts.owner": st.sampled_from(["ann", "ben"]),
}
terms = st.one_of(
    st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.builds(Term, st.just(name), VALUES[name])),
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.builds(Terms, st.just(name), st.lists(VALUES[name], max_size=3))
    ),
    st.builds(Term, st.just("flag"), st.booleans()),
    st.builds(Term, st.just("colour"), st.sampled_from(["red", "blue"])),
    st.builds(Term, st.just("labels.k"), st.sampled_from(["v", "w"])),
)


def bounded(name: str, lower: str, upper: str, bounds: tuple[Any, Any]) -> Range:
    chosen = {key: value for key, value in zip((lower, upper), bounds, strict=True) if value is not None}
    return Range(name, **chosen)


ranges = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.builds(
        bounded,
        st.just(name),
        st.sampled_from(["gt", "gte"]),
        st.sampled_from(["lt", "lte"]),
        st.one_of(
            st.tuples(VALUES[name], st.none()),
            st.tuples(st.none(), VALUES[name]),
            st.tuples(VALUES[name], VALUES[name]),
        ),
    )
)
matches = st.builds(Match, st.sampled_from([("remark",), ("name", "remark")]), texts)
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.one_of(terms, ranges, matches),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.lists(inner, max_size=3).map(lambda parts: All(*parts)),
        st.lists(inner, max_size=3).map(lambda parts: AnyOf(*parts)),
    ),
    max_leaves=5,
)
SORTABLE = ["group", "number", "place", "ratio", "rank", "moment", "due", "name"]
sorts = st.lists(
    st.builds(Sort, st.sampled_from(SORTABLE), st.booleans()), max_size=2, unique_by=lambda sort: sort.field
)
COMPARE = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def values_of(document: Thing, name: str) -> list[Any]:
    if name.startswith("parts."):
        return [getattr(part, name.removeprefix("parts.")) for part in document.parts]
    if name.startswith("labels."):
        return [value for key, value in document.labels.items() if key == name.removeprefix("labels.")]
    value = getattr(document, name)
    return [] if value is None else [value]


def fits(document: Thing, condition: Condition) -> bool:
    match condition:
        case All(parts):
            return all(fits(document, each) for each in parts)
        case AnyOf(parts):
            return any(fits(document, each) for each in parts)
        case Not(inner):
            return not fits(document, inner)
        case Term(name, value):
            return value in values_of(document, name)
        case Terms(name, wanted):
            return any(value in wanted for value in values_of(document, name))
        case Range():
            bounds = [(test, getattr(condition, name)) for name, test in COMPARE.items()]
            return any(
                all(bound is None or test(value, bound) for test, bound in bounds)
                for value in values_of(document, condition.field)
            )
        case Match(names, text):
            words = {word for name in names for value in values_of(document, name) for word in words_of(value)}
            return bool(words_of(text)) and set(words_of(text)) <= words
    raise AssertionError(condition)


def ordered(documents: dict[str, Thing], sort: list[Sort]) -> list[str]:
    ids = sorted(documents, reverse=bool(sort) and sort[-1].descending)
    for each in reversed(sort):
        present = [key for key in ids if getattr(documents[key], each.field) is not None]
        present.sort(key=lambda key: getattr(documents[key], each.field), reverse=each.descending)
        if each.descending:  # a reversed sort keeps the order of equals, as we want it
            present = stable_descending(ids, documents, each.field)
        ids = present + [key for key in ids if getattr(documents[key], each.field) is None]
    return ids


def stable_descending(ids: list[str], documents: dict[str, Thing], name: str) -> list[str]:
    values = sorted({getattr(documents[key], name) for key in ids} - {None}, reverse=True)
    return [key for value in values for key in ids if getattr(documents[key], name) == value]


@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    documents=st.lists(things, min_size=1, max_size=12),
    queries=st.lists(st.tuples(conditions, sorts, st.integers(1, 5)), min_size=5, max_size=25),
)
async def test_both_stores_find_what_a_plain_evaluation_finds(
    postgres_store: ReadStore,
    elasticsearch_store: ReadStore,
    documents: list[Thing],
    queries: list[tuple[Condition, list[Sort], int]],
) -> None:
    index = IndexSpec("both", 1, Thing)
    kept = {f"{number}": document for number, document in enumerate(documents)}
    for store in (postgres_store, elasticsearch_store):
        await store.drop(index)
        await store.prepare(index)
        await store.write(index, [Change(key, 1, document) for key, document in kept.items()])
        await store.refresh(index)
    for where, sort, limit in queries:
        expected = [key for key in ordered(kept, sort) if fits(kept[key], where)]
        for store in (postgres_store, elasticsearch_store):
            rows = await found_in(store, index, Query(where=where, sort=sort, limit=limit))
            assert [row.id for row in rows] == expected, (type(store).__name__, where, sort)
