"""API keys over HTTP, for any application: what is let in, what is refused, and what is told and logged of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from litestar import Litestar, Response, WebSocket, get, post, websocket
from litestar.di import NamedDependency
from litestar.params import JSONBody
from structlog.testing import capture_logs

from cqrskit import ConfigurationError, Scope, Settings, new_id
from cqrskit.access import make_api_key
from cqrskit.application import Runtime
from cqrskit.testing import RestartablePostgres, eventually
from cqrskit.web import Commands, CqrskitPlugin, command_reply, needs_scope, open_to_all, plugin_of
from tests.acceptance.api import bearer
from tests.integration.bank import ROUTES, Done, Open, OpenBody, bank
from tests.integration.running_processes import bank_client
from tests.integration.test_web import problem


@post("/questions", opt=needs_scope("read"), status_code=200)
async def question_route() -> str:
    """A question that is too long for a URL."""
    return "answer"


@get("/operate", opt=needs_scope("admin"))
async def operate_route() -> str:
    """For operators."""
    return "done"


@get("/greeting", opt=open_to_all())
async def greeting_route() -> str:
    """For everybody."""
    return "hello"


def locked_app(settings: Settings) -> Litestar:
    """The bank, which only those enter who have a key."""
    routes = [*ROUTES, question_route, operate_route, greeting_route]
    return Litestar(routes, plugins=[CqrskitPlugin(bank, settings, api_keys=True)])


@asynccontextmanager
async def locked_bank(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Runtime]]:
    """A client of it without a key, and what makes keys."""
    app = locked_app(settings)
    async with bank_client(settings, app) as client:
        yield client, plugin_of(app).runtime


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, port=0)


@pytest.fixture
async def bank_at_work(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Runtime]]:
    async with locked_bank(settings) as at_work:
        yield at_work


AtWork = tuple[httpx.AsyncClient, Runtime]


async def key_of(runtime: Runtime, *scopes: Scope, name: str = "shop") -> dict[str, str]:
    """The header with a new key."""
    return bearer((await runtime.api_keys.make(name, scopes or Scope)).text)


async def test_a_request_without_a_key_is_told_how_to_show_one(bank_at_work: AtWork) -> None:
    client, _ = bank_at_work
    reply = await client.get("/accounts")
    assert "Authorization: Bearer" in str(problem(reply, 401, "unauthenticated")["detail"])
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert "X-Correlation-ID" in reply.headers


async def test_what_is_no_usable_key_is_refused_and_not_told_why(bank_at_work: AtWork) -> None:
    client, runtime = bank_at_work
    good = (await runtime.api_keys.make("shop", Scope)).text
    revoked = await runtime.api_keys.make("shop", Scope)
    await runtime.api_keys.revoke(revoked.key.id)
    expired = await runtime.api_keys.make("shop", Scope, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    unknown = make_api_key("shop", Scope).text
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    shown = [f"Bearer {each}" for each in (revoked.text, expired.text, unknown, wrong, good + "x", "x")]
    shown += [f"Bearer  {good}"]
    told = set()
    for header in shown:
        reply = await client.get("/accounts", headers={"Authorization": header})
        told.add(problem(reply, 401, "unauthenticated")["detail"])
        assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert len(told) == 1
    for header in (f"Bearer {good}", f"bearer {good}", f"BEARER {good}"):
        assert (await client.get("/accounts", headers={"Authorization": header})).status_code == 200


async def test_a_scheme_other_than_bearer_is_named_as_the_mistake_and_what_was_sent_is_not_repeated(
    bank_at_work: AtWork,
) -> None:
    client, runtime = bank_at_work
    good = (await runtime.api_keys.make("shop", Scope)).text
    shown = [f"Basic {good}", f"Token {good}", good, f"Bearer{good}", "Bearer", ""]
    for headers in [[("Authorization", each)] for each in shown] + [[("Authorization", f"Bearer {good}")] * 2]:
        reply = await client.get("/accounts", headers=headers)
        assert "must be Bearer" in str(problem(reply, 401, "unauthenticated")["detail"])
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert not any(part in str(reply.headers) + reply.text for part in (good, "Basic", "Token"))


async def test_the_api_description_says_how_to_show_a_key_and_where_none_is_needed(bank_at_work: AtWork) -> None:
    client, runtime = bank_at_work
    described = (await client.get("/schema/openapi.json", headers=await key_of(runtime))).json()
    assert described["security"] == [{"api_key": []}]
    scheme = described["components"]["securitySchemes"]["api_key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert described["paths"]["/health/live"]["get"]["security"] == [{}]


async def test_scopes_open_what_they_name_and_nothing_else(bank_at_work: AtWork) -> None:
    client, runtime = bank_at_work
    calls = [
        ("GET", "/accounts", Scope.READ),
        ("OPTIONS", "/accounts", Scope.READ),
        ("GET", "/schema/openapi.json", Scope.READ),
        ("POST", "/questions", Scope.READ),
        ("POST", "/accounts", Scope.WRITE),
        ("GET", "/operate", Scope.ADMIN),
    ]
    for scope in Scope:
        headers = await key_of(runtime, scope)
        for method, path, needed in calls:
            body = {"owner": "Ann"} if needed is Scope.WRITE else None
            reply = await client.request(method, path, headers=headers, json=body)
            if needed is scope:
                assert reply.status_code < 300, (method, path, reply.text)
                continue
            assert f"with the scope {needed.value!r}," in str(problem(reply, 403, "forbidden")["detail"])
            assert reply.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'


async def test_what_is_open_to_all_needs_no_key_and_minds_none(bank_at_work: AtWork) -> None:
    client, _ = bank_at_work
    for path in ("/greeting", "/health/live", "/health/ready"):
        assert (await client.get(path)).status_code == 200
        assert (await client.get(path, headers=bearer("nonsense"))).status_code == 200


async def test_a_key_works_at_once_and_is_refused_soon_after_it_was_revoked(bank_at_work: AtWork) -> None:
    client, runtime = bank_at_work
    made = await runtime.api_keys.make("shop", Scope)
    headers = bearer(made.text)
    assert (await client.get("/accounts", headers=headers)).status_code == 200
    await runtime.api_keys.revoke(made.key.id)

    async def refused() -> bool:
        return (await client.get("/accounts", headers=headers)).status_code == 401

    await eventually(refused, timeout_seconds=3)


async def test_the_name_of_the_key_is_the_actor_of_every_event_and_nobody_can_say_another(
    bank_at_work: AtWork, postgres_dsn: str
) -> None:
    client, runtime = bank_at_work
    for name in ("shop", "till"):
        headers = {**await key_of(runtime, name=name), "X-Actor": "boss", "Actor": "boss"}
        body = {"owner": "Ann", "actor": "boss"}
        assert (await client.post("/accounts", json=body, headers=headers)).status_code == 400
        assert (await client.post("/accounts", json={"owner": "Ann"}, headers=headers)).status_code == 201
    with psycopg.connect(postgres_dsn) as connection:
        found = connection.execute("SELECT metadata FROM events ORDER BY position").fetchall()
    assert [json.loads(bytes(metadata))["actor"] for (metadata,) in found] == ["shop", "till"]


@pytest.mark.parametrize("idempotency_key", ["k", "k" * 255])
async def test_an_idempotency_key_belongs_to_its_actor(bank_at_work: AtWork, idempotency_key: str) -> None:
    client, runtime = bank_at_work
    headers = {"Idempotency-Key": idempotency_key}
    shop, again, till = [{**await key_of(runtime, name=name), **headers} for name in ("shop", "shop", "till")]
    first = await client.post("/accounts", json={"owner": "Ann"}, headers=shop)
    assert first.status_code == 201
    retried = await client.post("/accounts", json={"owner": "Ann"}, headers=again)
    assert (retried.status_code, retried.content) == (200, first.content)
    other = await client.post("/accounts", json={"owner": "Ann"}, headers=till)
    assert (other.status_code, other.content != first.content) == (201, True)
    conflict = problem(await client.post("/accounts", json={"owner": "Ben"}, headers=shop), 409, "idempotency_conflict")
    if len(idempotency_key) == 1:
        assert conflict["details"] == {"key": "k", "field": "owner"}
        assert "shop" not in str(conflict)


@post("/openings", opt=open_to_all())
async def opening_route(data: JSONBody[OpenBody], commands: NamedDependency[Commands]) -> Response[Done]:
    """Everybody may open an account."""
    account_id = data.account_id or new_id()
    result = await commands.execute(Open(account_id=account_id, owner=data.owner))
    return command_reply(Done(account_id, result.position), result)


async def test_nobody_gets_the_reply_of_a_key_by_naming_it_where_no_key_is_needed(settings: Settings) -> None:
    app = Litestar([*ROUTES, opening_route], plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
    async with bank_client(settings, app) as client:
        shop = {**await key_of(plugin_of(app).runtime), "Idempotency-Key": "order-1"}
        first = await client.post("/accounts", json={"owner": "Ann"}, headers=shop)
        assert first.status_code == 201
        for named in ("@shop order-1", "order-1", "@shop blake2b:" + "0" * 64):
            anonymous = {"Idempotency-Key": named}
            reply = await client.post("/openings", json={"owner": "Ann"}, headers=anonymous)
            assert (reply.status_code, reply.json()["account_id"] in first.text) == (201, False)
            again = await client.post("/openings", json={"owner": "Ann"}, headers=anonymous)
            assert (again.status_code, again.content) == (200, reply.content)
            other = await client.post("/openings", json={"owner": "Ben"}, headers=anonymous)
            assert problem(other, 409, "idempotency_conflict")["details"] == {"key": named, "field": "owner"}
        retried = await client.post("/accounts", json={"owner": "Ann"}, headers=shop)
        assert (retried.status_code, retried.content) == (200, first.content)


async def test_a_key_that_asks_too_often_is_told_when_to_come_back_and_no_other_is(settings: Settings) -> None:
    limited = msgspec.structs.replace(settings, rate_limit_requests_per_second=0.5, rate_limit_burst_requests=3)
    async with locked_bank(limited) as (client, runtime):
        headers, others = await key_of(runtime), await key_of(runtime)

        replies: list[httpx.Response] = []

        async def status() -> int:
            replies.append(await client.get("/schema/openapi.json", headers=headers))
            return replies[-1].status_code

        async def is_refused() -> bool:
            return await status() == 429

        async def is_answered() -> bool:
            return await status() == 200

        await eventually(is_refused)
        assert [reply.status_code for reply in replies[:3]] == [200] * 3
        problem(replies[-1], 429, "rate_limited")
        assert replies[-1].headers["Retry-After"] in ("1", "2")
        assert (await client.get("/accounts", headers=others)).status_code == 200
        await eventually(is_answered)
        assert (await client.get("/health/live")).status_code == 200


async def test_a_key_is_in_no_log_and_in_no_reply(bank_at_work: AtWork, caplog: pytest.LogCaptureFixture) -> None:
    client, runtime = bank_at_work
    made, revoked = [await runtime.api_keys.make("shop", [Scope.READ]) for _ in range(2)]
    await runtime.api_keys.revoke(revoked.key.id)
    wrong = make_api_key("shop", Scope)
    replies = []
    with capture_logs() as logs:
        for text in (made.text, revoked.text, wrong.text, made.text + "x", made.text[:-3]):
            for method, path in (("GET", "/accounts"), ("GET", "/broken"), ("POST", "/accounts"), ("GET", "/nothing")):
                replies.append(await client.request(method, path, headers=bearer(text)))
    said = [str(reply.headers) + reply.text for reply in replies] + [str(logs), caplog.text]
    for text in (made.text, revoked.text, wrong.text):
        assert not any(text[21:-3] in each for each in said)
    refused = [each for each in logs if each["event"] == "access.key_refused"]
    assert {each["key_id"] for each in refused} == {revoked.key.id, wrong.key.id}
    assert {each["reason"] for each in refused} == {"it is revoked", "there is no such key"}


async def test_the_log_says_that_nobody_can_enter_until_there_is_a_key(settings: Settings) -> None:
    for keys in (0, 1):
        with capture_logs() as logs:
            async with locked_bank(settings) as (_, runtime):
                await key_of(runtime)
        assert [each["event"] for each in logs].count("access.no_keys") == 1 - keys


async def test_an_app_that_makes_a_key_at_its_start_is_not_told_that_it_has_none(settings: Settings) -> None:
    async def make_key(app: Litestar) -> None:
        await plugin_of(app).runtime.api_keys.make("shop", Scope)

    app = Litestar(ROUTES, plugins=[CqrskitPlugin(bank, settings, api_keys=True)], on_startup=[make_key])
    with capture_logs() as logs:
        async with bank_client(settings, app):
            pass
    assert "service.started" in [each["event"] for each in logs]
    assert "access.no_keys" not in [each["event"] for each in logs]


async def test_known_keys_go_on_while_postgres_is_down_and_others_are_told_that_it_is(
    restartable_postgres: RestartablePostgres, restartable_postgres_dsn: str
) -> None:
    settings = Settings(database_url=restartable_postgres_dsn, port=0, connect_timeout_seconds=1.0)
    async with locked_bank(settings) as (client, runtime):
        known, other = await key_of(runtime), await key_of(runtime)
        assert (await client.get("/schema/openapi.json", headers=known)).status_code == 200
        restartable_postgres.shut_down()

        async def unavailable() -> bool:
            return (await client.get("/schema/openapi.json", headers=other)).status_code == 503

        await eventually(unavailable, timeout_seconds=20)
        problem(await client.get("/schema/openapi.json", headers=other), 503, "server_unavailable")
        assert (await client.get("/schema/openapi.json", headers=known)).status_code == 200
        restartable_postgres.start_again()

        async def back() -> bool:
            return (await client.get("/schema/openapi.json", headers=other)).status_code == 200

        await eventually(back, timeout_seconds=30)


# --- wiring


async def test_a_route_whose_scope_nothing_tells_stops_the_start(settings: Settings) -> None:
    @websocket("/live")
    async def live(socket: WebSocket[Any, Any, Any]) -> None: ...

    app = Litestar([live], plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
    with pytest.raises(ConfigurationError, match="/live"):
        async with bank_client(settings, app):
            pass


@pytest.mark.parametrize("scopes", [None, [Scope.WRITE], [Scope.READ]])
async def test_a_websocket_is_opened_only_by_a_key_with_its_scope(
    settings: Settings, scopes: list[Scope] | None
) -> None:
    @websocket("/live", opt=needs_scope("read"))
    async def live(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.close()

    app = Litestar([live], plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
    async with bank_client(settings, app):
        keys = plugin_of(app).runtime.api_keys
        text = None if scopes is None else (await keys.make("shop", scopes)).text
        headers = [] if text is None else [(b"authorization", f"Bearer {text}".encode())]
        scope = {
            "type": "websocket",
            "path": "/live",
            "raw_path": b"/live",
            "root_path": "",
            "scheme": "ws",
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
            "extensions": {},
            "app": app,
            "client": ("here", 1),
            "server": ("here", 2),
            "http_version": "1.1",
            "state": {},
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app(scope, receive, send)  # type: ignore[arg-type]
    assert ("websocket.accept" in sent) is (scopes == [Scope.READ])
    assert sent[-1] == "websocket.close"


def test_wrong_wiring_is_refused_at_once(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="'root'"):
        needs_scope("root")
    with pytest.raises(ConfigurationError, match="actor"):
        CqrskitPlugin(bank, settings, api_keys=True, actor=lambda _: "me")
