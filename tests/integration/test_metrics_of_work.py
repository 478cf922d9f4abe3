"""What `/metrics` shows of the work of a process: its cache, projectors, reactions, due commands, refusals, retries."""

import socket
from uuid import uuid4

import httpx
import psycopg
import pytest
from litestar import Litestar
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cqrskit import CommandFailed, Rejected, Runtime, Scope, Settings
from cqrskit.testing import CuttableWire, eventually
from cqrskit.web import CqrskitPlugin, plugin_of
from tests.acceptance.api import bearer
from tests.integration.bank import ROUTES, Credit, Open, bank
from tests.integration.counting import POISON, Counts, Grow, counting
from tests.integration.reminding import GrowLater, opened
from tests.integration.running_processes import bank_client, cqrskit, finish, start
from tests.integration.test_metrics import PAGE, Samples, labels_in, samples_of, scraped
from tests.integration.test_reactions import mirroring


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, port=0)


async def shown(runtime: Runtime) -> Samples:
    """What a scrape of this runtime would show."""
    await runtime.measuring.measure()
    return samples_of(generate_latest(runtime.metrics.registry).decode())


async def test_requests_are_counted_and_timed_by_the_template_of_their_path(settings: Settings) -> None:
    async with bank_client(settings) as client:
        done = (await client.post("/accounts", json={"owner": "Ann"})).json()
        await client.get(f"/accounts/{done['account_id']}", params={"min_position": done["position"]})
        for number in range(20):
            await client.get(f"/accounts/{uuid4()}")
            await client.get(f"/nowhere/{number}")
            await client.request("PROPFIND", "/accounts")
        await client.get("/broken")
        found = await scraped(client)
    requests = {labels: value for (name, labels), value in found.items() if name == "cqrskit_http_requests_total"}
    assert requests == {
        ("POST", "/accounts", "201"): 1,
        ("GET", "/accounts/{account_id}", "200"): 1,
        ("GET", "/accounts/{account_id}", "404"): 20,
        ("GET", "none", "404"): 20,
        ("other", "none", "405"): 20,
        ("GET", "/broken", "500"): 1,
    }
    assert found["cqrskit_http_request_seconds_count", ("GET", "/accounts/{account_id}")] == 21
    assert found["cqrskit_http_request_seconds_sum", ("GET", "/accounts/{account_id}")] > 0


async def test_the_labels_of_all_samples_are_the_documented_ones(settings: Settings) -> None:
    documented = labels_in(PAGE.read_text(encoding="utf-8"))
    async with bank_client(settings) as client:
        await client.post("/accounts", json={"owner": "Ann"})
        text = (await client.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            if not sample.name.endswith("_created"):
                assert sorted({*sample.labels} - {"le"}) == sorted(documented[name]), sample.name


async def test_the_cache_shows_what_was_in_memory_and_what_had_to_be_looked_for(settings: Settings) -> None:
    account_id = uuid4()
    async with bank.open(settings) as one:
        await one.executor.execute(Open(account_id=account_id, owner="Ann"))
        before = await shown(one)
        for _ in range(3):
            await one.executor.execute(Credit(account_id=account_id, amount=1))
        after = await shown(one)
        for number in range(5):
            await one.executor.execute(Open(account_id=uuid4(), owner=str(number)))
    assert after["cqrskit_cache_hits_total", ()] - before["cqrskit_cache_hits_total", ()] == 3
    assert after["cqrskit_cache_misses_total", ()] == before["cqrskit_cache_misses_total", ()]
    assert after["cqrskit_cached_aggregates_bytes", ()] > 0
    small = Settings(database_url=settings.database_url, cached_aggregates_max=0)
    async with bank.open(small) as other:
        for _ in range(3):
            await other.executor.execute(Credit(account_id=account_id, amount=1))
        found = await shown(other)
    assert found["cqrskit_cache_misses_total", ()] == 3
    assert found["cqrskit_cache_evictions_total", ()] == 3


async def test_a_batch_that_another_process_has_overtaken_is_a_failure_by_conflict(settings: Settings) -> None:
    account_id = uuid4()
    async with bank.open(settings) as one, bank.open(settings) as other:
        await one.executor.execute(Open(account_id=account_id, owner="Ann"))
        await other.executor.execute(Credit(account_id=account_id, amount=1))
        await one.executor.execute(Credit(account_id=account_id, amount=1))
        found = await shown(one)
    assert found["cqrskit_batch_failures_total", ("conflict",)] == 1
    assert found["cqrskit_locked_batch_seconds_count", ()] >= 1


async def test_a_projectors_own_work_is_counted_and_a_fold_that_raises_parks_a_key(settings: Settings) -> None:
    poisoned, well = uuid4(), uuid4()
    async with counting.open(settings, projections=[Counts.name]) as runtime:
        for by in (1, POISON, 2):
            await runtime.executor.execute(Grow(counter_id=poisoned, by=by))
        last = await runtime.executor.execute(Grow(counter_id=well, by=1))
        await runtime.positions.wait(Counts, last.position, visible=True, timeout_seconds=30)
        found = await shown(runtime)
    name = (Counts.name,)
    assert found["cqrskit_projection_parked_keys", name] == 1
    assert found["cqrskit_projector_parked_keys_total", name] == 1
    assert found["cqrskit_projection_failed", name] == 0
    assert found["cqrskit_projector_documents_total", ("written", Counts.name)] >= 2
    assert found["cqrskit_projector_events_total", name] >= 4
    writes = found["cqrskit_projector_write_seconds_count", name]
    assert 1 <= writes == found["cqrskit_projector_fold_seconds_count", name]


async def test_due_commands_are_shown_as_they_wait_and_counted_as_they_end(settings: Settings) -> None:
    async with opened(settings) as runtime:
        for name, seconds, then in (("a", 0.0, "grow"), ("b", 0.0, "refuse"), ("c", 3600.0, "grow")):
            command = GrowLater(counter_id=uuid4(), name=name, seconds=seconds, then=then)  # type: ignore[arg-type]
            await runtime.executor.execute(command)

        async def both_ended() -> bool:
            with psycopg.connect(str(settings.database_url)) as connection:
                return connection.execute("SELECT count(*) FROM due_commands").fetchall() == [(1,)]

        await eventually(both_ended, timeout_seconds=30)
        found = await shown(runtime)
    assert found["cqrskit_due_commands", ("waiting",)] == 1
    assert found["cqrskit_due_commands", ("parked",)] == 0
    assert found["cqrskit_due_commands_overdue_seconds", ()] == 0
    assert found["cqrskit_due_commands_run_total", ("GrowDue", "accepted")] == 1
    assert found["cqrskit_due_commands_run_total", ("GrowDue", "refused")] == 1


async def test_the_lag_of_a_reaction_and_the_events_that_it_parked_are_shown(settings: Settings) -> None:
    async with mirroring.open(settings) as runtime:
        for by in (1, POISON, 2):
            await runtime.executor.execute(Grow(counter_id=uuid4(), by=by))

        async def reacted() -> bool:
            found = samples_of(generate_latest(runtime.metrics.registry).decode())
            return found.get(("cqrskit_reaction_events_total", ("parked", "mirror"))) == 1

        await eventually(reacted, timeout_seconds=30)
        found = await shown(runtime)
    assert found["cqrskit_reaction_parked_events", ("mirror",)] == 1
    assert found["cqrskit_reaction_lag_events", ("mirror",)] >= 0
    assert found["cqrskit_reaction_events_total", ("reacted", "mirror")] >= 1
    assert found["cqrskit_due_commands", ("parked",)] == 1


async def test_requests_that_are_not_let_in_are_counted_by_reason(postgres_dsn: str) -> None:
    settings = Settings(
        database_url=postgres_dsn,
        port=0,
        metrics_open=True,
        rate_limit_requests_per_second=0.001,
        rate_limit_burst_requests=2,
    )
    app = Litestar(ROUTES, plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
    async with bank_client(settings, app) as client:
        keys = plugin_of(app).runtime.api_keys
        reading = bearer((await keys.make("reader", [Scope.READ])).text)
        made = await keys.make("gone", [Scope.READ])
        await keys.revoke(made.key.id)
        for headers in ({}, bearer("nonsense"), bearer(made.text), reading):
            await client.post("/accounts", json={"owner": "Ann"}, headers=headers)
        for _ in range(2):
            await client.get("/accounts", headers=reading)
        found = await scraped(client)
    refusals = {labels: value for (name, labels), value in found.items() if name == "cqrskit_access_refusals_total"}
    assert refusals == {("no_key",): 1, ("wrong_key",): 2, ("scope",): 1, ("rate_limit",): 1}


async def test_connections_that_were_lost_and_work_that_was_begun_again_are_counted(settings: Settings) -> None:
    async with CuttableWire(str(settings.database_url)) as wire:
        wired = Settings(database_url=wire.url, lease_seconds=1.0)
        async with counting.open(wired, projections=[Counts.name]) as runtime:
            await runtime.executor.execute(Grow(counter_id=uuid4(), by=1))
            await wire.cut()

            async def noticed() -> bool:
                found = samples_of(generate_latest(runtime.metrics.registry).decode())
                works = {labels[0] for name, labels in found if name == "cqrskit_retries_total"}
                return {"postgres_listener", "projector", "worker"} <= works

            await eventually(noticed, timeout_seconds=60)
            await wire.mend()

            async def goes_on() -> bool:
                try:
                    await runtime.executor.execute(Grow(counter_id=uuid4(), by=1), timeout_seconds=5)
                except (CommandFailed, Rejected):
                    raise
                except Exception:
                    return False
                return True

            await eventually(goes_on, timeout_seconds=60)
            found = samples_of(generate_latest(runtime.metrics.registry).decode())
    assert found["cqrskit_retries_total", ("postgres_writer",)] >= 1


async def test_cqrskit_project_shows_its_own_work_at_a_port_of_its_own(settings: Settings) -> None:
    async with bank.open(settings) as runtime:
        for number in range(3):
            await runtime.executor.execute(Open(account_id=uuid4(), owner=str(number)))
    port = free_port()
    variables = {"CQRSKIT_DATABASE_URL": str(settings.database_url), "CQRSKIT_METRICS_PORT": str(port)}
    process = await start("project", "--app", "tests.integration.bank:bank", variables=variables)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def folded() -> bool:
                try:
                    found = samples_of((await client.get("/metrics")).text)
                except httpx.TransportError:
                    return False
                lag = found.get(("cqrskit_projection_lag_events", ("balances",)))
                return found.get(("cqrskit_projector_events_total", ("balances",))) == 3 and lag is not None

            await eventually(folded, timeout_seconds=30)
            taken = await cqrskit("project", "--app", "tests.integration.bank:bank", variables=variables)
    finally:
        process.terminate()
        finished = await finish(process)
    assert finished.code == 0, finished.err
    assert (taken.code, f"cannot show metrics on 127.0.0.1:{port}" in taken.err) == (2, True), taken.err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
