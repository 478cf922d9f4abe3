"""Readiness: it names what is broken, and answers quickly also when a server hangs."""

import time

import psycopg

from cqrskit import Settings
from cqrskit.testing import eventually
from tests.integration.running_processes import bank_client


async def test_a_projection_that_cannot_go_on_makes_the_service_not_ready_and_says_why(postgres_dsn: str) -> None:
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            "INSERT INTO events VALUES (1, gen_random_uuid(), 1, 'Account.Opened', '{\"owner\": 5}', '{}', now())"
        )
        connection.execute("UPDATE log_head SET position = 1")
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:

        async def not_ready() -> bool:
            return (await client.get("/health/ready")).status_code == 503

        await eventually(not_ready)
        ready = (await client.get("/health/ready")).json()
        assert ready["ready"] is False
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
                assert reply.status_code == 503
                (postgres,) = [each for each in reply.json()["dependencies"] if each["name"] == "postgres"]
                assert postgres["ok"] is False
                assert "no answer" in postgres["reason"]
            assert (await client.get("/health/live")).status_code == 200

        async def is_ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        await eventually(is_ready)
