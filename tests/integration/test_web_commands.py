"""Commands over HTTP: retries, where a command comes from, and what is said when there is no room or no time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import structlog
from litestar import Litestar, Request, post
from litestar.di import NamedDependency
from litestar.exceptions import ImproperlyConfiguredException
from structlog.testing import capture_logs

from cqrskit import Executor, Settings
from cqrskit.testing import eventually
from cqrskit.web import CqrskitPlugin
from tests.integration.bank import ROUTES, bank
from tests.integration.running_processes import bank_client
from tests.integration.test_web import opened, problem

KEY, REPLAY, CORRELATION = "Idempotency-Key", "Idempotent-Replay", "X-Correlation-ID"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def client(postgres_dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running bank."""
    async with bank_client(Settings(database_url=postgres_dsn, port=0)) as client:
        yield client


def metadata_in(dsn: str) -> list[dict[str, Any]]:
    """The metadata of all events, in the log's order."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT metadata FROM events ORDER BY position").fetchall()
    return [json.loads(bytes(metadata)) for (metadata,) in found]


async def test_a_retry_gets_the_first_reply_and_has_no_effect(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    headers = {KEY: "pay day"}
    first = await client.post(f"{account}/credit", json={"amount": 5}, headers=headers)
    assert (first.status_code, REPLAY in first.headers) == (200, False)
    await client.post(f"{account}/credit", json={"amount": 1})
    again = await client.post(f"{account}/credit", json={"amount": 5}, headers=headers)
    assert (again.status_code, again.content, again.headers[REPLAY]) == (200, first.content, "true")
    assert again.headers["Consistency-Position"] == first.headers["Consistency-Position"]
    shown = await client.get(account, params={"min_position": 3})
    assert shown.json()["amount"] == 6


async def test_a_retry_of_what_makes_its_own_id_makes_the_same_one(client: httpx.AsyncClient) -> None:
    headers = {KEY: str(uuid4())}
    first = await client.post("/accounts", json={"owner": "Ann"}, headers=headers)
    again = await client.post("/accounts", json={"owner": "Ann"}, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (201, 200, first.content)
    other = await client.post("/accounts", json={"owner": "Ann"}, headers={KEY: str(uuid4())})
    assert (other.status_code, other.content != first.content) == (201, True)
    assert len({(await client.post("/accounts", json={"owner": "Ann"})).json()["account_id"] for _ in range(2)}) == 2


async def test_a_key_with_other_content_is_a_conflict_that_names_the_field(client: httpx.AsyncClient) -> None:
    account, other = await opened(client), await opened(client)
    headers = {KEY: "k"}
    await client.post(f"{account}/credit", json={"amount": 5}, headers=headers)
    for path, body, field in (
        (f"{account}/credit", {"amount": 6}, "amount"),
        (f"{other}/credit", {"amount": 5}, "account_id"),
        ("/accounts", {"owner": "Ann"}, "command"),
    ):
        found = problem(await client.post(path, json=body, headers=headers), 409, "idempotency_conflict")
        assert found["details"] == {"key": "k", "field": field}
    assert (await client.get(account, params={"min_position": 3})).json()["amount"] == 5


async def test_a_refusal_is_remembered_and_comes_back_as_the_same_problem(client: httpx.AsyncClient) -> None:
    account = f"/accounts/{uuid4()}"
    for path, body, status, code in (
        (f"{account}/credit", {"amount": 5}, 404, "not_found"),
        (f"{await opened(client)}/credit", {"amount": 13}, 409, "account_closed"),
        (f"{await opened(client)}/credit", {"amount": 2_000_000}, 413, "over_limit"),
    ):
        headers = {KEY: code}
        first = await client.post(path, json=body, headers=headers)
        problem(first, status, code)
        assert REPLAY not in first.headers
        await client.post("/accounts", json={"owner": "Ann", "account_id": account.removeprefix("/accounts/")})
        again = await client.post(path, json=body, headers=headers)
        problem(again, status, code)
        assert (again.content, again.headers[REPLAY]) == (first.content, "true")
    assert (await client.post(f"{account}/credit", json={"amount": 5})).status_code == 200


async def test_many_at_once_under_one_key_have_one_effect_and_one_reply(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    replies = await asyncio.gather(
        *(client.post(f"{account}/credit", json={"amount": 5}, headers={KEY: "k"}) for _ in range(30))
    )
    assert len({reply.content for reply in replies}) == 1
    assert sorted(REPLAY in reply.headers for reply in replies) == [False] + [True] * 29
    assert (await client.get(account, params={"min_position": 2})).json()["amount"] == 5


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb", "clé"])
async def test_an_unusable_key_is_refused_and_the_header_named(client: httpx.AsyncClient, key: str) -> None:
    account = await opened(client)
    headers = [(KEY.encode(), key.encode())]
    reply = await client.post(f"{account}/credit", json={"amount": 5}, headers=headers)
    found = problem(reply, 400, "invalid_idempotency_key")
    assert KEY in str(found["detail"])
    assert found["errors"] == [{"field": KEY, "in": "header", "message": found["detail"]}]
    twice = [(KEY, "a"), (KEY, "a")]
    problem(await client.post(f"{account}/credit", json={"amount": 5}, headers=twice), 400, "invalid_idempotency_key")
    longest = await client.post(f"{account}/credit", json={"amount": 5}, headers={KEY: "k" * 255})
    assert longest.status_code == 200


async def test_where_a_command_comes_from_is_written_beside_its_events(postgres_dsn: str) -> None:
    def actor(request: Request[Any, Any, Any]) -> str | None:
        return request.headers.get("X-User")

    app = Litestar(ROUTES, plugins=[CqrskitPlugin(bank, Settings(database_url=postgres_dsn), actor=actor)])
    async with bank_client(Settings(database_url=postgres_dsn, port=0), app) as client:
        headers = {CORRELATION: "order/7", "X-Causation-ID": "click-1", "traceparent": TRACE, "X-User": "ann"}
        reply = await client.post("/accounts", json={"owner": "Ann"}, headers=headers)
        assert reply.headers[CORRELATION] == "order/7"
        reply = await client.post("/accounts", json={"owner": "Ann"})
        made = reply.headers[CORRELATION]
        assert UUID(hex=made).version == 4
    assert metadata_in(postgres_dsn) == [
        {
            "command": "Open",
            "correlation_id": "order/7",
            "causation_id": "click-1",
            "actor": "ann",
            "trace_parent": TRACE,
        },
        {"command": "Open", "correlation_id": made},
    ]


@pytest.mark.parametrize("header", [CORRELATION, "X-Causation-ID"])
@pytest.mark.parametrize("value", ["", "a b", "x" * 129, "é"])
async def test_an_unusable_id_of_where_a_command_comes_from_is_refused(
    client: httpx.AsyncClient, header: str, value: str
) -> None:
    headers = [(header.encode(), value.encode())]
    reply = await client.post("/accounts", json={"owner": "Ann"}, headers=headers)
    found = problem(reply, 400, "invalid_request")
    assert found["errors"] == [
        {"field": header, "in": "header", "message": "must be sent once and have 1 to 128 visible ASCII characters"}
    ]
    assert UUID(hex=reply.headers[CORRELATION])
    assert (await client.get("/accounts", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACE, TRACE),
        ("cc" + TRACE[2:] + "-what-comes-later", "cc" + TRACE[2:]),
        (TRACE + "-more", None),
        ("ff" + TRACE[2:], None),
        (TRACE.upper(), None),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), None),
        (TRACE.replace("00f067aa0ba902b7", "0" * 16), None),
        (TRACE[:-1], None),
        ("", None),
    ],
)
async def test_a_malformed_traceparent_is_ignored(
    client: httpx.AsyncClient, postgres_dsn: str, sent: str, kept: str | None
) -> None:
    assert (await client.post("/accounts", json={"owner": "Ann"}, headers={"traceparent": sent})).status_code == 201
    assert metadata_in(postgres_dsn)[0].get("trace_parent") == kept


@pytest.mark.parametrize("path", ["/accounts", "/broken", "/nowhere", "/health/live", "/accounts/not-a-uuid"])
async def test_every_reply_names_its_correlation_id_once(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path, headers={CORRELATION: "order-7"})
    assert reply.headers.get_list(CORRELATION) == ["order-7"]
    assert UUID(hex=(await client.get(path)).headers[CORRELATION])


async def test_what_is_logged_for_a_request_has_its_correlation_id(client: httpx.AsyncClient) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await asyncio.gather(*(client.get("/broken", headers={CORRELATION: f"order-{n}"}) for n in range(5)))
        await client.get("/broken")
    failed = [line for line in lines if line["event"] == "request.failed"]
    assert {line["correlation_id"] for line in failed} >= {f"order-{n}" for n in range(5)}
    assert len({line["correlation_id"] for line in failed}) == 6


async def test_a_full_queue_is_told_at_once_and_the_accepted_ones_go_on(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0, queue_length_max=2, batch_size_max=1)
    async with bank_client(settings) as client:
        account = await opened(client)
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("UPDATE log_head SET position = position")
            replies = [asyncio.ensure_future(client.post(f"{account}/credit", json={"amount": 1})) for _ in range(20)]

            def refused() -> list[httpx.Response]:
                return [reply.result() for reply in replies if reply.done()]

            await eventually(lambda: len(refused()) >= 16)
            for reply in refused():
                problem(reply, 503, "busy")
                assert int(reply.headers["Retry-After"]) >= 1
        accepted = [reply for reply in await asyncio.gather(*replies) if reply.status_code == 200]
        assert 1 <= len(accepted) <= 4
        shown = await client.get(account, params={"min_position": 1 + len(accepted)})
        assert shown.json()["amount"] == len(accepted)


async def test_a_command_that_waits_too_long_is_told_so_and_changed_nothing(postgres_dsn: str) -> None:
    settings = Settings(database_url=postgres_dsn, port=0, batch_size_max=1, command_timeout_seconds=1.0)
    async with bank_client(settings) as client:
        account = await opened(client)
        with psycopg.connect(postgres_dsn) as connection:
            connection.execute("UPDATE log_head SET position = position")
            posts = (client.post(f"{account}/credit", json={"amount": 1}) for _ in range(5))
            replies = await asyncio.gather(*posts)
        codes = [reply.json()["code"] for reply in replies]
        assert codes.count("deadline_exceeded") >= 3
        for reply in replies:
            if reply.json()["code"] == "deadline_exceeded":
                problem(reply, 503, "deadline_exceeded")
                assert "Retry-After" in reply.headers


def test_a_handler_that_asks_for_the_bare_executor_is_told_when_the_app_is_made() -> None:
    @post("/")
    async def route(executor: NamedDependency[Executor]) -> None:
        """It would forget the request's key."""

    with pytest.raises(ImproperlyConfiguredException, match="executor"):
        Litestar([route], plugins=[CqrskitPlugin(bank, Settings())])
