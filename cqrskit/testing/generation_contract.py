"""What every read store must do with generations: subclass `GenerationContract` as shown, and pytest runs it all.

::

    class TestMyStoresGenerations(GenerationContract):
        @pytest.fixture
        async def store(self) -> AsyncIterator[ReadStore]: ...

        @pytest.fixture
        async def another_store(self) -> AsyncIterator[ReadStore]: ...

        async def live_documents(self, index: IndexSpec) -> int | None: ...
"""

from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest

from cqrskit.errors import ReadStoreError
from cqrskit.query import Condition, Match, Query, Sort, Term
from cqrskit.read_store import Change, IndexSpec, ReadStore
from cqrskit.testing.read_store_contract import Thing, found_in, thing
from cqrskit.testing.waiting import eventually

__all__ = ["GenerationContract"]


async def write(store: ReadStore, index: IndexSpec, *things: Thing) -> None:
    """Write things under their number, and let searches see them."""
    refused = await store.write(index, [Change(str(each.number), 1, each) for each in things])
    assert not refused
    await store.refresh(index)


async def numbers(store: ReadStore, index: IndexSpec, where: Condition) -> list[int]:
    """Numbers of the things that fit."""
    rows = await found_in(store, index, Query(where=where, sort=[Sort("number")], limit=100))
    return [row.document.number for row in rows]


class GenerationContract:
    """The tests. Override `store`, `another_store` and `live_documents`."""

    @pytest.fixture
    def store(self) -> ReadStore:
        """The store to be tested, open."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    def another_store(self) -> ReadStore:
        """A second one on the same server and with the same prefix, as another process has it."""
        raise NotImplementedError("override the fixture `another_store`")

    async def live_documents(self, index: IndexSpec) -> int | None:
        """How many documents somebody finds who knows the projection's name only; None if there is no such name."""
        raise NotImplementedError("override `live_documents`: ask the server itself")

    @pytest.fixture
    async def index(self, store: ReadStore) -> AsyncIterator[IndexSpec]:
        """The first generation of things, empty."""
        index = IndexSpec(name=f"things_{uuid4().hex[:8]}", generation=1, document=Thing)
        await store.prepare(index)
        yield index
        await store.drop(index)

    async def test_one_generation_is_live_at_a_time(self, store: ReadStore, index: IndexSpec) -> None:
        """The projection's own name on the server shows it, from the first swap to the way back."""
        newer = msgspec.structs.replace(index, generation=2)
        await store.prepare(newer)
        await write(store, index, thing(1))
        await write(store, newer, thing(1), thing(2))
        assert await self.live_documents(index) is None
        for live, documents in ((index, 1), (newer, 2), (newer, 2), (index, 1)):
            await store.make_live(live)
            assert await self.live_documents(index) == documents
        await store.drop(newer)
        assert await self.live_documents(index) == 1
        await store.drop(index)
        assert await self.live_documents(index) is None

    async def test_a_generation_that_is_not_there_cannot_be_made_live(self, store: ReadStore, index: IndexSpec) -> None:
        """And the one that is live stays so."""
        await write(store, index, thing(1))
        await store.make_live(index)
        with pytest.raises(ReadStoreError, match="prepare"):
            await store.make_live(msgspec.structs.replace(index, generation=3))
        assert await self.live_documents(index) == 1

    async def test_an_index_filled_by_a_bulk_load_is_like_any_other(self, store: ReadStore, index: IndexSpec) -> None:
        """Also when it was begun twice, ended twice, and prepared again in between."""
        identity = await store.prepare(index)
        for _ in range(2):
            await store.begin_bulk_load(index)
            assert await store.prepare(index) == identity
        await write(store, index, *(thing(number, rank=number % 3) for number in range(50)))
        assert (await store.load(index, ["7"]))["7"].version == 1
        for _ in range(2):
            await store.end_bulk_load(index)
        await write(store, index, thing(50, rank=1))
        assert await numbers(store, index, Term("rank", 1)) == [*range(1, 50, 3), 50]
        assert await numbers(store, index, Match(("name",), "thing 007")) == [7]
        await store.end_bulk_load(index)

    async def test_the_size_of_an_index_is_told(self, store: ReadStore, index: IndexSpec) -> None:
        """It grows with the documents."""
        empty = await store.size_bytes(index)
        changes = [
            Change(str(number), 1, thing(number, remark="".join(uuid4().hex for _ in range(40))))
            for number in range(500)
        ]
        await store.write(index, changes)
        await store.refresh(index)

        async def grown() -> bool:
            return await store.size_bytes(index) > empty + 100_000

        await eventually(grown, timeout_seconds=30)

    async def test_the_numbers_of_a_projections_indices_are_told(self, store: ReadStore, index: IndexSpec) -> None:
        """Of this projection only, however alike another one's name is, live or not, in order."""
        name = index.name
        later = [msgspec.structs.replace(index, generation=number) for number in (12, 3)]
        others = [msgspec.structs.replace(index, name=f"{name}{end}") for end in ("s", "_3")]
        for each in (*later, *others):
            await store.prepare(each)
        await store.make_live(later[0])
        assert await store.numbers_of(name) == [1, 3, 12]
        assert await store.numbers_of(f"{name}_3") == [1]
        assert await store.numbers_of(f"{name}_none") == []
        for each in (*later, *others):
            await store.drop(each)
        assert await store.numbers_of(name) == [1]

    async def test_a_removed_index_is_noticed_by_its_writer(self, store: ReadStore, index: IndexSpec) -> None:
        """And is not made anew by the write."""
        await write(store, index, thing(1))
        await store.drop(index)
        with pytest.raises(ReadStoreError):
            await store.write(index, [Change("2", 2, thing(2))])
        assert await store.size_bytes(index) == 0

    async def test_an_index_that_another_process_has_replaced_is_noticed_by_its_writer(
        self, store: ReadStore, another_store: ReadStore, index: IndexSpec
    ) -> None:
        """At the latest before searches are said to see what was written."""
        await write(store, index, thing(1))
        await another_store.drop(index)
        await another_store.prepare(index)
        with pytest.raises(ReadStoreError, match="start again"):
            await write(store, index, thing(2))
        await store.prepare(index)
        await write(store, index, thing(3))
