"""Explaining a document: its events, what they make of it, and what the store has."""

from datetime import timedelta

import pytest

from cqrskit import Projection, Runtime, Settings
from cqrskit.explanation import Explainer
from cqrskit.read_store import Change
from tests.integration.transfers import Appender, bank, level, opened
from tests.unit.folding_bank import POISON, STREAMS, Balances, Latest, Row, Streams, Transfer


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix)


def explainer(runtime: Runtime, projection: Projection, **options: object) -> Explainer:
    return Explainer(
        projection,
        projection.index(1),
        event_store=runtime.event_store,
        read_store=runtime.read_store,
        registry=bank.registry,
        **options,  # type: ignore[arg-type]
    )


async def test_the_events_behind_a_document_are_told_with_what_they_make_of_it(settings: Settings) -> None:
    seen: list[tuple[int, int]] = []
    async with opened(settings) as runtime:
        await Appender(runtime).append(
            Transfer.Posted(source="ann", target="ben", amount=5),
            Transfer.Posted(source="cid", target="dan", amount=1),
            Transfer.Posted(source="ann", target="ann", amount=2),
            Transfer.Closed(name="ann"),
        )
        await level(runtime)
        explaining = explainer(runtime, Balances(), block_size=3, on_progress=lambda *both: seen.append(both))
        told = await explaining.explain("ann")
        assert [(each.position, each.type, each.document) for each in told.events] == [
            (1, "Transfer.Posted", Row(-5, ("-1",))),
            (3, "Transfer.Posted", Row(-5, ("-1", "-3", "+3"))),
            (4, "Transfer.Closed", None),
        ]
        assert told.events[2].data == {"name": "ann"}
        assert (told.version, told.document, told.equal, told.until) == (4, None, True, 4)
        assert seen == [(3, 4), (4, 4)]
        (ben,) = (await explaining.explain("ben")).events
        assert (ben.stream_id, ben.stream_version) == (STREAMS[0], 1)
        nobody = await explaining.explain("nobody")
        assert (nobody.events, nobody.document, nobody.stored, nobody.equal) == ([], None, None, True)


async def test_a_document_is_explained_as_it_was_at_a_position_or_a_moment(settings: Settings) -> None:
    async with opened(settings) as runtime:
        appender = Appender(runtime, STREAMS[:1])
        await appender.append(Transfer.Posted(source="bob", target="ann", amount=5))
        await appender.append(Transfer.Posted(source="bob", target="ann", amount=6))
        await level(runtime)
        key = str(STREAMS[0])
        for projection, document_id, first in (
            (Streams(), key, Row(5, ("1",))),
            (Balances(), "ann", Row(5, ("+1",))),
        ):
            explaining = explainer(runtime, projection)
            now = await explaining.explain(document_id)
            assert (now.equal, now.differences, len(now.events)) == (True, (), 2)
            moment = now.events[0].recorded_at
            for as_of in (1, moment):
                then = await explaining.explain(document_id, as_of=as_of)
                assert (then.document, then.version, then.equal) == (first, 1, None)
            before = await explaining.explain(document_id, as_of=moment - timedelta(microseconds=1))
            assert (before.document, before.events) == (None, [])


async def test_the_event_that_fails_and_those_that_wait_behind_it_are_told(settings: Settings) -> None:
    async with opened(settings) as runtime:
        one = Transfer.Posted(source="", target="ann", amount=1)
        poison = Transfer.Posted(source="", target="ann", amount=POISON)
        await Appender(runtime, STREAMS[:1]).append(one, poison, one)
        await Appender(runtime, STREAMS[1:2]).append(one, b"{}", one)
        await level(runtime)
        told = await explainer(runtime, Streams()).explain(str(STREAMS[0]))
        assert [(each.failure, each.waits) for each in told.events] == [
            (None, False),
            ("ValueError: poison", False),
            (None, True),
        ]
        assert (told.document, told.equal) == (Row(1, ("1",)), True)
        undecodable = await explainer(runtime, Streams()).explain(str(STREAMS[1]))
        assert "missing required field" in str(undecodable.events[1].failure)
        skipping = explainer(runtime, Streams(), skipped=[(str(STREAMS[0]), 2)])
        assert (await skipping.explain(str(STREAMS[0]))).document == Row(2, ("1", "3"))


async def test_what_the_store_has_otherwise_is_told_field_by_field(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await Appender(runtime).append(Transfer.Posted(source="", target="ann", amount=1))
        await level(runtime)
    async with bank.open(settings) as runtime:
        await runtime.read_store.write(Latest.index(1), [Change("ann", 2, Row(3, ("1",)))])
        told = await explainer(runtime, Latest(), events_max=1).explain("ann")
        assert told.equal is False
        assert [(each.name, each.expected, each.found) for each in told.differences] == [("amount", 1, 3)]
