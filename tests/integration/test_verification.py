"""Verifying read models on both stores: nothing is found where nothing is wrong, and everything where something is."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from cqrskit import Projection, Runtime, Settings
from cqrskit.read_store import Change, IndexSpec, ReadStore, Stored
from cqrskit.testing import Difference, DifferenceKind, Verifier, assert_projection_exact, eventually
from cqrskit.verification import ParkedDocument
from tests.integration.transfers import PROJECTIONS, Appender, bank, level, opened
from tests.unit.folding_bank import POISON, STREAMS, Balances, Latest, Row, Streams, Transfer

NAMES = [f"name{number}" for number in range(40)]


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix, block_size_max=50)


def some(count: int, seed: int = 0) -> list[Transfer.Posted | Transfer.Closed]:
    """Transfers, and now and then a name that is closed."""
    choose = random.Random(seed)
    return [
        Transfer.Closed(name=choose.choice(NAMES))
        if choose.random() < 0.1
        else Transfer.Posted(
            source=choose.choice(NAMES),
            target=choose.choice(NAMES),
            amount=choose.randrange(1, 100),
            others=tuple(choose.choices(NAMES, k=2)),
        )
        for _ in range(count)
    ]


async def found(verifier: Verifier) -> list[Difference]:
    return [difference async for difference in verifier.differences()]


async def position_of(runtime: Runtime, projection: Projection) -> int:
    (generation,) = (each for each in await runtime.checkpoints.generations() if each.projection == projection.name)
    return generation.position


async def rewrite(
    runtime: Runtime, projection: type[Projection], change: Callable[[list[Stored]], list[Stored]]
) -> list[Stored]:
    """Replace all documents of an index, whatever their versions."""
    index = projection.index(1)
    stored = [each async for each in runtime.read_store.scan(index)]
    await runtime.read_store.drop(index)
    await runtime.read_store.prepare(index)
    changed = change(stored)
    await runtime.read_store.write(index, [Change(each.id, each.version, each.document) for each in changed])
    await runtime.read_store.refresh(index)
    return stored


async def test_what_is_right_is_found_right_with_deleted_documents_and_several_of_one_event(settings: Settings) -> None:
    async with opened(settings) as runtime:
        appender = Appender(runtime)
        for seed in range(3):
            await appender.append(*some(120, seed))
        await level(runtime)
        for projection in PROJECTIONS:
            verifier = await runtime.verifier(projection)
            assert await found(verifier) == []
            assert verifier.report.head == 360
            assert verifier.report.documents == await runtime.read_store.count(projection.index(1)) > 0


async def test_every_kind_of_difference_is_found_and_named(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await Appender(runtime).append(
            *[Transfer.Posted(source="", target=f"name{number}", amount=number) for number in range(10)]
        )
        await level(runtime)
    async with bank.open(settings) as runtime:

        def spoil(stored: list[Stored]) -> list[Stored]:
            by_id = {each.id: each for each in stored}
            by_id.pop("name1")
            by_id["name3"] = Stored("name3", 2, by_id["name3"].document)
            by_id["name5"] = Stored("name5", 6, Row(7, ("6",)))
            by_id["name7"] = Stored("name7", 9, by_id["name7"].document)
            by_id["other"] = Stored("other", 4, Row(1, ()))
            return list(by_id.values())

        await rewrite(runtime, Latest, spoil)
        verifier = await runtime.verifier(Latest)
        differences = await found(verifier)
        assert {each.id: (each.kind.value, each.expected_version, each.found_version) for each in differences} == {
            "name1": ("missing", 2, 0),
            "name3": ("stale", 4, 2),
            "name5": ("different", 6, 6),
            "name7": ("version", 8, 9),
            "other": ("extra", 0, 4),
        }
        (different,) = (each for each in differences if each.kind is DifferenceKind.DIFFERENT)
        assert [(each.name, each.expected, each.found) for each in different.fields] == [("amount", 5, 7)]
        assert verifier.report.differences == 5
        with pytest.raises(AssertionError, match="5 documents of projection latest are not the fold"):
            await assert_projection_exact(runtime, Latest)


async def test_a_document_that_should_be_deleted_is_extra_or_stale(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await Appender(runtime).append(
            Transfer.Posted(source="ann", target="ben", amount=1), Transfer.Closed(name="ann")
        )
        await level(runtime)
        await assert_projection_exact(runtime, Balances)
    async with bank.open(settings) as runtime:
        await rewrite(runtime, Balances, lambda stored: [*stored, Stored("ann", 1, Row(-1, ("-1",)))])
        (difference,) = await found(await runtime.verifier(Balances))
        assert (difference.id, difference.kind, difference.expected) == ("ann", DifferenceKind.STALE, None)


async def test_parked_keys_are_expected_to_be_as_they_were_before(settings: Settings) -> None:
    async with opened(settings) as runtime:
        appender = Appender(runtime)
        good = Transfer.Posted(source="cid", target="ann", amount=1)
        await appender.append(good, good, Transfer.Posted(source="ann", target="ben", amount=POISON), good)
        await appender.append(good, Transfer.Posted(source="ann", target="dan", amount=-POISON), b"{}", good)
        await level(runtime)
        verifier = await runtime.verifier(Balances)
        assert await found(verifier) == []
        assert sorted(verifier.report.parked, key=lambda each: each.key) == [
            ParkedDocument("ben", 3, 0),
            ParkedDocument("event:6", 6, 0),
            ParkedDocument("event:7", 7, 0),
        ]
        verifier = await runtime.verifier(Streams)
        assert await found(verifier) == []
        assert {each.position: each.version for each in verifier.report.parked} == {3: 0, 7: 2}
    async with bank.open(settings) as runtime:
        await rewrite(runtime, Streams, lambda stored: [each for each in stored if each.version != 2])
        (difference,) = await found(await runtime.verifier(Streams))
        assert (difference.id, difference.kind) == (str(STREAMS[1]), DifferenceKind.MISSING)


async def test_a_key_that_fails_and_is_not_parked_is_told(settings: Settings) -> None:
    async with opened(settings) as runtime:
        good = Transfer.Posted(source="cid", target="ann", amount=1)
        await Appender(runtime).append(good, Transfer.Posted(source="cid", target="ann", amount=POISON), b"{}")
        await level(runtime)
        made, parts = Balances(), runtime
        verifier = Verifier(
            made,
            made.index(1),
            event_store=parts.event_store,
            read_store=parts.read_store,
            registry=bank.registry,
        )
        differences = await found(verifier)
        assert [(each.id, each.kind.value) for each in differences] == [
            ("ann", "unfoldable"),
            ("event:3", "unfoldable"),
        ]
        assert "2: ValueError: poison" in str(differences[0].reason)


async def test_a_document_that_the_store_refused_is_expected_as_it_was_before(settings: Settings) -> None:
    async with opened(settings) as runtime:
        appender = Appender(runtime)
        one = Transfer.Posted(source="cid", target="ann", amount=1)
        await appender.append(one)
        await level(runtime)
        await appender.append(one, Transfer.Posted(source="dan", target="ann", amount=2**70), one)
        await level(runtime)
        verifier = await runtime.verifier(Balances)
        assert await found(verifier) == []
        parked = {each.key: (each.position, each.version) for each in verifier.report.parked}
        assert parked == {"ann": (3, 2), "dan": (3, 0)}
        made = Balances()
        unaware = Verifier(
            made,
            made.index(1),
            event_store=runtime.event_store,
            read_store=runtime.read_store,
            registry=bank.registry,
        )
        told = {each.id: (each.kind.value, each.reason) for each in await found(unaware)}
        assert told.keys() == {"ann", "dan"}
        assert told["ann"][0] == "unfoldable"
        assert "beyond 64 bits" in str(told["ann"][1])


async def test_a_sample_is_the_same_for_a_seed_and_finds_what_is_wrong_with_its_keys(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await Appender(runtime).append(
            *[Transfer.Posted(source="", target=f"name{number}", amount=number) for number in range(300)]
        )
        await level(runtime)
    async with bank.open(settings) as runtime:
        await rewrite(
            runtime, Latest, lambda stored: [Stored(each.id, each.version, Row(-1, ())) for each in stored[10:]]
        )

        async def ids(share: float, seed: int) -> set[str]:
            made = Latest()
            verifier = Verifier(
                made,
                made.index(1),
                event_store=runtime.event_store,
                read_store=runtime.read_store,
                registry=bank.registry,
                share=share,
                seed=seed,
            )
            return {each.id for each in await found(verifier)}

        every, some_ids, others = await ids(1.0, 0), await ids(0.2, 1), await ids(0.2, 2)
        assert len(every) == 300
        assert 20 < len(some_ids) < 120
        assert some_ids != others
        assert some_ids == await ids(0.2, 1)
        assert some_ids < await ids(0.5, 1) < every


class Unhurried:
    """A read store that lets the projection go on between two loads."""

    def __init__(self, runtime: Runtime, projection: Projection) -> None:
        self._runtime = runtime
        self._projection = projection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime.read_store, name)

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        found = await self._runtime.read_store.load(index, document_ids)
        await gone_on(self._runtime, self._projection)
        return found


async def gone_on(runtime: Runtime, projection: Projection) -> int:
    """Wait until the projection has folded some more; the position where it was before."""
    before = await position_of(runtime, projection)

    async def moved() -> bool:
        return await position_of(runtime, projection) > before + 40

    await eventually(moved)
    return before


async def test_it_is_exact_while_writers_and_projectors_go_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrskit.verification.KEYS_A_REQUEST", 5)
    phases: set[str] = set()
    async with opened(settings) as runtime:
        appender = Appender(runtime)
        await appender.append(*some(300))
        await level(runtime)
        going = True

        async def write() -> None:
            seed = 1
            while going:
                await appender.append(*some(20, seed))
                seed += 1
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        try:
            for projection in PROJECTIONS:
                made = projection()
                verifier = Verifier(
                    made,
                    made.index(1),
                    event_store=runtime.event_store,
                    read_store=cast("ReadStore", Unhurried(runtime, made)),
                    registry=bank.registry,
                    until=await gone_on(runtime, made),
                    block_size=40,
                    on_progress=lambda done, total, phase: phases.add(phase),
                )
                assert await found(verifier) == []
        finally:
            going = False
            await writing
    assert phases == {"fold", "compare", "fold on"}
