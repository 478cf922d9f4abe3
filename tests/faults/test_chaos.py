"""Eight clients at work while everything is killed and started again at random: the log tells what they were told.

``CHAOS_SEED`` and ``CHAOS_SECONDS`` choose another run of it than the short one: ``CHAOS_SECONDS=300 pytest -s
tests/faults/test_chaos.py``. The seed is printed; what the clients send and what is done to the servers comes from it,
though not who is first where two race.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from cqrskit import Settings, load_settings
from cqrskit.testing import CuttableWire, HttpWire, RestartableElasticsearch, RestartablePostgres, eventually
from cqrskit.testing.server_process import free_port
from example_ledger.application import ledger as application
from tests.acceptance.api import bearer, key_for
from tests.faults.chaos_checking import Replay, assert_answers_agree, replayed
from tests.faults.chaos_client import Clients
from tests.faults.chaos_servers import Chaos, Program
from tests.faults.checking import head_of
from tests.integration.running_processes import cqrskit, ledger
from tests.ledger_model.model import LedgerModel

SECONDS = 35.0
CLIENTS = 8
GAP_MAX_SECONDS = 60.0
"""The longest time in which a client may settle nothing: what is killed is back long before."""
READY_SECONDS = 90.0
LEVEL_SECONDS = 90.0
REPEATED = 400
PAGE = 1_000
HASTE = {"CQRSKIT_CONNECT_TIMEOUT_SECONDS": "3"}
"""Of an API: it starts without Elasticsearch before that is back."""
APP = "example_ledger.application:ledger"


@pytest.fixture
def elasticsearch(request: pytest.FixtureRequest) -> RestartableElasticsearch | None:
    """The server of the read models; None if ``CHAOS_STORE=postgres``."""
    if os.environ.get("CHAOS_STORE") == "postgres":
        return None
    request.getfixturevalue("restartable_elasticsearch_url")
    server: RestartableElasticsearch = request.getfixturevalue("restartable_elasticsearch")
    return server


def variables_of(dsn: str, elasticsearch_url: str | None, index_prefix: str) -> dict[str, str]:
    """Settings with which much happens: small batches and blocks, few aggregates in memory, short leases."""
    variables = {
        "CQRSKIT_DATABASE_URL": dsn,
        "CQRSKIT_INDEX_PREFIX": index_prefix,
        "CQRSKIT_BATCH_SIZE_MAX": "6",
        "CQRSKIT_BLOCK_SIZE_MAX": "50",
        "CQRSKIT_CACHED_AGGREGATES_MAX": "60",
        "CQRSKIT_SNAPSHOT_EVERY_EVENTS": "20",
        "CQRSKIT_LEASE_SECONDS": "2",
        "CQRSKIT_COMMAND_TIMEOUT_SECONDS": "5",
        "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "30",
        "CQRSKIT_WAIT_TIMEOUT_SECONDS": "1",
        "CQRSKIT_LOG_LEVEL": "warning",
    }
    return variables if elasticsearch_url is None else {**variables, "CQRSKIT_ELASTICSEARCH_URL": elasticsearch_url}


async def test_the_log_replayed_in_the_model_gives_every_reply_whatever_is_killed_meanwhile(
    restartable_postgres: RestartablePostgres,
    restartable_postgres_dsn: str,
    elasticsearch: RestartableElasticsearch | None,
    index_prefix: str,
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    seconds = float(os.environ.get("CHAOS_SECONDS") or SECONDS)
    print(f"CHAOS_SEED={seed}", flush=True)
    rng = random.Random(seed)
    dsn = restartable_postgres_dsn
    async with AsyncExitStack() as stack:
        wire = None if elasticsearch is None else await stack.enter_async_context(HttpWire(elasticsearch.url))
        variables = variables_of(dsn, None if wire is None else wire.url, index_prefix)
        postgres_wire = await stack.enter_async_context(CuttableWire(dsn))
        by_wire = {**variables, "CQRSKIT_DATABASE_URL": postgres_wire.url}
        key = await key_for(Settings(database_url=dsn, index_prefix=index_prefix))
        ports = [free_port(), free_port()]
        clients = Clients([f"http://127.0.0.1:{port}" for port in ports], key, random.Random(rng.getrandbits(64)))
        stack.push_async_callback(clients.close)
        chaos = Chaos(
            random.Random(rng.getrandbits(64)),
            apis=[
                Program("example_ledger", "serve", "--no-projections", variables={**each, **HASTE}, port=port)
                for each, port in zip((variables, by_wire), ports, strict=True)
            ],
            workers=[Program("cqrskit", "project", "--app", APP, variables=variables) for _ in range(2)],
            postgres=restartable_postgres,
            dsn=dsn,
            elasticsearch=elasticsearch,
            wire=wire,
            postgres_wire=postgres_wire,
        )
        try:
            async with chaos:
                await ready(ports)
                await clients.begin()
                await work(clients, chaos, seconds)
                await level(variables)
                replay = check(dsn, clients)
                await assert_read_models_show(replay.model, ports[0], key, head_of(dsn))
            assert chaos.complaints == []
            await assert_in_order(variables)
            print(f"{replay.decisions} decisions, {replay.without_trace} answers that changed nothing")
        finally:
            print(tell(clients, chaos, seed), flush=True)


async def ready(ports: list[int]) -> None:
    """Wait until all APIs answer."""

    async def answers() -> bool:
        async with httpx.AsyncClient() as http:
            try:
                replies = [await http.get(f"http://127.0.0.1:{port}/health/live") for port in ports]
            except httpx.TransportError:
                return False
        return all(reply.status_code == 200 for reply in replies)

    await eventually(answers, timeout_seconds=READY_SECONDS)


async def work(clients: Clients, chaos: Chaos, seconds: float) -> None:
    """Clients at work during chaos; afterwards they settle what they gave up, and repeat some of the rest."""
    working = asyncio.create_task(clients.work(CLIENTS))
    raging = asyncio.create_task(chaos.rage(seconds))
    try:
        await asyncio.wait({working, raging}, return_when=asyncio.FIRST_COMPLETED)
        clients.stop()
        await asyncio.gather(working, raging)
    finally:
        for task in (working, raging):
            task.cancel()
        await asyncio.gather(working, raging, return_exceptions=True)
    await clients.settle_all()
    await clients.repeat(REPEATED)


async def level(variables: Mapping[str, str]) -> None:
    """Wait until no hold waits for its expiry, which would change the log, and all read models show the log."""
    async with application.open(load_settings(variables), executor=False) as runtime:

        async def nothing_waits() -> bool:
            return (await runtime.due_commands.status()).waiting == 0

        async def shown() -> bool:
            head = await runtime.event_store.head()
            return all(each.visible_position >= head for each in await runtime.status(count_documents=False))

        await eventually(nothing_waits, timeout_seconds=LEVEL_SECONDS)
        await eventually(shown, timeout_seconds=LEVEL_SECONDS)
        assert [each.parked_keys for each in await runtime.status(count_documents=False)] == [0] * 5
        assert (await runtime.due_commands.status()).parked == 0


def tell(clients: Clients, chaos: Chaos, seed: int) -> str:
    """What happened, in a few lines."""
    deeds = Counter(each.name for each in chaos.done)
    return (
        f"seed {seed}: {len(clients.operations)} operations, {sum(len(each.attempts) for each in clients.operations)} "
        f"attempts {dict(clients.answers)}, longest gap {clients.longest_gap_seconds:.1f} s; {dict(deeds)}, "
        f"the last: {chaos.done[-4:]}, "
        f"{sum(each.unreachable for each in chaos.programs)} starts in vain; complaints: {chaos.complaints[:5]}"
    )


def check(dsn: str, clients: Clients) -> Replay:
    """Nothing that was acknowledged is lost, nothing is there twice, and the model gives every answer."""
    assert clients.unexpected == []
    assert_answers_agree(clients.operations)
    replay = replayed(dsn, clients.operations)
    accounts = replay.model.accounts.values()
    for counters in ("posted", "pending"):
        debits, credits_ = (sum(getattr(each, counters)[side] for each in accounts) for side in ("debit", "credit"))
        assert debits == credits_, f"{counters}: {debits} debits, {credits_} credits"
    overdue = [
        each
        for each in replay.model.transfers.values()
        if each.state == "held" and each.expires_at is not None and each.expires_at < replay.model.now
    ]
    assert overdue == [], "holds whose time is over are still held"
    assert replay.without_trace > 0
    assert replay.expired_late_seconds, "no hold expired"
    assert clients.longest_gap_seconds < GAP_MAX_SECONDS
    return replay


async def assert_read_models_show(model: LedgerModel, port: int, key: str, head: int) -> None:
    """Accounts, transfers and the trial balance are the model's."""
    headers = {**bearer(key), "Consistency-Position": str(head)}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as http:
        accounts = await pages(http, "/accounts")
        transfers = await pages(http, "/transfers")
        trial = (await http.get("/trial-balance")).json()["currencies"]
    shown = {
        each["account_id"]: [
            each[name] for name in ("debits_posted", "credits_posted", "debits_pending", "credits_pending", "status")
        ]
        for each in accounts
    }
    assert shown == {
        str(UUID(int=number)): [*each.posted.values(), *each.pending.values(), each.status]
        for number, each in model.accounts.items()
    }
    assert {each["transfer_id"]: (each["status"], each["amount"]) for each in transfers} == {
        str(UUID(int=number)): (each.shown_state, each.moved or each.amount) for number, each in model.transfers.items()
    }
    assert trial
    assert all(each["balanced"] for each in trial), trial


async def pages(http: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        parameters: dict[str, str | int] = {"limit": PAGE} if cursor is None else {"limit": PAGE, "cursor": cursor}
        reply = await http.get(path, params=parameters)
        assert reply.status_code == 200, reply.text
        body = reply.json()
        rows += body["items"]
        cursor = body["next"]
        if cursor is None:
            assert len({msgspec.json.encode(row) for row in rows}) == len(rows)
            return rows


async def assert_in_order(variables: Mapping[str, str]) -> None:
    """The ledger's own check finds the books in order, and each projection is verified, by the commands for it."""
    checked = await ledger("check", "--json", variables=variables)
    assert checked.code == 0, checked
    assert msgspec.json.decode(checked.out)["violations"] == []
    names = [each.name for each in application.projections]
    for name in names:
        verified = await cqrskit("verify", name, "--full", "--app", APP, "--json", variables=variables)
        assert verified.code == 0, verified
        report = msgspec.json.decode(verified.out)
        assert (report["differences_count"], report["parked"]) == (0, []), report
