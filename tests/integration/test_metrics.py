"""What `/metrics` shows after known commands, of projections, and to whom."""

import re
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
from litestar import Litestar
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cqrskit import Scope, Settings, measuring
from cqrskit.metrics import Metrics
from cqrskit.testing import eventually
from cqrskit.web import CqrskitPlugin, plugin_of
from tests.acceptance.api import bearer
from tests.integration.bank import ROUTES, Credit, Open, bank
from tests.integration.running_processes import ROOT, bank_client

PAGE = Path(ROOT) / "docs" / "reference" / "metrics.md"
Samples = dict[tuple[str, tuple[str, ...]], float]


def samples_of(text: str) -> Samples:
    """Each sample's value, by its name and the values of its labels."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(client: httpx.AsyncClient) -> Samples:
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return samples_of(reply.text)


def labels_in(text: str) -> dict[str, list[str]]:
    """The documented labels of each metric."""
    rows = re.findall(r"^\| `(cqrskit_\w+)` \| \w+ \| ([^|]*) \|", text, re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}


def test_every_metric_is_documented_with_its_type_and_meaning() -> None:
    rows = re.findall(
        r"^\| `(cqrskit_\w+)` \| (\w+) \| [^|]*\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    declared = [
        (each.name + ("_total" if each.type == "counter" else ""), each.type, each.documentation)
        for each in Metrics().registry.collect()
    ]
    assert sorted(rows) == sorted(declared)


async def test_commands_are_counted_by_name_and_outcome(postgres_dsn: str) -> None:
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:
        account = (await client.post("/accounts", json={"owner": "Ann"})).json()["account_id"]
        for amount, key in ((1, "k"), (1, "k"), (2, "l"), (13, "m"), (2_000_000, "n"), (666, "o")):
            await client.post(f"/accounts/{account}/credit", json={"amount": amount}, headers={"Idempotency-Key": key})
        found = await scraped(client)
    counts = {labels: value for (name, labels), value in found.items() if name == "cqrskit_commands_total"}
    assert counts == {
        ("Open", "accepted"): 1,
        ("Credit", "accepted"): 2,
        ("Credit", "replayed"): 1,
        ("Credit", "refused"): 2,
        ("Credit", "failed"): 1,
    }
    assert found["cqrskit_batch_commands_sum", ()] == 7
    assert found["cqrskit_decide_seconds_count", ()] >= 7
    assert found["cqrskit_append_seconds_count", ()] == 7
    assert found["cqrskit_http_requests_total", ("POST", "/accounts/{account_id}/credit", "500")] == 1
    assert found["cqrskit_queue_commands", ()] == 0
    assert found["cqrskit_cached_aggregates", ()] == 1


async def test_lag_failures_and_parked_keys_of_projections_are_shown(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("INSERT INTO events VALUES (1, gen_random_uuid(), 1, 'Account.Opened@9', '{}', '{}', now())")
        connection.execute("UPDATE log_head SET position = 1")
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:

        async def degraded() -> bool:
            return bool((await client.get("/health/ready")).json()["status"] == "degraded")

        await eventually(degraded)
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute(
                "INSERT INTO parked_keys (projection, generation, key, position, error, owner) "
                "VALUES ('balances', 1, 'k', 1, 'e', 'k')"
            )
        found = await scraped(client)
    assert found["cqrskit_projection_lag_events", ("balances",)] == 1
    assert found["cqrskit_projection_lag_seconds", ("balances",)] > 0
    assert found["cqrskit_projection_parked_keys", ("balances",)] == 1
    assert found["cqrskit_projection_failed", ("balances",)] == 1


async def test_a_scrape_answers_while_postgres_hangs(postgres_dsn: str) -> None:
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:
        await client.post("/accounts", json={"owner": "Ann"})
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("LOCK TABLE log_head, projections, partitions IN ACCESS EXCLUSIVE MODE")
            found = await scraped(client)
        assert found["cqrskit_commands_total", ("Open", "accepted")] == 1
        assert ("cqrskit_projection_lag_events", ("balances",)) not in found

        async def measured() -> bool:
            return ("cqrskit_projection_lag_events", ("balances",)) in await scraped(client)

        await eventually(measured, timeout_seconds=4 * measuring.MEASURED_AGAIN_SECONDS)


async def test_two_runtimes_in_one_process_count_for_themselves(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn)
    async with bank.open(settings) as one, bank.open(settings) as other:
        account_id = uuid4()
        await one.executor.execute(Open(account_id=account_id, owner="Ann"))
        await other.executor.execute(Credit(account_id=account_id, amount=1))
        first, second = (samples_of(generate_latest(each.metrics.registry).decode()) for each in (one, other))
    assert ("cqrskit_commands_total", ("Credit", "accepted")) not in first
    assert ("cqrskit_commands_total", ("Open", "accepted")) not in second
    assert first["cqrskit_commands_total", ("Open", "accepted")] == 1
    assert second["cqrskit_commands_total", ("Credit", "accepted")] == 1


async def test_metrics_need_a_key_for_reading_unless_they_are_opened(postgres_dsn: str) -> None:
    for is_open in (False, True):
        settings = Settings(database_url=postgres_dsn, port=0, metrics_open=is_open)
        app = Litestar(ROUTES, plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
        async with bank_client(settings, app) as client:
            keys = plugin_of(app).runtime.api_keys
            reading = bearer((await keys.make("prometheus", [Scope.READ])).text)
            writing = bearer((await keys.make("shop", [Scope.WRITE])).text)
            replies = [(await client.get("/metrics", headers=each)).status_code for each in ({}, writing, reading)]
            assert replies == ([200, 200, 200] if is_open else [401, 403, 200])
