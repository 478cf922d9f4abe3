"""The benchmarks of the ledger do what they say: what is asked, what is counted, and from when a latency counts."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit import Settings
from cqrskit.testing import PostgresServer
from example_ledger.application import ledger
from example_ledger.checking import check_books
from example_ledger.holds import CaptureHold, PlaceHold, VoidHold
from tests.benchmarks.ledger_commands import atomic_batches, entries, post, transfers_and_holds
from tests.benchmarks.load import Connection
from tests.benchmarks.mixed_load import SHARES, Asked, MixedLoad, MixedWork, Requests
from tests.benchmarks.samples import open_accounts
from tests.benchmarks.service import Looks, errors_percent
from tests.integration.test_benchmarks import benchmarks

ANSWER = b"HTTP/1.1 %d x\r\nconsistency-position: 7\r\ncontent-length: 2\r\n\r\n{}"
Answer = Callable[[int], bytes | None]


# --- commands


async def test_holds_entries_and_atomic_batches_are_beside_plain_transfers(postgres_server: PostgresServer) -> None:
    code, found = await benchmarks(postgres_server, "--only", "ledger")

    assert code == 0
    rows = found["groups"]["ledger"]
    assert [row["limit"] for row in rows] == ["≥ 0.7"] * 3
    assert len({row["other"] for row in rows}) == 1
    assert all(row["value"] > 0 for row in rows)


async def test_three_movements_in_ten_are_holds_half_captured_a_quarter_voided_and_the_books_are_right(
    postgres_dsn: str,
) -> None:
    async with ledger.open(Settings(database_url=postgres_dsn)) as runtime:
        accounts = await open_accounts(runtime.executor, 20)
        commands = list(transfers_and_holds(accounts, 3_000, seed=1))
        refused = await post(runtime, commands, 64)
        await post(runtime, list(islice(entries(accounts, seed=1), 50)), 64)
        await post(runtime, list(islice(atomic_batches(accounts, seed=1), 2)), 2)
        report = await check_books(runtime, documents=False)

    kinds = Counter(type(command) for command in commands)
    assert not refused
    assert kinds[PlaceHold] / 3_000 == pytest.approx(0.3, abs=0.03)
    assert kinds[CaptureHold] / kinds[PlaceHold] == pytest.approx(0.5, abs=0.06)
    assert kinds[VoidHold] / kinds[PlaceHold] == pytest.approx(0.25, abs=0.06)
    assert report.violations == []
    assert report.transfers == 3_000 + 50 + 2 * 100


async def test_what_is_refused_is_counted(postgres_dsn: str) -> None:
    async with ledger.open(Settings(database_url=postgres_dsn)) as runtime:
        refused = await post(runtime, list(islice(entries([uuid4() for _ in range(5)], seed=1), 10)), 2)

    assert refused == {"account_not_found": 10}


# --- pages and the service


async def test_pages_of_both_stores_are_beside_their_peers(
    postgres_server: PostgresServer, elasticsearch_url: str
) -> None:
    code, found = await benchmarks(postgres_server, "--only", "pages", ELASTICSEARCH_URL=elasticsearch_url)

    assert code == 0
    rows = found["groups"]["pages"]
    assert [row["limit"] for row in rows] == ["≤ 2", None] * 4 + [None, None] * 4
    assert all(row["value"] > 0 and row["other"] > 0 for row in rows)


async def test_the_whole_service_shows_errors_latencies_lag_and_memory_beside_their_limits(
    postgres_server: PostgresServer, elasticsearch_url: str
) -> None:
    code, found = await benchmarks(postgres_server, "--only", "service", ELASTICSEARCH_URL=elasticsearch_url)

    assert code == 0
    rows = {row["name"].removeprefix("whole service, "): row for row in found["groups"]["service"]}
    assert {name: row["limit"] for name, row in rows.items() if row["limit"]} == {
        "errors": "≤ 0.1",
        "p99": "≤ 500",
        "lag of projections, most": "≤ 2",
        "lag of projections, last third": "≤ 2",  # that of memory counts in a full run only
    }
    assert {f"{kind}, p99" for kind in SHARES} <= rows.keys()
    assert rows["memory at the end"]["value"] > 0


# --- the load of the service


def work(address: tuple[str, int] = ("localhost", 1), **other: Any) -> MixedWork:
    accounts = [UUID(int=number) for number in range(10)]
    given = {"connections": 1, "seconds": 0.4, "rate": 100.0, **other}
    return MixedWork(*address, key="k", accounts=accounts, seed=1, **given)


def test_requests_are_mixed_as_the_shares_say_and_no_hold_is_resolved_that_is_not_known_to_be_placed() -> None:
    requests = Requests(work())
    placed: set[str] = set()
    kinds: Counter[str] = Counter()
    for _ in range(5_000):
        asked = requests.next()
        kinds[asked.kind] += 1
        if asked.kind in ("capture", "void"):
            placed.remove(asked.request.split(b"/")[2].decode())  # KeyError for another, or for one a second time
        if asked.kind == "hold" and kinds["hold"] % 2 == 0:
            requests.answered(asked, ANSWER % 201)
            placed.add(str(asked.about))

    assert sum(SHARES.values()) == pytest.approx(1)
    expected = {**SHARES, "hold": SHARES["hold"] + SHARES["capture"] + SHARES["void"]}
    for kind in expected.keys() - {"capture", "void"}:
        found = kinds[kind] + (kinds["capture"] + kinds["void"] if kind == "hold" else 0)
        assert found / 5_000 == pytest.approx(expected[kind], abs=0.02)


def test_an_account_is_asked_for_as_it_is_after_the_last_transfer_that_was_answered() -> None:
    requests = Requests(work())
    account_id = uuid4()
    requests.answered(Asked("transfer", b"", account_id), ANSWER % 201)

    asked = next(each for each in (requests.next() for _ in range(1_000)) if each.kind == "account")

    assert asked.request.startswith(f"GET /accounts/{account_id} HTTP/1.1\r\n".encode())
    assert b"\r\nConsistency-Position: 7\r\n" in asked.request


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[tuple[str, int]]:
    """Answers request number n with `answer(n)`; hangs up where that is None."""
    numbers = iter(range(10**6))

    class Serving(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            said = answer(next(numbers))
            self.transport.close() if said is None else self.transport.write(said)

    listening = await asyncio.get_running_loop().create_server(Serving, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()[:2]
        yield host, port


async def test_errors_and_lost_connections_are_counted_and_the_load_goes_on() -> None:
    def answer(number: int) -> bytes | None:
        return None if number % 5 == 1 else ANSWER % (503 if number % 5 == 2 else 201)

    async with server(answer) as address:
        found = await MixedLoad(work(address, connections=4)).run()

    lost, refused, taken = (found["statuses"][status] for status in ("lost", "503", "201"))
    assert (found["requests"], found["unanswered"]) == (lost + refused + taken, 0)
    assert lost > 1
    assert errors_percent(found) == pytest.approx(100 * (lost + refused) / found["requests"])


async def test_a_latency_counts_from_when_the_request_was_due_not_from_when_it_could_be_sent() -> None:
    stalled: list[Connection] = []

    class Stalling(MixedLoad):
        """The answer to the first request is held for as long as others arrive."""

        def answered(self, connection: Connection, answer: bytes, due: float) -> None:
            if not stalled:
                stalled.append(connection)
                asyncio.get_running_loop().call_later(0.4, super().answered, connection, answer, due)
                return
            super().answered(connection, answer, due)

    async with server(lambda number: ANSWER % 201) as address:
        found = await Stalling(work(address, connections=1, seconds=0.3)).run()

    assert found["requests"] > 10
    assert found["milliseconds"]["all"]["p50"] > 90


async def test_without_a_rate_each_answer_brings_the_next_request() -> None:
    async with server(lambda number: ANSWER % 201) as address:
        found = await MixedLoad(work(address, rate=None, connections=2, seconds=0.2)).run()

    assert found["requests"] == found["statuses"]["201"] > 2
    assert msgspec.json.decode(msgspec.json.encode(found))["unanswered"] == 0


def test_lag_is_compared_between_the_thirds_of_the_time_and_memory_with_that_after_the_first_fifth() -> None:
    looks = Looks([0.1, 0.4, 0.2, 9.0, 0.3, 0.2, 0.1, 0.5, 0.6], [0] * 9, [100, 120, 121, 122, 123, 124, 125, 126, 127])

    assert (looks.first_lag, looks.last_lag) == (0.4, 0.6)
    assert looks.settled_megabytes == 120


def test_what_has_no_answer_is_an_error() -> None:
    assert errors_percent({"requests": 200, "statuses": {"200": 90, "201": 100, "422": 4, "lost": 5}}) == 5
    assert errors_percent({"requests": 2, "statuses": {"200": 2}}) == 0
