"""Readiness: it names what is broken, and answers quickly also when a server hangs."""

import time
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
from litestar import Litestar

from cqrskit import Settings
from cqrskit.testing import eventually
from cqrskit.web import CqrskitPlugin, plugin_of
from tests.integration.bank import bank, create_app
from tests.integration.counting import POISON, Grow
from tests.integration.running_processes import bank_client
from tests.integration.test_reactions import mirroring
from tests.integration.upgrading import Place, ordering

PARKED = "due commands: 1 parked: see `cqrskit due list --parked`"


async def test_a_projection_that_cannot_go_on_leaves_the_service_in_use_and_says_why(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("INSERT INTO events VALUES (1, gen_random_uuid(), 1, 'Account.Opened@9', '{}', '{}', now())")
        connection.execute("UPDATE log_head SET position = 1")
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:

        async def degraded() -> bool:
            return bool((await client.get("/health/ready")).json()["status"] == "degraded")

        await eventually(degraded)
        reply = await client.get("/health/ready")
        assert reply.status_code == 200, "commands work, so the service must stay in the load balancer"
        ready = reply.json()
        assert any("balances:" in problem and "Account.Opened" in problem for problem in ready["problems"])
        assert all(dependency["ok"] for dependency in ready["dependencies"])
        (balances,) = ready["projections"]
        assert "Account.Opened" in balances["failure"]
        assert (balances["position"], balances["head"], balances["lag_events"]) == (0, 1, 1)
        assert balances["lag_seconds"] >= 0
        assert (await client.get("/health/live")).status_code == 200


async def test_readiness_answers_when_a_server_hangs(postgres_dsn: str) -> None:
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("LOCK TABLE log_head, projections IN ACCESS EXCLUSIVE MODE")
            for _ in range(3):
                begun = time.monotonic()
                reply = await client.get("/health/ready")
                assert time.monotonic() - begun < 10, "it hung"
                assert (reply.status_code, reply.json()["status"]) == (503, "unready")
                (postgres,) = [each for each in reply.json()["dependencies"] if each["name"] == "postgres"]
                assert postgres["ok"] is False
                assert "no answer" in postgres["reason"]
            assert (await client.get("/health/live")).status_code == 200

        async def is_ready() -> bool:
            return bool((await client.get("/health/ready")).json()["status"] == "ready")

        await eventually(is_ready)


async def test_projections_that_cannot_be_measured_are_never_called_well(postgres_dsn: str) -> None:
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:
        assert (await client.get("/health/ready")).json()["status"] == "ready"
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("LOCK TABLE partitions IN ACCESS EXCLUSIVE MODE")
            reply = await client.get("/health/ready")
            assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
            assert reply.json()["problems"] == ["the projections could not be measured: no answer within 1.5 s"]
            assert reply.json()["projections"] == []


async def test_projections_that_nobody_moves_are_a_problem_until_a_worker_comes(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0)
    app = create_app(settings)
    plugin_of(app).projections = ()
    async with bank_client(settings, app) as client:
        never = await client.get("/health/ready")
        assert (never.status_code, never.json()["status"]) == (200, "degraded")
        assert never.json()["problems"] == ["balances: it was never started: run `cqrskit project`"]
        async with bank.open(settings, executor=False, projections=["balances"]):
            assert (await client.get("/health/ready")).json()["status"] == "ready"
        gone = (await client.get("/health/ready")).json()
        assert gone["problems"] == ["balances: nobody moves partition 0: run `cqrskit project`"]


async def test_lag_and_parked_keys_beyond_their_limits_are_problems(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0, health_lag_max_events=1)
    async with bank_client(settings) as client:
        account = (await client.post("/accounts", json={"owner": "Ann"})).json()["account_id"]
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("UPDATE projections SET paused_at = now()")

        async def stands_still() -> bool:
            (balances,) = (await client.get("/health/ready")).json()["projections"]
            return balances["paused"] and balances["partitions"][0]["worker"] is None

        await eventually(stands_still, timeout_seconds=30)
        for _ in range(2):
            await client.post(f"/accounts/{account}/credit", json={"amount": 1})
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute(
                "INSERT INTO parked_keys (projection, generation, key, position, error, owner) "
                "VALUES ('balances', 1, 'k', 1, 'e', 'k')"
            )
        reply = await client.get("/health/ready")
        assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
        for words in ("it lags by 2 events, more than 1", "it has 1 parked key: "):
            assert any(words in problem for problem in reply.json()["problems"]), words


async def test_due_commands_and_reactions_are_shown_and_what_is_late_or_parked_is_a_problem(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0)
    app = Litestar([], plugins=[CqrskitPlugin(mirroring, settings)])
    async with bank_client(settings, app) as client:

        async def ready() -> dict[str, Any]:
            reply = await client.get("/health/ready")
            assert reply.status_code == 200
            found: dict[str, Any] = reply.json()
            return found

        good = await ready()
        assert (good["status"], good["problems"]) == ("ready", [])
        empty: dict[str, Any] = {"waiting": None, "parked": 0, "overdue_seconds": 0.0, "unknown": [], "problems": []}
        assert good["due_commands"] == empty
        await plugin_of(app).runtime.executor.execute(Grow(counter_id=uuid4(), by=POISON))

        async def parked() -> bool:
            return bool((await ready())["due_commands"]["parked"])

        await eventually(parked)
        bad = await ready()
        assert (bad["status"], bad["problems"]) == ("degraded", [PARKED])
        (mirror,) = bad["reactions"]
        assert (mirror["name"], mirror["position"], mirror["lag_events"], mirror["parked_events"]) == (
            "mirror",
            2,
            0,
            1,
        )
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("DELETE FROM due_commands")
            for command, late in (("Gone", 70), ("Grow", 80), ("Later", 5)):
                connection.execute(
                    "INSERT INTO due_commands (key, command, content, metadata, due_at, run_at, leased_until)"
                    " VALUES (%(command)s, %(command)s, '', '', now() - make_interval(secs => %(late)s),"
                    " now() - make_interval(secs => %(late)s), now() + interval '1 hour')",
                    {"command": command, "late": late},
                )
            connection.execute("UPDATE due_commands SET run_at = now() + interval '50 seconds' WHERE command = 'Grow'")
        late_ones = await ready()
        assert late_ones["due_commands"]["unknown"] == ["Gone"]
        assert late_ones["status"] == "degraded"
        assert any(each.startswith("due commands: the oldest is overdue by 80 s") for each in late_ones["problems"])
        assert "due commands: this code has no handler for what is overdue: Gone" in late_ones["problems"]


async def test_a_reaction_that_lags_or_cannot_go_on_is_a_problem(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0)
    for version in (2, 1):
        async with ordering(version, reacts=False).open(settings) as writer:
            await writer.executor.execute(Place(order_id=uuid4()))
    app = Litestar([], plugins=[CqrskitPlugin(ordering(1, reacts=True), settings)])
    async with bank_client(settings, app) as client:

        async def problems() -> list[str]:
            return [str(each) for each in (await client.get("/health/ready")).json()["problems"]]

        await eventually(problems)
        (problem,) = await problems()
        assert problem.startswith("reaction shipping: the log holds events of type 'Order.Placed@2'")
    strict = msgspec.structs.replace(settings, health_lag_max_events=1)
    async with ordering(1, reacts=True).open(strict, executor=False) as looking:
        (shipping,) = await looking.reaction_statuses()
        assert (shipping.position, shipping.lag_events) == (0, 2)
        assert shipping.lag_seconds > 0
        assert shipping.problems == ("it lags by 2 events, more than 1",)


async def test_a_service_that_stops_is_not_ready(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0)
    app = create_app(settings)
    async with bank_client(settings, app) as client:
        plugin_of(app).begin_drain()
        reply = await client.get("/health/ready")
        assert (reply.status_code, reply.json()["status"]) == (503, "unready")
        assert reply.json()["problems"] == ["the service is stopping"]
