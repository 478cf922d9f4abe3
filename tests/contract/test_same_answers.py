"""Both read stores answer as a plain evaluation in memory does, whatever is asked."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cqrskit.query import All, Condition, Exists, Match, Not, Prefix, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.read_store import Change, IndexSettings, IndexSpec, ReadStore
from cqrskit.summary import DateHistogram, Group, Histogram, Summary, Values
from cqrskit.testing.read_store_contract import Part, Thing, found_in, thing
from cqrskit.testing.search_contract import groups_in
from tests.contract.plain_answers import fits, grouped, ordered

texts = st.sampled_from(["Main street", "MAIN Straße", "a-b c", "", "İz", "ΟΔΟΣ", "x1"])
days = st.dates(date(2025, 12, 30), date(2026, 1, 6))
moments = st.builds(
    lambda start, step: start + timedelta(microseconds=step),
    st.sampled_from([datetime(2024, 2, 29, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]),
    st.integers(-2, 1),
)
wholes = st.integers(-3, 3) | st.sampled_from([-(2**63), -(2**53) - 1, 2**53, 2**53 + 1, 10**17 + 7, 2**63 - 1])
ranks = st.integers(-1, 1) | st.sampled_from([-(2**62), 2**53 + 1, 2**62 + 1])
reals = st.sampled_from([-1.5, 0.0, 0.1, 0.2, 1e300])
things = st.builds(
    lambda number, **fields: thing(number, **fields),
    wholes,
    group=st.sampled_from(["a", "b", "B", "é"]),
    place=st.integers(0, 2),
    ratio=reals,
    flag=st.booleans(),
    colour=st.sampled_from(["red", "blue", None]),
    rank=st.none() | ranks,
    moment=moments,
    due=st.one_of(st.none(), days),
    remark=st.one_of(st.none(), texts),
    labels=st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["v", "w"]), max_size=2),
    parts=st.lists(st.builds(Part, st.sampled_from(["ann", "ben"]), st.integers(0, 2)), max_size=2).map(tuple),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "group": st.sampled_from(["a", "b", "B", "é", "z"]),
    "number": wholes,
    "place": st.integers(0, 2),
    "ratio": reals,
    "rank": ranks,
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
    st.builds(
        Prefix, st.sampled_from(["group", "name", "colour", "parts.owner"]), st.sampled_from(["a", "Thing 0", "r"])
    ),
    st.builds(Exists, st.sampled_from(["colour", "rank", "due", "flag", "labels.k", "parts.weight"])),
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
groupings = st.one_of(
    st.none(),
    st.builds(Values, st.sampled_from(["group", "number", "rank", "flag", "colour", "name", "labels.k"])),
    st.builds(Histogram, st.sampled_from(["number", "rank", "place"]), st.sampled_from([1, 2, 10, 2**40, 2**62])),
    st.builds(Histogram, st.just("ratio"), st.sampled_from([0.1, 0.5, 2.0])),
    st.builds(DateHistogram, st.sampled_from(["moment", "due"]), st.sampled_from(["day", "week", "month", "year"])),
)
summaries = st.builds(
    Summary,
    where=conditions | st.just(All()),
    of=st.lists(st.sampled_from(["number", "place", "ratio", "rank"]), max_size=3, unique=True),
    by=groupings,
    limit=st.integers(1, 4),
)


@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    documents=st.lists(things, min_size=1, max_size=12),
    queries=st.lists(
        st.builds(Query, where=conditions, sort=sorts, limit=st.integers(1, 5), stable=st.booleans()),
        min_size=5,
        max_size=20,
    ),
    asked=st.lists(summaries, min_size=5, max_size=20),
)
async def test_both_stores_find_what_a_plain_evaluation_finds(
    postgres_store: ReadStore,
    elasticsearch_store: ReadStore,
    documents: list[Thing],
    queries: list[Query],
    asked: list[Summary],
) -> None:
    index = IndexSpec("both", 1, Thing, IndexSettings(shards=2))
    kept = {f"{number}": document for number, document in enumerate(documents)}
    for store in (postgres_store, elasticsearch_store):
        await store.drop(index)
        await store.prepare(index)
        changes = [Change(key, 1, document) for key, document in kept.items()]
        for part in (changes[::2], changes[1::2]):  # a refresh makes a segment: several answer in their own ways
            await store.write(index, part)
            await store.refresh(index)
    for query in queries:
        expected = [key for key in ordered(kept, query.sort) if fits(kept[key], query.where)]
        for store in (postgres_store, elasticsearch_store):
            rows = await found_in(store, index, query)
            assert [row.id for row in rows] == expected, (type(store).__name__, query)
    for summary in asked:
        groups = grouped(kept.values(), summary)
        for store in (postgres_store, elasticsearch_store):
            found = [rounded(group) for group in await groups_in(store, index, summary)]
            assert found == [rounded(group) for group in groups], (type(store).__name__, summary)


def rounded(group: Group) -> Group:
    """Without the last digits of a sum of floats, which nobody promises."""
    figures = {
        name: msgspec.structs.replace(each, sum=float(f"{each.sum:.9e}")) if name == "ratio" else each
        for name, each in group.figures.items()
    }
    return msgspec.structs.replace(group, figures=figures)
