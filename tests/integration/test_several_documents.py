"""What folds can do, on both stores: several documents of one event, keys of their own, deletion, and coming back."""

from typing import Any

import psycopg
import pytest

from cqrskit import Projection, Runtime, Settings
from cqrskit.testing import assert_projection_exact
from tests.integration.transfers import PROJECTIONS, Appender, level, opened
from tests.unit.folding_bank import POISON, STREAMS, Balances, Row, Streams, Transfer


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix, block_size_max=2)


async def loaded(runtime: Runtime, projection: Projection, *keys: str) -> dict[str, tuple[int, Any]]:
    """Versions and documents, of deleted ones too."""
    stored = await runtime.read_store.load(projection.index(1), keys)
    return {key: (each.version, each.document) for key, each in stored.items()}


def posted(source: str, target: str, amount: int, *others: str) -> Transfer.Posted:
    return Transfer.Posted(source=source, target=target, amount=amount, others=others)


async def test_documents_are_made_deleted_and_made_anew_and_redelivery_changes_none(settings: Settings) -> None:
    events = [
        posted("ann", "ben", 3, "cid"),
        Transfer.Closed(name="ann"),
        posted("ann", "ann", 5),
        posted("dan", "ben", 1, "ann", "cid"),
        posted("eve", "", 1),
        Transfer.Closed(name="eve"),
        Transfer.Closed(name="ben"),
        Transfer.Closed(name="ben"),
    ]
    expected = {
        "ann": (4, Row(0, ("-3", "+3", "ann?4"))),
        "ben": (7, None),
        "cid": (4, Row(0, ("cid?1", "cid?4"))),
        "dan": (4, Row(-1, ("-4",))),
        "eve": (6, None),
    }
    async with opened(settings) as runtime:
        await Appender(runtime).append(*events)
        await level(runtime)
        assert await loaded(runtime, Balances(), *expected) == expected
        assert (await runtime.read_store.get(Balances.index(1), "ben")) is None
        for projection in PROJECTIONS:
            await assert_projection_exact(runtime, projection)
        streams = await loaded(runtime, Streams(), *map(str, STREAMS))
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("UPDATE partitions SET position = 0, visible_position = 0")
    async with opened(settings) as runtime:
        await level(runtime)
        assert await loaded(runtime, Balances(), *expected) == expected
        assert await loaded(runtime, Streams(), *map(str, STREAMS)) == streams
        for projection in PROJECTIONS:
            await assert_projection_exact(runtime, projection)


async def test_events_that_cannot_be_read_or_keyed_stop_nothing_else(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await Appender(runtime).append(
            posted("ann", "ben", 1),
            b'{"source": 7}',
            posted("ann", "x" * 600, 1),
            posted("ann", "ben", -POISON),
            posted("ann", "ann", POISON),
            posted("cid", "ben", 2),
            posted("cid", "ben", 2),
        )
        await level(runtime)
        assert runtime.stopped_projections == []
        parked = {each.key: each.position for each in await runtime.checkpoints.parked("balances", 1)}
        assert parked == {"event:2": 2, "event:3": 3, "event:4": 4, "ann": 5}
        parked = {each.key: each.position for each in await runtime.checkpoints.parked("streams", 1)}
        assert parked == {str(STREAMS[1]): 2, str(STREAMS[4]): 5}
        assert await loaded(runtime, Balances(), "ann", "ben") == {
            "ann": (1, Row(-1, ("-1",))),
            "ben": (7, Row(5, ("+1", "+6", "+7"))),
        }
        for projection in PROJECTIONS:
            await assert_projection_exact(runtime, projection)
