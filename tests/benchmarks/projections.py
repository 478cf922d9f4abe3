"""The read path: the ledger's log folded into documents, beside writes of the very same documents without folding."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from uuid import uuid4

import msgspec

from cqrskit import Projection, Runtime, Settings
from cqrskit.elasticsearch.mapping import ID_FIELD
from cqrskit.postgres.read_store import SCHEMA
from cqrskit.tasks import end_tasks
from cqrskit.testing.leases import leased
from example_ledger.application import ledger
from example_ledger.read_models import Accounts, StatementLines
from tests.benchmarks.bench import Bench, garbage_collected_as_in_services
from tests.benchmarks.figures import Row, Side, at_least, interleaved, rate
from tests.benchmarks.ledger_log import fill_with_one_account, fill_with_transfers
from tests.benchmarks.peers.bulk import (
    Written,
    bulk_bodies,
    copy_bodies,
    copy_into,
    send_bodies,
    send_dicts,
    written,
)

__all__ = ["measure"]

ACCOUNTS = 1_000
EVENTS, HOT_EVENTS = 301_000, 300_000
DICTS = 40_000
CHUNKS = (500, 5_000)
GOAL_HOT = 60_000.0
LOOK_INTERVAL_SECONDS = 0.002
DEFAULTS = Settings()
PART = DEFAULTS.elasticsearch_bulk_max_documents
Work = Callable[[], Awaitable[object]]


class Log(msgspec.Struct):
    """A log in a database of its own, and what a round does with it on a store."""

    url: str
    elasticsearch_url: str | None = None

    def settings(self) -> Settings:
        """Those of a round: with a prefix that nobody has used, so that all documents are written anew."""
        prefix = f"b{uuid4().hex[:8]}"
        return Settings(database_url=self.url, elasticsearch_url=self.elasticsearch_url, index_prefix=prefix)

    async def project(self, projection: type[Projection], events: int) -> float:
        """How many of so many events a projector folds in each second, until all can be found by a search."""
        async with ledger.open(self.settings(), executor=False) as runtime:
            found = await _followed(runtime, projection, events)
            await runtime.read_store.drop(projection.index(await _generation(runtime, projection)))
        return found

    async def documents(self) -> list[Written]:
        """The statement lines as a projector writes them."""
        assert self.elasticsearch_url is not None
        settings = self.settings()
        async with ledger.open(settings, executor=False) as runtime:
            await _followed(runtime, StatementLines, 1)
            number = await _generation(runtime, StatementLines)
            found = await written(self.elasticsearch_url, f"{settings.index_prefix}-statement_lines-{number}")
            await runtime.read_store.drop(StatementLines.index(number))
        return found

    async def peer(self, documents: int, work: Callable[[str], Awaitable[object]]) -> float:
        """How many documents a peer writes in each second; it is told the name of an index or table like ours."""
        settings = self.settings()
        index = StatementLines.index(1)
        async with ledger.open(settings, executor=False) as runtime:
            await runtime.read_store.prepare(index)
            name = f"{settings.index_prefix}-statement_lines-1"
            if self.elasticsearch_url is None:
                name = f"{SCHEMA}.{settings.index_prefix}_statement_lines_1"
            found = await rate(documents, lambda: work(name))
            count = await runtime.read_store.count(index)
            assert count == documents, f"{count} documents were written, not {documents}"
            await runtime.read_store.drop(index)
        return found


async def _followed(runtime: Runtime, projection: type[Projection], events: int) -> float:
    lease = await leased(runtime, projection)
    projector = runtime.projector(projection(), lease)
    await projector.open()
    head = await runtime.event_store.head()

    async def follow() -> None:
        running = asyncio.create_task(projector.run())
        while projector.visible_position < head:
            await asyncio.sleep(LOOK_INTERVAL_SECONDS)
            assert not running.done(), running
        await end_tasks([running])

    found = await rate(events, follow)
    await runtime.checkpoints.release([lease])
    return found


async def _generation(runtime: Runtime, projection: type[Projection]) -> int:
    return (await runtime.reader.index(projection)).generation


async def measure(bench: Bench) -> list[Row]:
    """Statement lines and balances in turns with what they are measured beside, then one hot account alone."""
    elasticsearch_url = await bench.elasticsearch_url()
    with ExitStack() as stack:
        stack.enter_context(garbage_collected_as_in_services())
        log = Log(stack.enter_context(bench.database()), elasticsearch_url)
        bench.say("filling a log of transfers among 1,000 accounts, zipf")
        events = bench.amount(EVENTS, at_least=2_000)
        fill_with_transfers(log.url, accounts=min(ACCOUNTS, events // 4), events=events)
        documents = await log.documents()
        return [
            *await _elasticsearch(bench, log, documents),
            *await _hot_account(bench, elasticsearch_url),
            *await _postgres(bench, Log(log.url), documents),
        ]


async def _elasticsearch(bench: Bench, log: Log, documents: list[Written]) -> list[Row]:
    bench.say("statement lines and balances into Elasticsearch, beside raw bulk and the client's helper")
    url = log.elasticsearch_url
    assert url is not None
    bodies, dicts = bulk_bodies(documents, PART), documents[: bench.amount(DICTS, at_least=500)]
    count, accounts = len(documents), min(ACCOUNTS, bench.amount(EVENTS, at_least=2_000) // 4)
    sides = [
        Side("lines", lambda: log.project(StatementLines, count)),
        Side(
            "raw",
            lambda: log.peer(
                count, lambda index: send_bodies(url, index, bodies, DEFAULTS.elasticsearch_bulk_max_requests)
            ),
        ),
        Side("balances", lambda: log.project(Accounts, count + accounts)),
        *(
            Side(f"{chunk:,}", lambda chunk=chunk: log.peer(len(dicts), lambda at: send_dicts(url, at, dicts, chunk)))  # type: ignore[misc]
            for chunk in CHUNKS
        ),
    ]
    await interleaved(bench.rounds, *sides)
    lines, raw, balances, *helpers = sides
    best = max(helpers, key=lambda side: side.value)
    name = "statement lines, one new document for each event"
    peer = f"raw bulk of the same bytes, {PART:,} in a part, {DEFAULTS.elasticsearch_bulk_max_requests} in flight"
    return [
        Row(name, "/s", lines.value, peer, raw.value, at_least(0.85), f"{lines.spread}; raw {raw.spread}"),
        Row(name, "/s", lines.value, f"helpers.async_bulk, chunks of {best.name}", best.value, at_least(2.5)),
        Row(
            f"balances of {accounts:,} accounts, zipf, events folded",
            "/s",
            balances.value,
            "statement lines",
            lines.value,
            at_least(3),
            balances.spread,
        ),
    ]


async def _hot_account(bench: Bench, elasticsearch_url: str) -> list[Row]:
    events = bench.amount(HOT_EVENTS, at_least=1_000)
    bench.say(f"one account with {events:,} events")
    with bench.database() as url:
        fill_with_one_account(url, events=events)
        log = Log(url, elasticsearch_url)
        side = Side("hot", lambda: log.project(Accounts, events))
        await interleaved(bench.rounds, side)
    name = "balance of one hot account, events folded"
    return [Row(name, "/s", side.value, limit=at_least(GOAL_HOT), note=side.spread)]


async def _postgres(bench: Bench, log: Log, documents: list[Written]) -> list[Row]:
    bench.say("statement lines into Postgres, beside COPY")
    count = len(documents)
    bodies = copy_bodies(documents, PART, own_fields=[ID_FIELD])
    lines = Side("lines", lambda: log.project(StatementLines, count))
    raw = Side("raw", lambda: log.peer(count, lambda table: copy_into(log.url, table, bodies)))
    await interleaved(min(bench.rounds, 3), lines, raw)
    peer = f"raw COPY of the same documents, {PART:,} in a transaction"
    return [Row("statement lines on Postgres", "/s", lines.value, peer, raw.value, note=lines.spread)]
