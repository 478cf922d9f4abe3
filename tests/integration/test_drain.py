"""A stop under load: what was accepted is finished, what comes later is told so, and nothing acknowledged is lost."""

import asyncio
import signal
import time
from collections import Counter
from uuid import uuid4

import httpx
import psycopg

from cqrskit import Settings
from cqrskit.testing import eventually
from cqrskit.web import plugin_of
from tests.integration.bank import create_app
from tests.integration.running_processes import address_of, bank_client, finish, processes_left, start

WEB = "tests.integration.bank:create_app"
SHUTDOWN_TIMEOUT_SECONDS = 10.0
CALLERS = 24


class Load:
    """Callers that each credit one after another, on connections of their own that are kept alive."""

    def __init__(self, address: str, account: str) -> None:
        self._address = address
        self._account = account
        self.replies: list[httpx.Response] = []
        self.without_reply: list[str] = []

    async def run(self) -> None:
        """Until the server takes no connection any more."""
        await asyncio.gather(*(self._call() for _ in range(CALLERS)))

    async def _call(self) -> None:
        async with httpx.AsyncClient(base_url=self._address, timeout=30) as client:
            while True:
                try:
                    self.replies.append(await client.post(f"{self._account}/credit", json={"amount": 1}))
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    self.without_reply.append(type(error).__name__)


async def test_a_stop_under_load_finishes_what_was_accepted_and_loses_nothing(postgres_dsn: str) -> None:
    variables = {
        "CQRSKIT_DATABASE_URL": postgres_dsn,
        "CQRSKIT_SHUTDOWN_TIMEOUT_SECONDS": str(SHUTDOWN_TIMEOUT_SECONDS),
        "CQRSKIT_LOG_LEVEL": "warning",
    }
    process = await start("serve", "--app", WEB, "--port", "0", variables=variables)
    address = await address_of(process)
    async with httpx.AsyncClient(base_url=address) as client:
        account_id = str(uuid4())
        await client.post("/accounts", json={"owner": "Ann", "account_id": account_id})
    load = Load(address, f"/accounts/{account_id}")
    callers = asyncio.create_task(load.run())
    await eventually(lambda: len(load.replies) > 10 * CALLERS)
    process.send_signal(signal.SIGTERM)
    stopped_at = time.monotonic()
    finished = await finish(process)
    took_seconds = time.monotonic() - stopped_at
    await callers

    assert finished.code == 0, finished.err
    assert finished.err == ""
    assert took_seconds < SHUTDOWN_TIMEOUT_SECONDS
    assert not processes_left(process)
    statuses = Counter(reply.status_code for reply in load.replies)
    assert set(statuses) <= {200, 503}, statuses
    acknowledged = [reply.json()["position"] for reply in load.replies if reply.status_code == 200]
    assert len(set(acknowledged)) == len(acknowledged)
    with psycopg.connect(postgres_dsn) as connection:
        logged = {row[0] for row in connection.execute("SELECT position FROM events WHERE type = 'Account.Credited'")}
    assert set(acknowledged) <= logged
    assert load.without_reply == []


async def test_while_it_stops_accepted_commands_finish_and_new_ones_are_told_so_on_kept_connections(
    postgres_dsn: str,
) -> None:
    settings = Settings(database_url=postgres_dsn, port=0)
    app = create_app(settings)
    async with bank_client(settings, app) as client:
        account = f"/accounts/{(await client.post('/accounts', json={'owner': 'Ann'})).json()['account_id']}"
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("UPDATE log_head SET position = position")
            accepted = asyncio.ensure_future(client.post(f"{account}/credit", json={"amount": 1}))
            with psycopg.connect(postgres_dsn, autocommit=True) as other:
                waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%log_head%'"
                await eventually(lambda: other.execute(waiting).fetchone())
            plugin_of(app).begin_drain()
            refused = await client.post(f"{account}/credit", json={"amount": 1})
            assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
            assert refused.headers["Connection"] == "close"
            assert "Retry-After" in refused.headers
            assert not accepted.done()
        assert (await accepted).json()["position"] == 2
        assert (await client.get("/health/live")).headers["Connection"] == "close"
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        assert "the service is stopping" in ready.json()["problems"]
        assert all(each["ok"] for each in ready.json()["dependencies"])
