"""What every read store must do with summaries, stable lists and single conditions: subclass as shown.

::

    class TestMyStoresSearches(SearchContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[ReadStore]: ...

`cqrskit.testing.read_store_contract` has the rest.
"""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit.cursors import Cursor, pack, unpack
from cqrskit.errors import InvalidCursor, InvalidQuery
from cqrskit.query import Condition, Exists, Not, Prefix, Query, Range, Sort, Term
from cqrskit.read_store import Change, IndexSettings, IndexSpec, ReadStore
from cqrskit.summary import DateHistogram, Figures, Group, Histogram, Summary, Values
from cqrskit.testing.read_store_contract import Part, Thing, found_in, thing

__all__ = ["SearchContract", "groups_in"]


async def write(store: ReadStore, index: IndexSpec, *things: Thing, version: int = 1) -> None:
    """Write things under their number, and let searches see them."""
    refused = await store.write(index, [Change(str(each.number), version, each) for each in things])
    assert not refused
    await store.refresh(index)


async def groups_in(store: ReadStore, index: IndexSpec, summary: Summary) -> list[Group]:
    """All groups of a summary, page by page."""
    groups: list[Group] = []
    cursor: str | None = None
    while True:
        answer = await store.summarize(index, replace(summary, cursor=cursor))
        groups += answer.items
        if answer.next is None:
            return groups
        assert len(answer.items) == summary.limit
        cursor = answer.next


def _decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


class SearchContract:
    """The tests. Override `store`."""

    @pytest.fixture
    def store(self) -> ReadStore:
        """The store to be tested, open."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    async def index(self, store: ReadStore) -> AsyncIterator[IndexSpec]:
        """An empty index of things, of two shards where the store has such."""
        index = IndexSpec(f"things_{uuid4().hex[:8]}", 1, Thing, IndexSettings(shards=2))
        await store.prepare(index)
        yield index
        await store.drop(index)

    async def test_beginnings_and_missing_values_are_found(self, store: ReadStore, index: IndexSpec) -> None:
        """Characters beyond the usual ones included."""
        await write(
            store,
            index,
            thing(1, group="ab", colour="red", labels={"50%": "x", 'a"b': ""}),
            thing(2, group="a", rank=0, parts=(Part("ann", 1),)),
            thing(3, group="b\U0010ffff", due=date(2026, 1, 1)),
            thing(4, group="\ud7ff!"),
            thing(5, group="\ue000"),
        )
        expected: list[tuple[Condition, list[int]]] = [
            (Prefix("group", "a"), [1, 2]),
            (Prefix("group", "ab"), [1]),
            (Prefix("group", "A"), []),
            (Prefix("group", "b\U0010ffff"), [3]),
            (Prefix("group", "\ud7ff"), [4]),
            (Prefix("name", "Thing 00"), [1, 2, 3, 4, 5]),
            (Prefix("colour", "re"), [1]),
            (Prefix("key", str(UUID(int=2 + 2**100))[:-1]), [1, 2, 3, 4, 5]),
            (Prefix("parts.owner", "an"), [2]),
            (Exists("colour"), [1]),
            (Not(Exists("colour")), [2, 3, 4, 5]),
            (Exists("rank"), [2]),
            (Exists("due"), [3]),
            (Exists("flag"), [1, 2, 3, 4, 5]),
            (Exists("parts.weight"), [2]),
            (Exists("labels.50%"), [1]),
            (Exists('labels.a"b'), [1]),
            (Exists("labels.a"), []),
            (Exists("name"), [1, 2, 3, 4, 5]),
        ]
        for where, numbers in expected:
            rows = await found_in(store, index, Query(where=where, sort=[Sort("number")], limit=2))
            assert [row.document.number for row in rows] == numbers, where

    # --- summaries

    async def test_whole_numbers_are_summed_exactly_whatever_their_size(
        self, store: ReadStore, index: IndexSpec
    ) -> None:
        """Beyond what a double holds, beyond 64 bits, and where large ones cancel out."""
        cases = [
            [2**53, 1],
            [2**53 - 1, 1, 1],
            [2**63 - 1] * 3,
            [-(2**63)] * 3,
            [2**62 + 1, -(2**62), -1, 5],
            [10**16 + 1, -(10**16), 3],
            [0, 0],
            [-7],
        ]
        for number, case in enumerate(cases):
            await store.write(
                index,
                [
                    Change(f"{number}/{place}", 1, thing(value, group=f"case {number}"))
                    for place, value in enumerate(case)
                ],
            )
        await store.refresh(index)
        for number, case in enumerate(cases):
            where = Term("group", f"case {number}")
            (group,) = (await store.summarize(index, Summary(where=where, of=["number"]))).items
            assert group == Group(None, len(case), {"number": Figures(len(case), sum(case), min(case), max(case))})
            assert type(group.figures["number"].sum) is int
        found = await groups_in(store, index, Summary(of=["number"], by=Values("group"), limit=3))
        assert [(each.key, each.figures["number"].sum) for each in found] == [
            (f"case {number}", sum(case)) for number, case in enumerate(cases)
        ]

    async def test_a_summary_counts_what_is_there(self, store: ReadStore, index: IndexSpec) -> None:
        """Missing values, deleted documents and documents that do not fit count for nothing."""
        await write(store, index, thing(1, rank=5, ratio=0.5), thing(2, ratio=1.0), thing(3, rank=-7, ratio=-4.0))
        await write(store, index, thing(4, rank=100), thing(5, group="b", rank=1_000))
        await store.write(index, [Change("4", 2, None)])
        await store.refresh(index)
        (group,) = (await store.summarize(index, Summary(where=Term("group", "a"), of=["rank", "ratio"]))).items
        figures = {"rank": Figures(2, -2, -7, 5), "ratio": Figures(3, -2.5, -4.0, 1.0)}
        assert group == Group(None, 3, figures)
        (nothing,) = (await store.summarize(index, Summary(where=Term("group", "z"), of=["rank", "ratio"]))).items
        assert nothing == Group(None, 0, {"rank": Figures(0, 0, None, None), "ratio": Figures(0, 0.0, None, None)})
        assert (await store.summarize(index, Summary(where=Term("group", "z"), by=Values("group")))).items == []

    async def test_groups_come_by_value_and_the_one_without_last(self, store: ReadStore, index: IndexSpec) -> None:
        """Each kind of field, in pages that join without a seam."""
        things = [
            thing(1, group="é", flag=True, colour="red", rank=3, labels={"50%": "w"}),
            thing(2, group="a", colour="blue", rank=-5),
            thing(3, group="B", flag=True, rank=2**60 + 1, labels={"50%": "v"}),
            thing(4, group="a", colour="red"),
        ]
        await write(store, index, *things)
        expected: list[tuple[str, list[tuple[Any, int]]]] = [
            ("group", [("B", 1), ("a", 2), ("é", 1)]),
            ("flag", [(False, 2), (True, 2)]),
            ("colour", [("blue", 1), ("red", 2), (None, 1)]),
            ("rank", [(-5, 1), (3, 1), (2**60 + 1, 1), (None, 1)]),
            ("name", [(f"Thing 00{number}", 1) for number in (1, 2, 3, 4)]),
            ("key", [(each.key, 1) for each in things]),
            ("labels.50%", [("v", 1), ("w", 1), (None, 2)]),
            ("labels.x", [(None, 4)]),
        ]
        for field, counts in expected:
            for limit in (1, 2, 100):
                found = await groups_in(store, index, Summary(by=Values(field), limit=limit))
                assert [(each.key, each.count) for each in found] == counts, (field, limit)
                assert [type(each.key) for each in found] == [type(key) for key, _ in counts]

    async def test_histograms_of_numbers(self, store: ReadStore, index: IndexSpec) -> None:
        """From a multiple of the interval to below the next one, below zero too; empty ones are left out."""
        ranks = [-(2**63), -11, -10, -1, 0, 9, 10, 2**53 + 1, 2**63 - 1, None]
        ratios = [-0.5, 0.0, 0.4, 0.5, 2.75, 1e300, -1.5, 0.25, 1.0, 5.0]
        await write(
            store,
            index,
            *(
                thing(place, rank=rank, ratio=ratio)
                for place, (rank, ratio) in enumerate(zip(ranks, ratios, strict=True))
            ),
        )

        async def counts(by: Histogram, limit: int) -> list[tuple[Any, int]]:
            return [(each.key, each.count) for each in await groups_in(store, index, Summary(by=by, limit=limit))]

        for interval in (1, 3, 10, 2**31, 2**62 + 1):
            expected: dict[int, int] = {}
            for rank in ranks[:-1]:
                assert rank is not None
                key = rank // interval * interval
                expected[key] = expected.get(key, 0) + 1
            for limit in (2, 100):
                assert await counts(Histogram("rank", interval), limit) == [*sorted(expected.items()), (None, 1)]
        assert await counts(Histogram("ratio", 0.5), 4) == [
            (-1.5, 1),
            (-0.5, 1),
            (0.0, 3),
            (0.5, 1),
            (1.0, 1),
            (2.5, 1),
            (5.0, 1),
            (1e300, 1),
        ]

    async def test_histograms_of_days(self, store: ReadStore, index: IndexSpec) -> None:
        """In UTC, weeks from Monday, years from 1 to 9999."""
        moments = [
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2024, 3, 1, tzinfo=UTC),
            datetime(2026, 1, 4, 12, tzinfo=UTC),
            datetime(2026, 1, 5, tzinfo=UTC),
            datetime(2261, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ]
        dues = [None, date(1, 1, 1), date(1, 1, 8), date(1582, 10, 10), date(9999, 12, 31), date(1969, 12, 31)]
        await write(
            store,
            index,
            *(
                thing(place, moment=moment, due=due)
                for place, (moment, due) in enumerate(zip(moments, dues, strict=True))
            ),
        )

        async def keys(by: DateHistogram) -> list[str]:
            found = await groups_in(store, index, Summary(by=by, limit=2))
            return [f"{each.key}: {each.count}" for each in found]

        assert await keys(DateHistogram("moment", "month")) == [
            *("1970-01-01: 1", "2024-02-01: 1", "2024-03-01: 1", "2026-01-01: 2", "2261-12-01: 1"),
        ]
        assert await keys(DateHistogram("moment", "week")) == [
            *("1969-12-29: 1", "2024-02-26: 2", "2025-12-29: 1", "2026-01-05: 1", "2261-12-30: 1"),
        ]
        assert await keys(DateHistogram("moment", "year")) == [
            *("1970-01-01: 1", "2024-01-01: 2", "2026-01-01: 2", "2261-01-01: 1"),
        ]
        assert await keys(DateHistogram("due", "day")) == [
            *("0001-01-01: 1", "0001-01-08: 1", "1582-10-10: 1", "1969-12-31: 1", "9999-12-31: 1", "None: 1"),
        ]
        assert await keys(DateHistogram("due", "week")) == [
            *("0001-01-01: 1", "0001-01-08: 1", "1582-10-04: 1", "1969-12-29: 1", "9999-12-27: 1", "None: 1"),
        ]

    @pytest.mark.parametrize(
        ("summary", "reason"),
        [
            (Summary(limit=0), "limit"),
            (Summary(of="number"), "list of fields"),
            (Summary(of=["group"]), "keyword field"),
            (Summary(of=["parts.weight"]), "several values"),
            (Summary(by=Values("parts.owner")), "several values"),
            (Summary(by=Values("ratio")), "Histogram"),
            (Summary(by=Values("due")), "DateHistogram"),
            (Summary(by=Values("remark")), "Text"),
            (Summary(by=Values("labels")), "one of them"),
            (Summary(by=Histogram("due", 1)), "whole numbers and floats"),
            (Summary(by=Histogram("number", 0)), "whole number from 1"),
            (Summary(by=Histogram("number", 0.5)), "whole number from 1"),
            (Summary(by=Histogram("ratio", float("inf"))), "above 0"),
            (Summary(by=DateHistogram("number", "day")), "dates"),
            (Summary(by=DateHistogram("due", "hour")), "day, week, month, year"),  # type: ignore[arg-type]
            (Summary(by=Values("colours")), "did you mean 'colour'"),
        ],
    )
    async def test_an_impossible_summary_is_refused(
        self, store: ReadStore, index: IndexSpec, summary: Summary, reason: str
    ) -> None:
        """Before the server is asked, in words that say what is possible."""
        with pytest.raises(InvalidQuery, match=reason):
            await store.summarize(index, summary)

    async def test_the_cursor_of_a_summary_belongs_to_it(self, store: ReadStore, index: IndexSpec) -> None:
        """Another grouping, other fields, or nonsense is refused."""
        await write(store, index, thing(1, group="a"), thing(2, group="b"))
        cursor = (await store.summarize(index, Summary(by=Values("group"), limit=1))).next
        assert cursor is not None
        for summary in (
            Summary(by=Values("name"), cursor=cursor),
            Summary(by=Values("group"), of=["number"], cursor=cursor),
            Summary(by=Values("group"), where=Term("number", 1), cursor=cursor),
            Summary(cursor=cursor),
            Summary(by=Values("group"), cursor="nonsense"),
        ):
            with pytest.raises(InvalidCursor):
                await store.summarize(index, summary)

    # --- stable lists

    @pytest.mark.parametrize("sort", ["place", "ratio", "moment"])
    @pytest.mark.parametrize("descending", [False, True])
    async def test_rows_of_one_value_come_by_id_wherever_a_page_ends(
        self, store: ReadStore, index: IndexSpec, sort: str, descending: bool
    ) -> None:
        """Values that 1, 2, 3 and 5 rows have, written in no order."""
        values = [0] + [1] * 2 + [2] * 3 + [3] * 5 + [4]
        rows = [
            thing(
                number, place=value, ratio=value / 2, moment=datetime(2026, 1, 1 + value, microsecond=value, tzinfo=UTC)
            )
            for number, value in enumerate(values)
        ]
        await write(store, index, *(rows[(7 * step + 5) % len(rows)] for step in range(len(rows))))
        expected = sorted(rows, key=lambda row: (getattr(row, sort), str(row.number)), reverse=descending)
        for limit in range(1, len(rows) + 2):
            found = await found_in(store, index, Query(sort=[Sort(sort, descending)], limit=limit))
            assert [row.id for row in found] == [str(row.number) for row in expected], f"{limit} rows on a page"

    async def test_a_stable_list_shows_one_moment(self, store: ReadStore, index: IndexSpec) -> None:
        """Whatever is changed, added, moved or deleted between its pages."""
        things = [thing(number, rank=None if number % 5 == 0 else number % 3) for number in range(20)]
        await write(store, index, *things)
        for sort in ([], [Sort("number", descending=True)], [Sort("rank"), Sort("number")]):
            query = Query(where=Range("number", gte=2), sort=sort, limit=4, stable=True)
            expected = [row.document for row in await found_in(store, index, Query(where=query.where, sort=sort))]
            seen: list[Any] = []
            version = 2
            while True:
                page = await store.search(index, query)
                seen += [row.document for row in page.items]
                if page.next is None:
                    break
                query = Query(where=query.where, sort=sort, limit=4, stable=True, cursor=page.next)
                changed = [thing(number, rank=50 - version, place=version) for number in range(0, 20, 2)]
                await write(store, index, *changed, thing(100 + version), version=version * 10)
                await store.write(index, [Change("3", version * 10, None)])
                await store.refresh(index)
                version += 1
            assert seen == expected
            await write(store, index, *things, version=1_000)
            await store.write(index, [Change(str(100 + each), 1_000, None) for each in range(2, version)])
            await store.refresh(index)
            await store.drop(index)
            await store.prepare(index)
            await write(store, index, *things)

    async def test_a_stable_list_ends_with_its_last_page(self, store: ReadStore, index: IndexSpec) -> None:
        """Its cursors then say so."""
        await write(store, index, *(thing(number) for number in range(5)))
        first = await store.search(index, Query(limit=3, stable=True))
        assert first.next is not None
        second = await store.search(index, Query(limit=3, stable=True, cursor=first.next))
        assert ([row.id for row in second.items], second.next) == (["3", "4"], None)
        with pytest.raises(InvalidCursor, match="begin anew"):
            await store.search(index, Query(limit=3, stable=True, cursor=first.next))

    async def test_a_page_of_a_stable_list_may_be_asked_for_twice(self, store: ReadStore, index: IndexSpec) -> None:
        """Before the last one was given: a lost answer costs nothing."""
        await write(store, index, *(thing(number) for number in range(9)))
        first = await store.search(index, Query(limit=3, stable=True))
        for _ in range(2):
            page = await store.search(index, Query(limit=3, stable=True, cursor=first.next))
            assert [row.id for row in page.items] == ["3", "4", "5"]

    async def test_a_stable_cursor_opens_nothing_else(self, store: ReadStore, index: IndexSpec) -> None:
        """Not another query, not the same one unstable, and not another index."""
        other = msgspec.structs.replace(index, generation=2)
        await store.prepare(other)
        for each in (index, other):
            await write(store, each, *(thing(number) for number in range(5)))
        cursor = (await store.search(index, Query(limit=2, stable=True))).next
        assert cursor is not None
        plain = (await store.search(index, Query(limit=2))).next
        for wrong in (
            Query(limit=2, cursor=cursor),
            Query(limit=2, stable=True, cursor=plain),
            Query(limit=2, stable=True, where=Term("group", "a"), cursor=cursor),
            Query(limit=2, stable=True, sort=[Sort("number")], cursor=cursor),
        ):
            with pytest.raises(InvalidCursor):
                await store.search(index, wrong)
        with pytest.raises(InvalidCursor):
            await store.search(other, Query(limit=2, stable=True, cursor=cursor))
        parts = unpack(cursor, msgspec.json.decode(_decoded(cursor))[0], 1)
        for held in ("", "nonsense", "0" * 32 + ":2", "0" * 32 + ":9999999", "ä", "A" * 300):
            forged = pack(Cursor(parts.fingerprint, parts.values, held))
            with pytest.raises(InvalidCursor):
                await store.search(index, Query(limit=2, stable=True, cursor=forged))
        assert len((await store.search(index, Query(limit=2, stable=True, cursor=cursor))).items) == 2
        await store.drop(other)
