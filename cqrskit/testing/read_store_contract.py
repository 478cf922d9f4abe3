"""What every read store must do: subclass `ReadStoreContract` with a `store` fixture, and pytest runs it all.

::

    class TestMyStore(ReadStoreContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[ReadStore]: ...

Each test has an index of its own, named by a random word and removed in the end.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit.document import Indexed, Text, Unindexed
from cqrskit.errors import ConfigurationError, IndexMissing, InvalidCursor, InvalidQuery
from cqrskit.query import All, Condition, Match, Not, Query, Range, Sort, Term, Terms
from cqrskit.query import Any as AnyOf
from cqrskit.read_store import Change, IndexSpec, ReadStore, Stored
from cqrskit.summary import Summary

__all__ = ["Part", "ReadStoreContract", "Thing", "found_in"]


class Part(msgspec.Struct, frozen=True):
    """One of a thing's parts."""

    owner: str
    weight: int


class Thing(msgspec.Struct, frozen=True):
    """A document with a field of every kind."""

    key: UUID
    name: Annotated[str, Text(keyword=True), Indexed()]
    number: Annotated[int, Indexed()]
    group: str = "a"
    place: Annotated[int, Indexed(within="group")] = 0
    ratio: float = 0.0
    flag: bool = False
    colour: Literal["red", "blue"] | None = None
    rank: int | None = None
    moment: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    due: date | None = None
    remark: Annotated[str | None, Text()] = None
    labels: dict[str, str] = {}
    parts: tuple[Part, ...] = ()
    note: Annotated[Any, Unindexed()] = None


def thing(number: int, **fields: Any) -> Thing:
    """A thing; its name and key follow from its number."""
    return Thing(key=UUID(int=number + 2**100), name=f"Thing {number:03}", number=number, **fields)


async def found_in(store: ReadStore, index: IndexSpec, query: Query) -> list[Stored]:
    """All rows of a query, page by page."""
    rows: list[Stored] = []
    while True:
        page = await store.search(index, query)
        rows += page.items
        assert len({row.id for row in rows}) == len(rows), "a row is on two pages"
        if page.next is None:
            return rows
        assert len(page.items) == query.limit
        query = replace(query, cursor=page.next)


class ReadStoreContract:
    """The tests. Override `store`."""

    @pytest.fixture
    def store(self) -> ReadStore:
        """The store to be tested, open."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    async def index(self, store: ReadStore) -> AsyncIterator[IndexSpec]:
        """An empty index of things."""
        index = IndexSpec(name=f"things_{uuid4().hex[:8]}", generation=1, document=Thing)
        await store.prepare(index)
        yield index
        await store.drop(index)

    async def write(self, store: ReadStore, index: IndexSpec, *things: Thing, version: int = 1) -> None:
        """Write things under their number, and let searches see them."""
        refused = await store.write(index, [Change(str(each.number), version, each) for each in things])
        assert not refused
        await store.refresh(index)

    async def numbers(self, store: ReadStore, index: IndexSpec, where: Condition, *sort: Sort) -> list[int]:
        """Numbers of the things that fit."""
        rows = await found_in(store, index, Query(where=where, sort=sort or (Sort("number"),), limit=100))
        assert await store.count(index, where) == len(rows)
        return [row.document.number for row in rows]

    # --- documents by id

    async def test_a_document_comes_back_as_it_went(self, store: ReadStore, index: IndexSpec) -> None:
        """All kinds of values, exactly."""
        full = thing(
            2**63 - 1,
            group="ünï \U0001f600 \"'\\",
            ratio=0.1,
            flag=True,
            colour="red",
            rank=-(2**63),
            moment=datetime(2026, 5, 6, 7, 8, 9, 123_456, tzinfo=UTC),
            due=date(2026, 12, 31),
            remark="line\nbreak",
            labels={"a.b": "c", "": ""},
            parts=(Part("ann", 1), Part("ben", 2)),
            note={"deep": [1, None, {"x": 2**70}]},
        )
        await self.write(store, index, full, thing(1))
        stored = await store.get(index, str(full.number))
        assert stored == Stored(str(full.number), 1, full)
        loaded = await store.load(index, ["1", "nothing", str(full.number), "x" * 600])
        assert {key: each.document for key, each in loaded.items()} == {"1": thing(1), str(full.number): full}
        assert [row.document for row in await found_in(store, index, Query(sort=[Sort("number")]))] == [thing(1), full]

    @pytest.mark.parametrize("document_id", ["a/b?c=d#e", "ä \U0001f600", '"', "..", "_x", "%2F", "x" * 512, " "])
    async def test_ids_may_be_any_text(self, store: ReadStore, index: IndexSpec, document_id: str) -> None:
        """Up to 512 bytes."""
        assert not await store.write(index, [Change(document_id, 1, thing(1))])
        await store.refresh(index)
        stored = await store.get(index, document_id)
        assert stored is not None
        assert stored.id == document_id
        assert [row.id for row in await found_in(store, index, Query())] == [document_id]

    async def test_an_older_or_equal_version_changes_nothing(self, store: ReadStore, index: IndexSpec) -> None:
        """It is no refusal."""
        for number, (version, kept) in enumerate(((5, 0), (5, 0), (4, 0), (6, 3), (1, 3))):
            assert not await store.write(index, [Change("x", version, thing(number))])
            assert await store.get(index, "x") == Stored("x", 6 if kept else 5, thing(kept))

    async def test_a_deleted_document_keeps_its_version(self, store: ReadStore, index: IndexSpec) -> None:
        """An older write cannot bring it back, a newer one can."""
        await store.write(index, [Change("x", 5, thing(1)), Change("y", 1, thing(2))])
        assert not await store.write(index, [Change("x", 7, None)])
        await store.refresh(index)
        assert await store.get(index, "x") is None
        assert (await store.load(index, ["x"]))["x"] == Stored("x", 7, None)
        assert await self.numbers(store, index, All()) == [2]
        assert await self.numbers(store, index, Not(Term("group", "z"))) == [2]
        assert not await store.write(index, [Change("x", 6, thing(1))])
        assert await store.get(index, "x") is None
        assert not await store.write(index, [Change("x", 8, thing(3))])
        await store.refresh(index)
        assert await self.numbers(store, index, All()) == [2, 3]

    async def test_a_refused_document_stands_alone_among_hundreds(self, store: ReadStore, index: IndexSpec) -> None:
        """Exactly the bad ones are refused, each with a reason."""
        changes = [Change(str(number), 1, thing(number)) for number in range(300)]
        bad = {
            7: thing(2**63),
            50: thing(50, group="x" * 33_000),
            120: thing(120, note=float("nan")),
            200: thing(200, group="a\0b"),
            299: thing(299, moment=datetime(1950, 1, 1, tzinfo=UTC)),
        }
        for number, document in bad.items():
            changes[number] = Change(str(number), 1, document)
        changes[150] = Change("y" * 513, 1, thing(150))
        refused = await store.write(index, changes)
        assert refused.keys() == {*map(str, bad), "y" * 513}
        assert all(refused.values())
        await store.refresh(index)
        assert await store.count(index) == 294

    # --- searches

    async def test_searches_see_what_was_refreshed(self, store: ReadStore, index: IndexSpec) -> None:
        """And documents by id are there at once."""
        await store.write(index, [Change("x", 1, thing(1))])
        assert await store.get(index, "x") is not None
        assert await store.count(index) == (1 if store.writes_are_visible else 0)
        await store.refresh(index)
        assert await store.count(index) == 1

    async def test_conditions(self, store: ReadStore, index: IndexSpec) -> None:
        """Each one, on each kind of field."""
        first = datetime(2026, 1, 1, tzinfo=UTC)
        await self.write(
            store,
            index,
            thing(1, colour="red", rank=5, ratio=1.5, flag=True, labels={"city": "Bern"}, due=date(2026, 1, 1)),
            thing(2, colour="blue", moment=first + timedelta(microseconds=1), parts=(Part("ann", 1), Part("ben", 9))),
            thing(3, group="b", remark="Grüße aus BERN, 3 Wörter", parts=(Part("ben", 1),), labels={"city": "Thun"}),
        )
        expected: list[tuple[Condition, list[int]]] = [
            (All(), [1, 2, 3]),
            (AnyOf(), []),
            (Term("name", "Thing 002"), [2]),
            (Term("name", "thing 002"), []),
            (Term("key", UUID(int=3 + 2**100)), [3]),
            (Term("number", 3), [3]),
            (Terms("number", [1, 3, 8]), [1, 3]),
            (Terms("number", []), []),
            (Term("flag", True), [1]),
            (Term("colour", "blue"), [2]),
            (Not(Term("colour", "blue")), [1, 3]),
            (Term("rank", 5), [1]),
            (Range("rank", gt=4), [1]),
            (Not(Range("rank", gt=4)), [2, 3]),
            (Range("number", gte=2), [2, 3]),
            (Range("number", gt=1, lt=3), [2]),
            (Range("ratio", lte=1.5, gt=0), [1]),
            (Range("name", gt="Thing 001", lte="Thing 002"), [2]),
            (Range("moment", gt=first), [2]),
            (Term("moment", first), [1, 3]),
            (Range("due", lte=date(2026, 1, 1)), [1]),
            (Term("labels.city", "Bern"), [1]),
            (Term("labels.land", "Bern"), []),
            (Term("parts.owner", "ben"), [2, 3]),
            (Range("parts.weight", gt=5), [2]),
            (Match(("name",), "THING 002"), [2]),
            (Match(("name",), "thin"), []),
            (Match(("remark",), "bern grüsse"), []),
            (Match(("remark",), "bern grüße"), [3]),
            (Match(("name", "remark"), "003 wörter"), [3]),
            (Match(("name", "remark"), "!?"), []),
            (All(Term("group", "a"), AnyOf(Term("number", 2), Term("number", 3))), [2]),
        ]
        for where, numbers in expected:
            assert await self.numbers(store, index, where) == numbers, where

    async def test_order_and_pages(self, store: ReadStore, index: IndexSpec) -> None:
        """Ties by id in the direction of the last sort, missing values last; pages join without a seam."""
        things = [thing(number, place=number % 3, rank=None if number % 4 == 0 else number % 2) for number in range(20)]
        await self.write(store, index, *things)

        def absent(each: Thing) -> bool:
            return each.rank is None

        orders: list[tuple[list[Sort], list[Thing]]] = [
            ([], sorted(things, key=lambda each: str(each.number))),
            ([Sort("number", True)], things[::-1]),
            ([Sort("place")], sorted(things, key=lambda each: (each.place, str(each.number)))),
            ([Sort("place", True)], sorted(things, key=lambda each: (each.place, str(each.number)), reverse=True)),
            (
                [Sort("place", True), Sort("number")],
                sorted(things, key=lambda each: (-each.place, each.number)),
            ),
            (
                [Sort("rank"), Sort("number")],
                sorted(things, key=lambda each: (absent(each), each.rank or 0, each.number)),
            ),
            (
                [Sort("rank", True), Sort("number")],
                sorted(things, key=lambda each: (absent(each), -(each.rank or 0), each.number)),
            ),
        ]
        for sort, expected in orders:
            for limit in (1, 3, 20, 21):
                rows = await found_in(store, index, Query(sort=sort, limit=limit))
                assert [row.document.number for row in rows] == [each.number for each in expected], (sort, limit)

    async def test_pages_neither_skip_nor_repeat_while_others_write(self, store: ReadStore, index: IndexSpec) -> None:
        """Rows that were there all the time are seen once."""
        await self.write(store, index, *(thing(number) for number in range(0, 40, 2)))
        query = Query(sort=[Sort("number")], limit=4)
        seen: list[int] = []
        for round_number in range(20):
            page = await store.search(index, query)
            seen += [row.document.number for row in page.items]
            await self.write(store, index, thing(2 * round_number + 1), thing(-1 - round_number))
            if page.next is None:
                break
            query = Query(sort=query.sort, limit=4, cursor=page.next)
        assert len(seen) == len(set(seen))
        assert [number for number in seen if number % 2 == 0] == list(range(0, 40, 2))

    async def test_a_scan_gives_every_document_in_the_order_of_ids(self, store: ReadStore, index: IndexSpec) -> None:
        """More than one page of them."""
        await self.write(store, index, *(thing(number) for number in range(1_500)))
        ids = [stored.id async for stored in store.scan(index)]
        assert ids == sorted(str(number) for number in range(1_500))

    @pytest.mark.parametrize(
        "query",
        [
            Query(limit=0),
            Query(limit=1_001),
            Query(where=Term("colours", "red")),
            Query(where=Term("note", 1)),
            Query(where=Term("number", "1")),
            Query(where=Term("remark", "a")),
            Query(where=Term("labels", "a")),
            Query(where=Range("number")),
            Query(where=Range("number", gt=1, gte=2)),
            Query(where=Range("flag", gt=False)),
            Query(where=Match(("group",), "a")),
            Query(sort=[Sort("parts.weight")]),
            Query(sort=[Sort("remark")]),
        ],
    )
    async def test_an_impossible_query_is_refused(self, store: ReadStore, index: IndexSpec, query: Query) -> None:
        """Before the server is asked."""
        with pytest.raises(InvalidQuery):
            await store.search(index, query)

    async def test_a_cursor_belongs_to_its_query(self, store: ReadStore, index: IndexSpec) -> None:
        """Another sort, another condition, or nonsense is refused."""
        await self.write(store, index, thing(1), thing(2))
        cursor = (await store.search(index, Query(limit=1))).next
        assert cursor is not None
        for query in (
            Query(limit=1, cursor=cursor, sort=[Sort("number")]),
            Query(limit=1, cursor=cursor, where=Term("group", "a")),
            Query(limit=1, cursor=cursor + "x"),
            Query(limit=1, cursor="nonsense"),
        ):
            with pytest.raises(InvalidCursor):
                await store.search(index, query)

    # --- indexes

    async def test_an_index_has_one_identity_and_a_new_one_another(self, store: ReadStore, index: IndexSpec) -> None:
        """Preparing again changes nothing."""
        await self.write(store, index, thing(1))
        identity = await store.prepare(index)
        assert await store.prepare(index) == identity
        assert await store.count(index) == 1
        await store.drop(index)
        assert await store.prepare(index) != identity
        assert await store.count(index) == 0

    async def test_an_index_of_other_documents_is_refused(self, store: ReadStore, index: IndexSpec) -> None:
        """The message names the field."""

        class Other(msgspec.Struct, frozen=True):
            number: str

        with pytest.raises(ConfigurationError, match="number"):
            await store.prepare(IndexSpec(index.name, index.generation, Other))

    async def test_a_missing_index_is_said_to_be_missing(self, store: ReadStore) -> None:
        """It never answers as an empty one: whoever had documents would be told that there are none."""
        index = IndexSpec(name=f"nothing_{uuid4().hex[:8]}", generation=1, document=Thing)
        for asked in (
            store.get(index, "x"),
            store.load(index, ["x", "y"]),
            store.search(index, Query(sort=[Sort("number")])),
            store.search(index, Query(stable=True)),
            store.count(index),
            store.summarize(index, Summary(of=["number"])),
            anext(store.scan(index)),
        ):
            with pytest.raises(IndexMissing, match=f"{store.name_of(index)} is not there.*cqrskit project"):
                await asked
        assert await store.size_bytes(index) == 0
        await store.drop(index)
