"""The Litestar plugin: replies, positions, and every kind of bad request."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import psycopg
import pytest

from cqrskit import Settings
from cqrskit.testing import eventually
from tests.integration.running_processes import bank_client

BODY_SIZE_MAX_BYTES = 100_000


@pytest.fixture
async def client(postgres_dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running bank."""
    settings = Settings(
        database_url=postgres_dsn, port=0, body_size_max_bytes=BODY_SIZE_MAX_BYTES, wait_timeout_seconds=2.0
    )
    async with bank_client(settings) as client:
        yield client


async def opened(client: httpx.AsyncClient) -> str:
    """The path of a new account."""
    reply = await client.post("/accounts", json={"owner": "Ann"})
    assert reply.status_code == 201, reply.text
    return f"/accounts/{reply.json()['account_id']}"


def problem(reply: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The reply's problem, after the checks that hold for every problem."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = reply.json()
    assert (found["status"], found["code"], found["type"]) == (status, code, "about:blank")
    assert found["title"]
    assert found["instance"] == reply.request.url.path
    return found


async def test_a_reader_that_sends_its_position_back_sees_its_own_write(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    for amount in range(1, 30):
        credited = await client.post(f"{account}/credit", json={"amount": 1})
        position = credited.headers["Consistency-Position"]
        assert position == str(credited.json()["position"])
        shown = await client.get(account, headers={"Consistency-Position": position})
        assert shown.json()["amount"] == amount
        assert shown.json()["as_of_position"] >= int(position)
        listed = await client.get("/accounts", params={"min_position": position})
        assert listed.json()["as_of_position"] >= int(position)


async def test_a_position_beyond_the_log_is_refused_at_once(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    found = problem(await client.get(account, params={"min_position": 999}), 400, "invalid_request")
    assert "beyond the log" in str(found["detail"])
    headers = {"Consistency-Position": "1"}
    problem(await client.get(account, params={"min_position": 999}, headers=headers), 400, "invalid_request")


@pytest.mark.parametrize("position", ["-1", "1.5", "abc", "9223372036854775808", ""])
@pytest.mark.parametrize("place", ["header", "query"])
async def test_a_malformed_position_is_refused(client: httpx.AsyncClient, position: str, place: str) -> None:
    if place == "header":
        reply = await client.get("/accounts", headers={"Consistency-Position": position})
        field = "Consistency-Position"
    else:
        reply = await client.get(f"/accounts?min_position={position}")
        field = "min_position"
    found = problem(reply, 400, "invalid_request")
    assert field in str(found["errors"])


async def test_an_empty_body_is_told_to_be_missing(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    reply = await client.post(f"{account}/credit", content=b"", headers={"Content-Type": "application/json"})
    assert problem(reply, 400, "invalid_request")["detail"] == "the body is missing: this route reads JSON"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"amount": "many"}', "amount"),
        (b'{"amount": 1.5}', "amount"),
        (b'{"amount": null}', "amount"),
        (b'{"amount": -5}', "amount"),
        (b'{"amount": 0}', "amount"),
        (b'{"amount": 9223372036854775808}', "amount"),
        (b'{"amount": 1, "colour": "red"}', "colour"),
        (b"{}", "amount"),
        (b"[1]", ""),
    ],
)
async def test_a_wrong_body_is_refused_and_the_field_named(client: httpx.AsyncClient, body: bytes, field: str) -> None:
    account = await opened(client)
    reply = await client.post(f"{account}/credit", content=body, headers={"Content-Type": "application/json"})
    found = problem(reply, 400, "invalid_request")
    assert field in str(found["detail"])
    (error,) = reply.json()["errors"]
    assert error["field"] == field
    shown = await client.get(account, params={"min_position": 1})
    assert shown.json()["amount"] == 0


@pytest.mark.parametrize("body", [b'{"amount": ', b"", b"\xff\xfe", b"[" * 50_000])
async def test_malformed_json_is_a_bad_request(client: httpx.AsyncClient, body: bytes) -> None:
    account = await opened(client)
    reply = await client.post(f"{account}/credit", content=body, headers={"Content-Type": "application/json"})
    problem(reply, 400, "invalid_request")


async def test_a_body_of_another_media_type_is_refused(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    problem(await client.post(f"{account}/credit", data={"amount": "5"}), 415, "unsupported_media_type")


@pytest.mark.parametrize("pieces_sent", [2, 200])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_20_mb_or_just_above_the_limit_is_refused_however_it_is_sent(
    client: httpx.AsyncClient, chunked: bool, pieces_sent: int
) -> None:
    account = await opened(client)
    piece = b" " * BODY_SIZE_MAX_BYTES

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(pieces_sent):
            yield piece

    headers = {"Content-Type": "application/json"}
    content = pieces() if chunked else piece * pieces_sent
    reply = await client.post(f"{account}/credit", content=content, headers=headers)
    found = problem(reply, 413, "body_too_large")
    assert str(BODY_SIZE_MAX_BYTES) in str(found["detail"])


async def test_unknown_paths_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nowhere"), 404, "not_found")
    problem(await client.get("/accounts/not-a-uuid"), 404, "not_found")
    problem(await client.get(f"/accounts/{uuid4()}"), 404, "not_found")
    problem(await client.delete("/accounts"), 405, "method_not_allowed")


async def test_options_name_all_methods_of_a_path(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    for path, methods in [
        ("/accounts", "GET, OPTIONS, POST"),
        (account, "GET, OPTIONS"),
        ("/health/live", "GET, OPTIONS"),
    ]:
        reply = await client.options(path)
        assert (reply.status_code, reply.headers["Allow"]) == (204, methods), path


async def test_refusals_get_the_status_that_the_table_the_app_and_the_route_give(
    client: httpx.AsyncClient,
) -> None:
    account = await opened(client)
    closed = problem(await client.post(f"{account}/credit", json={"amount": 13}), 409, "account_closed")
    assert closed["details"] == {"account_id": account.removeprefix("/accounts/")}
    problem(await client.post(f"{account}/credit", json={"amount": 2_000_000}), 413, "over_limit")
    problem(await client.post(f"/accounts/{uuid4()}/credit", json={"amount": 1}), 404, "not_found")
    again = {"owner": "Bob", "account_id": account.removeprefix("/accounts/")}
    problem(await client.post("/accounts", json=again), 409, "already_exists")
    problem(await client.get("/accounts", params={"limit": 5_000}), 400, "invalid_query")


async def test_a_parked_document_and_documents_of_other_code_are_problems_of_their_own(
    client: httpx.AsyncClient, postgres_dsn: str
) -> None:
    account = await opened(client)
    key = account.removeprefix("/accounts/")
    shown = await client.get(account, params={"min_position": 1})
    assert shown.status_code == 200
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute(
            "INSERT INTO parked_keys (projection, generation, key, position, error, owner) "
            "VALUES ('balances', 1, %s, 1, 'told', %s)",
            [key, key],
        )

    async def refused() -> bool:
        return (await client.get(account, params={"min_position": 1})).status_code == 409

    await eventually(refused)
    reply = await client.get(account, params={"min_position": 1})
    found = problem(reply, 409, "document_parked")
    assert key in str(found["detail"])
    assert "Retry-After" not in reply.headers
    assert (await client.get(account)).json() == shown.json()
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute("UPDATE generations SET shape = 'another'")

    async def unreadable() -> bool:
        return (await client.get("/accounts")).status_code == 503

    await eventually(unreadable)
    reply = await client.get("/accounts")
    problem(reply, 503, "rebuild_required")
    assert "Retry-After" not in reply.headers
    assert "cqrskit rebuild" not in reply.text, "that is for operators, not for callers"


async def test_an_unexpected_error_shows_a_reference_and_nothing_of_the_inside(client: httpx.AsyncClient) -> None:
    account = await opened(client)
    for reply, code in (
        (await client.get("/broken"), "internal_error"),
        (await client.post(f"{account}/credit", json={"amount": 666}), "command_failed"),
    ):
        found = problem(reply, 500, code)
        assert found["reference"]
        assert "secret" not in reply.text
        assert "ZeroDivision" not in reply.text


async def test_health_and_the_api_description_are_there(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "live"}
    await opened(client)
    ready = await client.get("/health/ready")
    assert ready.status_code == 200
    (balances,) = ready.json()["projections"]
    assert balances["name"] == "balances"
    assert balances["head"] == 1
    description = (await client.get("/schema/openapi.json")).json()
    assert description["info"]["title"] == "bank"
    parameters = description["paths"]["/accounts"]["get"]["parameters"]
    assert {"min_position", "Consistency-Position"} <= {each.get("name") for each in parameters}


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_no_failure_of_the_service(
    client: httpx.AsyncClient,
) -> None:
    begun = b'POST /accounts HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"o'
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(begun)
    await writer.drain()
    writer.close()

    async def counted() -> list[str]:
        lines = (await client.get("/metrics")).text.splitlines()
        return [line for line in lines if line.startswith("cqrskit_http_requests_total") and "POST" in line]

    assert await eventually(counted) == [
        'cqrskit_http_requests_total{method="POST",route="/accounts",status="400"} 1.0'
    ]
