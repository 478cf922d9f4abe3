"""Pages of statements, and of transfers that are searched for, at a million transfers: over HTTP, on both read stores.

One client asks for one page after another, ours and the peer's in turns: what is measured is how long a page takes, not
how many pages a server gives. (The group `service` has pages under load.)
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import aiohttp
import msgspec

from cqrskit import Scope, Settings
from example_ledger.application import ledger
from example_ledger.read_models import StatementLines
from example_ledger.transfer_documents import Transfers
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, at_most, percentile
from tests.benchmarks.ledger_log import EVENTS_PER_TRANSFER, fill_with_transfers
from tests.benchmarks.peers.raw_pages import ROWS, RawElasticsearch, RawPages, RawPostgres
from tests.benchmarks.programs import running, serving

__all__ = ["measure"]

T = TypeVar("T")

ACCOUNTS, TRANSFERS = 1_000, 1_000_000
ASKED = 400
"""Pages of each kind, and as many of the peer's."""
WARM_UP = 20
DEEP_PAGES, DEEP_ROWS = 100, 1_000
"""So many cursors, so many lines from each other: a hundred thousand lines deep."""
AMOUNT_MAX = 100_000
LIMITS = {"Elasticsearch": at_most(2), "Postgres": None}
"""Of the medians. A page of Postgres costs it a fifth of a millisecond, so the ratio is that of HTTP."""
APP = ("--app", "example_ledger.application:ledger", "--json")
BUILT = (StatementLines, Transfers)


class Wanted(msgspec.Struct, frozen=True):
    """One page: the path that the service is asked, and what the peer is."""

    path: str
    account_id: str = ""
    before: int | None = None
    words: list[str] = []


class Kind(msgspec.Struct, frozen=True):
    """One kind of page: `wanted` gives another one at each call."""

    name: str
    wanted: Callable[[], Wanted]


class Client:
    """One client of the service."""

    def __init__(self, session: aiohttp.ClientSession, address: tuple[str, int]) -> None:
        self._session = session
        self._url = f"http://{address[0]}:{address[1]}"

    async def get(self, path: str) -> bytes:
        """The body of the answer, which must be 200."""
        async with self._session.get(self._url + path) as response:
            response.raise_for_status()
            return await response.read()


async def measure(bench: Bench) -> list[Row]:
    """The same log for both read stores, one after the other."""
    elasticsearch_url = await bench.elasticsearch_url()
    count = bench.amount(TRANSFERS, at_least=2_000)
    rows = []
    for store, url_of_store in (("Elasticsearch", elasticsearch_url), ("Postgres", None)):
        with bench.database() as url:
            settings = Settings(database_url=url, elasticsearch_url=url_of_store, index_prefix=f"b{uuid4().hex[:8]}")
            bench.say(f"filling a log of the ledger with {count:,} transfers")
            events = count * EVENTS_PER_TRANSFER + ACCOUNTS
            accounts = await asyncio.to_thread(fill_with_transfers, url, accounts=ACCOUNTS, events=events)
            bench.say(f"statement lines and transfers are built on {store}")
            await asyncio.gather(*(_build(settings, projection.name) for projection in BUILT))
            bench.say(f"pages from {store}, over HTTP")
            async with _serving(settings) as client, _peer(settings) as peer:
                for kind in await _kinds(bench, client, accounts[0]):
                    rows += await _measured(bench, store, kind, client, peer)
            await _drop(settings)
    return rows


async def _build(settings: Settings, name: str) -> None:
    async with running(
        "cqrskit", "rebuild", name, "--slices", "1", "--verify", "none", *APP, variables=_variables(settings)
    ) as program:
        found = await program.hear()
        assert found["state"] == "live", found


def _variables(settings: Settings) -> dict[str, str]:
    variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_INDEX_PREFIX": settings.index_prefix}
    if settings.elasticsearch_url is not None:
        variables["CQRSKIT_ELASTICSEARCH_URL"] = settings.elasticsearch_url
    return variables


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[Client]:
    async with ledger.open(settings, executor=False) as runtime:
        key = (await runtime.api_keys.make("benchmarks", [Scope.READ])).text
    arguments = ("serve", "--port", "0", "--no-projections")
    async with (
        serving("example_ledger", *arguments, variables=_variables(settings)) as address,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
    ):
        yield Client(session, address)


@asynccontextmanager
async def _peer(settings: Settings) -> AsyncIterator[RawPages]:
    async with ledger.open(settings, executor=False) as runtime:
        indexes = [await runtime.reader.index(projection) for projection in BUILT]
        lines, transfers = (runtime.read_store.name_of(each) for each in indexes)
    if settings.elasticsearch_url is not None:
        async with RawElasticsearch(settings.elasticsearch_url, lines, transfers) as elasticsearch:
            yield elasticsearch
        return
    async with RawPostgres(str(settings.database_url), lines, transfers) as postgres:
        yield postgres


async def _kinds(bench: Bench, client: Client, account_id: UUID) -> list[Kind]:
    """Statements of the account with most lines; searches that fit about ten transfers, and that fit all."""
    first = Wanted(f"/accounts/{account_id}/statement?limit={ROWS}", str(account_id))
    common = Wanted(f"/transfers?limit={ROWS}&q=invoice", words=["invoice"])
    pages, rows = bench.amount(DEEP_PAGES, at_least=5), bench.amount(DEEP_ROWS, at_least=ROWS)
    depth, deep = await _deep(client, account_id, pages, rows)
    randomness = random.Random(1)

    def rare() -> Wanted:
        amount = str(randomness.randint(1, AMOUNT_MAX))
        return Wanted(f"/transfers?limit={ROWS}&q=invoice+{amount}", words=["invoice", amount])

    return [
        Kind("first page of a hot account's statement", lambda: first),
        Kind(f"page of it up to {depth:,} lines deep", lambda: randomness.choice(deep)),
        Kind("search for two words, which few transfers have both", rare),
        Kind("search for a word that all have", lambda: common),
    ]


async def _deep(client: Client, account_id: UUID, pages: int, rows: int) -> tuple[int, list[Wanted]]:
    """How many lines deep the account's statement was walked through, and pages from all over it."""
    path = f"/accounts/{account_id}/statement?limit="
    page = await _page(client, f"{path}{rows}")
    depth = 0
    found: list[Wanted] = []
    while len(found) < pages and page["next"] is not None:
        depth += len(page["items"])
        cursor, last = quote(page["next"]), page["items"][-1]["position"]
        found.append(Wanted(f"{path}{ROWS}&cursor={cursor}", str(account_id), last))
        page = await _page(client, f"{path}{rows}&cursor={cursor}")
    return depth, found


async def _page(client: Client, path: str) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(await client.get(path))
    return page


async def _measured(bench: Bench, store: str, kind: Kind, client: Client, peer: RawPages) -> list[Row]:
    """Milliseconds of each page and of the peer's, in turns: each of them is the first to ask every other time."""
    name, limit = f"{kind.name}, {store}", LIMITS[store]
    ours, others = [], []
    for number in range(WARM_UP + bench.amount(ASKED, at_least=20)):
        wanted = kind.wanted()
        if number % 2 == 0:
            page, mine = await _timed(client.get(wanted.path))
            answer, other = await _timed(_asked(peer, wanted))
        else:
            answer, other = await _timed(_asked(peer, wanted))
            page, mine = await _timed(client.get(wanted.path))
        if number < WARM_UP:
            _check_same(kind, page, peer.positions(answer))
            continue
        ours.append(mine)
        others.append(other)
    return [
        Row(f"{name}, p50", "ms", percentile(ours, 0.5), peer.name, percentile(others, 0.5), limit),
        Row(f"{name}, p99", "ms", percentile(ours, 0.99), peer.name, percentile(others, 0.99)),
    ]


async def _timed(asking: Awaitable[T]) -> tuple[T, float]:
    """The answer, and after how many milliseconds it came."""
    begun = time.perf_counter()
    answer = await asking
    return answer, 1_000 * (time.perf_counter() - begun)


async def _asked(peer: RawPages, wanted: Wanted) -> Any:
    if wanted.words:
        return await peer.found(wanted.words)
    return await peer.statement(wanted.account_id, wanted.before)


def _check_same(kind: Kind, page: bytes, positions: list[int]) -> None:
    """Whether both gave the same rows."""
    items = json.loads(page)["items"]
    ours = [item["position"] for item in items]
    assert ours == positions, f"{kind.name}: the service gave other rows than the peer"


async def _drop(settings: Settings) -> None:
    async with ledger.open(settings, executor=False) as runtime:
        for projection in BUILT:
            await runtime.read_store.drop(await runtime.reader.index(projection))
