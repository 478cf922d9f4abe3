"""Pages of 100,000 transfers and of a statement while others write: no row is skipped, none is given twice."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import eventually
from tests.acceptance.api import LedgerClient, transfer
from tests.benchmarks.ledger_log import EVENTS_PER_TRANSFER, fill_with_transfers

TRANSFERS, ACCOUNTS = 100_000, 20
PAGE, WRITES_BESIDE_A_PAGE = 1_000, 6
FOLDED_IN_SECONDS = 300


@pytest.fixture
def accounts(settings: Settings) -> list[str]:
    """The accounts of a log of so many transfers; the first takes part in most of them."""
    events = ACCOUNTS + TRANSFERS * EVENTS_PER_TRANSFER
    return [str(each) for each in fill_with_transfers(str(settings.database_url), accounts=ACCOUNTS, events=events)]


def logged(settings: Settings, kind: str, stream_id: str | None = None) -> list[tuple[int, str]]:
    """Position and stream of each event of a kind, as the log has them now."""
    with psycopg.connect(str(settings.database_url)) as connection:
        rows = connection.execute(
            "SELECT position, stream_id::text FROM events WHERE type = ANY(%s) AND stream_id = coalesce(%s, stream_id)",
            (kind.split(), stream_id),
        )
        return [(position, stream) for position, stream in rows]


async def caught_up(ledger: LedgerClient) -> None:
    """Wait until every projection has all that is in the log."""

    async def is_level() -> bool:
        return all(each.lag_events == 0 for each in await ledger.runtime.status(count_documents=False))

    await eventually(is_level, timeout_seconds=FOLDED_IN_SECONDS)


@asynccontextmanager
async def writers(
    ledger: LedgerClient, accounts: list[str], originals: list[str], turns: asyncio.Semaphore
) -> AsyncIterator[Counter[str]]:
    """Meanwhile others post transfers that are effective now and long ago, and reverse some that are there.

    Each may write as much as a page allows, so that the list does not grow faster than it is read.
    """
    written: Counter[str] = Counter()
    done = asyncio.Event()
    randomness = random.Random(7)

    async def write(number: int) -> None:
        while not done.is_set():
            await turns.acquire()
            debited, credited = accounts[0], randomness.choice(accounts[1:])
            if number == 0:
                reply = await ledger.http.post(f"/transfers/{randomness.choice(originals)}/reverse", json={})
                written["reversed"] += reply.status_code == 201
                continue
            second = randomness.randrange(400)
            back = {"effective_at": f"2026-01-01T00:{second // 60:02}:{second % 60:02}Z"} if number == 1 else {}
            reply = await ledger.http.post(
                "/transfers", json=transfer(debited, credited, randomness.randint(1, 100_000), **back)
            )
            written["back-dated" if back else "posted"] += reply.status_code == 201

    tasks = [asyncio.create_task(write(number)) for number in range(3)]
    try:
        yield written
    finally:
        done.set()
        for _ in tasks:
            turns.release()
        await asyncio.gather(*tasks)


async def pages(
    ledger: LedgerClient, path: str, parameters: Mapping[str, Any], turns: asyncio.Semaphore
) -> AsyncIterator[list[Any]]:
    """The rows of each page, one page after another; beside each some writing is done."""
    cursor = None
    while True:
        for _ in range(WRITES_BESIDE_A_PAGE):
            turns.release()
        sent = {**parameters, "limit": PAGE, **({} if cursor is None else {"cursor": cursor})}
        page = await ledger.get(path, sent)
        yield page["items"]
        cursor = page["next"]
        if cursor is None:
            return


async def test_every_transfer_is_on_exactly_one_page_whatever_is_written_meanwhile(
    accounts: list[str], ledger: LedgerClient, settings: Settings
) -> None:
    before = [stream for _, stream in logged(settings, "Transfer.Posted")]
    assert len(before) == TRANSFERS
    lines = [position for position, _ in logged(settings, "Account.Debited Account.Credited", accounts[0])]
    await caught_up(ledger)
    turns = asyncio.Semaphore(0)
    async with writers(ledger, accounts, before, turns) as written:
        seen: Counter[str] = Counter()
        async for page in pages(ledger, "/transfers", {"sort": "effective_at"}, turns):
            seen.update(row["transfer_id"] for row in page)
        assert [each for each in before if seen[each] != 1] == []
        assert [each for each, times in seen.items() if times > 1] == []
        positions: Counter[int] = Counter()
        async for page in pages(ledger, f"/accounts/{accounts[0]}/statement", {}, turns):
            positions.update(row["position"] for row in page)
        assert [each for each in lines if positions[each] != 1] == []
        assert [each for each, times in positions.items() if times > 1] == []
    assert min(written[each] for each in ("reversed", "back-dated", "posted")) > 0
    assert len(lines) > 20 * PAGE
