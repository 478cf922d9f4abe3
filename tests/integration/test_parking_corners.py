"""Parked keys where it is easy to go wrong: writes under way, partitions by stream, events of nobody, slices."""

from uuid import uuid4

import msgspec
import pytest

from cqrskit import Application, DocumentParked, Projection, Query, RecordedEvent, Runtime, Settings, on
from cqrskit.checkpoints import GenerationState
from cqrskit.fingerprint import fingerprint_of
from cqrskit.folding import event_key
from cqrskit.testing import assert_projection_exact, eventually
from cqrskit.testing.leases import leased
from tests.integration.counting import Counter, Counts, Grow, Label, counting, grow, label
from tests.integration.test_parking import grow as grow_by
from tests.integration.test_parking import level, retried


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(
        database_url=postgres_dsn,
        elasticsearch_url=url,
        index_prefix=index_prefix,
        block_size_max=1,
        elasticsearch_bulk_max_documents=1,
        lease_seconds=1.0,
        wait_timeout_seconds=30.0,
    )


class Text(msgspec.Struct, frozen=True):
    """A text."""

    text: str


class Lasts(Projection):
    """The last label of each counter."""

    document = Text

    @on(Counter.Labelled)
    def labelled(self, last: Text | None, event: Counter.Labelled, at: RecordedEvent) -> Text:
        """Take it."""
        return Text(event.text)


class Lines(Projection):
    """One document for each label, in three partitions; a broken one cannot stand some."""

    document = Text
    partitions = 3
    broken = True

    @on(Counter.Labelled, key=lambda event, at: f"{at.stream_id}:{at.position}", creates=True)
    def labelled(self, line: None, event: Counter.Labelled, at: RecordedEvent) -> Text:
        """Take it."""
        if self.broken and event.text == "poison":
            raise ValueError("poison")
        return Text(event.text)


class MendedLines(Lines):
    """The same after it was mended."""

    name = "lines"
    broken = False


class Keyless(Projection):
    """Labels by their second letter, which some do not have."""

    document = Text

    @on(Counter.Labelled, key=lambda event, at: event.text[1])
    def labelled(self, last: Text | None, event: Counter.Labelled, at: RecordedEvent) -> Text:
        """Take it."""
        return Text(event.text)


def application(projection: type[Projection]) -> Application:
    return Application("corners", aggregates=[Counter], handlers=[grow, label], projections=[projection])


async def labelled(runtime: Runtime, *texts: str) -> str:
    """Label one counter again and again; its id."""
    counter_id = uuid4()
    for result in await runtime.executor.execute_many([Label(counter_id=counter_id, text=text) for text in texts]):
        assert not isinstance(result, Exception), result
    return str(counter_id)


async def test_what_was_folded_while_a_write_is_under_way_is_left_out_when_that_write_is_refused(
    settings: Settings,
) -> None:
    async with application(Lasts).open(settings) as runtime:
        key = await labelled(runtime, "good", "bad \x00", "good again", "and again")
    async with application(Lasts).open(settings, projections=["lasts"]) as runtime:
        await level(runtime, Lasts)
        (parked,) = await runtime.checkpoints.parked("lasts", 1)
        assert (parked.key, parked.events_waiting) == (key, 2)
        answer = await runtime.reader.get(Lasts, key)
        assert answer.value is not None
        assert (answer.value.document, answer.stale) == (Text("good"), True)


async def test_parked_keys_of_a_projection_that_is_divided_by_streams_are_retried_where_they_were_parked(
    settings: Settings,
) -> None:
    async with application(Lines).open(settings, projections=["lines"]) as runtime:
        for _ in range(6):
            await labelled(runtime, "one", "poison", "three")
        await level(runtime, Lines)
        parked = await runtime.checkpoints.parked("lines", 1)
        assert len(parked) == 6
    for projections in ([], ["lines"]):  # by the command alone, then by a worker
        async with application(MendedLines).open(settings, projections=projections) as runtime:
            keys = [key.key for key in await runtime.checkpoints.parked("lines", 1)][:3]
            found = await retried(runtime, MendedLines, *keys)
            assert [each.result for each in found] == ["level"] * 3
            for key in keys:
                answer = await runtime.reader.get(MendedLines, key)
                assert answer.value is not None
                assert answer.value.document == Text("poison")
    async with application(MendedLines).open(settings) as runtime:
        await assert_projection_exact(runtime, MendedLines)


async def test_an_event_of_which_nobody_can_tell_whose_it_is_makes_every_document_stale(settings: Settings) -> None:
    async with application(Keyless).open(settings, projections=["keyless"]) as runtime:
        await labelled(runtime, "ab")
        await level(runtime, Keyless)
        before = await runtime.event_store.head()
        await labelled(runtime, "x")
        await level(runtime, Keyless)
        (parked,) = await runtime.checkpoints.parked("keyless", 1)
        assert parked.key == event_key(parked.position)
        assert (await runtime.reader.get(Keyless, "b", min_position=before)).value is not None
        with pytest.raises(DocumentParked):
            await runtime.reader.get(Keyless, "b", min_position=parked.position)
        answer = await runtime.reader.get(Keyless, "b")
        assert answer.stale
        assert (await runtime.reader.search(Keyless, Query())).stale


async def test_a_key_that_is_retried_while_its_generation_is_built_goes_on_from_what_is_stored(
    settings: Settings,
) -> None:
    settings = msgspec.structs.replace(settings, poll_interval_seconds=0.001)
    async with counting.open(settings) as runtime:
        counter_id = uuid4()
        poisoned_at = await grow_by(runtime, counter_id, 1, 2, 666)
        await grow_by(runtime, counter_id, 3)
        code = fingerprint_of(Counts)
        number = await runtime.checkpoints.create_generation("counts", GenerationState.BUILDING, code, 1)
        identity = await runtime.read_store.prepare(Counts.index(number))
        await runtime.checkpoints.set_index("counts", number, identity)
        lease = await runtime.checkpoints.claim("by hand", "counts", number, 0, seconds=600)
        assert lease is not None
        slice_of_it = runtime.projector(Counts(), lease, bulk=True)
        await slice_of_it.open()
        while not await slice_of_it.step():
            continue
        (parked,) = await runtime.checkpoints.parked("counts", number)
        assert parked.position == poisoned_at
        assert await runtime.checkpoints.skip("counts", number, parked.key, parked.position)
        await runtime.checkpoints.request_retry("counts", number, [parked.key])
        await slice_of_it.retry_parked()
        await runtime.executor.execute(Grow(counter_id=counter_id, by=10))
        while not await slice_of_it.step():
            continue
        await slice_of_it.stop()
        stored = await runtime.read_store.get(Counts.index(number), str(counter_id))
        assert stored is not None
        assert stored.document.value == 1 + 2 + 3 + 10


async def test_a_projection_that_stops_at_too_many_refused_documents_leaves_none_of_them_behind(
    settings: Settings,
) -> None:
    settings = msgspec.structs.replace(
        settings, parked_keys_max=1, block_size_max=100, elasticsearch_bulk_max_documents=100
    )
    async with application(Lasts).open(settings) as runtime:
        for _ in range(5):
            await labelled(runtime, "bad \x00")
    async with application(Lasts).open(settings, projections=["lasts"]) as runtime:
        await eventually(lambda: runtime.stopped_projections == ["lasts"], timeout_seconds=30)
        (status,) = await runtime.status(count_documents=False)
        assert status.position == 0, "the checkpoint has passed documents that are neither written nor parked"


async def test_a_key_that_was_refused_on_an_idle_log_takes_its_next_events_after_a_retry(settings: Settings) -> None:
    """In one and the same projector: nothing of the refusal may be left in its memory."""
    async with application(Lasts).open(settings) as runtime:
        counter_id = uuid4()
        for text in ("good", "bad \x00"):
            await runtime.executor.execute(Label(counter_id=counter_id, text=text))
        projector = runtime.projector(Lasts(), await leased(runtime, Lasts))
        await projector.open()
        while not await projector.step():
            continue
        (parked,) = await runtime.checkpoints.parked("lasts", 1)
        assert await runtime.checkpoints.skip("lasts", 1, parked.key, parked.position)
        await runtime.checkpoints.request_retry("lasts", 1, [parked.key])
        await projector.retry_parked()
        assert await runtime.checkpoints.parked("lasts", 1) == []
        await runtime.executor.execute(Label(counter_id=counter_id, text="next"))
        while not await projector.step():
            continue
        await projector.stop()
        stored = await runtime.read_store.get(Lasts.index(1), str(counter_id))
        assert stored is not None
        assert stored.document == Text("next")
