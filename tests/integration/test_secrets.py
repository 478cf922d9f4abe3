"""No password and no key comes out, in logs, errors, tracebacks, replies, metrics or traces, whatever goes wrong."""

import asyncio
import base64
import io
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog
from litestar import Litestar

from cqrskit import Scope, Settings
from cqrskit.telemetry import configure_logging
from cqrskit.testing import CuttableWire, eventually
from cqrskit.web import CqrskitPlugin, plugin_of
from tests.acceptance.api import bearer
from tests.integration.bank import ROUTES, bank
from tests.integration.guarded_database import guarded_database, url_with_password
from tests.integration.running_processes import bank_client, cqrskit
from tests.integration.traces import Traces, the_traces

PASSWORD, SEARCH_PASSWORD, SEARCH_KEY = "s3cret/of the database", "s3cret/of the search", "c2VjcmV0OmtleQ-of-search"
CLOSED = "127.0.0.1:1"
"""Nobody listens there."""


def forms_of(secret: str) -> set[str]:
    """What a secret looks like in URLs and in headers."""
    encoded = {base64.b64encode(each.encode()).decode().rstrip("=") for each in (f"elastic:{secret}", secret)}
    return {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], *encoded}


def require_none_of(secrets: set[str], text: str) -> None:
    """No secret is in the text, in whatever form."""
    assert text, "there is something to search"
    for secret in secrets:
        for form in forms_of(secret):
            at = text.find(form)
            assert at < 0, f"a secret is told: …{text[max(0, at - 200) : at]}"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A database that asks for a password; the URL of a user of it, with a wrong one."""
    with guarded_database() as url:
        yield url_with_password(url, PASSWORD)


DATABASES = {
    "nobody listens": f"postgresql://ann:{quote(PASSWORD, safe='')}@{CLOSED}/bank",
    "no such host": f"postgresql://ann:{quote(PASSWORD, safe='')}@nowhere.invalid/bank",
    "a port that is none": f"postgresql://ann:{quote(PASSWORD, safe='')}@localhost:port/bank",
    "in the query": f"postgresql://{CLOSED}/bank?user=ann&password={quote(PASSWORD, safe='')}",
    "as words": f"host=127.0.0.1 port=1 user=ann password='{PASSWORD}'",
    "an option that does not exist": f"postgresql://ann:{quote(PASSWORD, safe='')}@{CLOSED}/bank?optoin=1",
}
STATUS, MIGRATE = ("status", "--app", "tests.integration.bank:bank"), ("migrate",)
CASES: list[tuple[str, tuple[str, ...]]] = [(kind, STATUS) for kind in ("a wrong password", *DATABASES)]
CASES += [(kind, MIGRATE) for kind in ("a wrong password", "nobody listens", "as words")]


@pytest.mark.parametrize(("kind", "command"), CASES, ids=[f"{kind}-{command[0]}" for kind, command in CASES])
async def test_a_database_that_cannot_be_used_is_named_without_its_password(
    kind: str, command: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    url = DATABASES.get(kind) or request.getfixturevalue("guarded")
    variables = {"CQRSKIT_DATABASE_URL": url, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "2"}
    finished = await cqrskit(*command, "--debug", variables=variables)
    assert finished.code in (2, 3), finished
    if kind == "a wrong password":
        assert "password authentication failed" in finished.err
    require_none_of({PASSWORD}, finished.out + finished.err)


SEARCHES: dict[str, dict[str, str]] = {
    "nobody listens": {"URL": f"http://elastic:{quote(SEARCH_PASSWORD, safe='')}@{CLOSED}"},
    "nobody listens to a key": {"URL": f"http://{CLOSED}", "API_KEY": SEARCH_KEY},
    "a port that is none": {"URL": f"http://elastic:{quote(SEARCH_PASSWORD, safe='')}@localhost:port"},
    "another scheme": {"URL": f"ftp://elastic:{quote(SEARCH_PASSWORD, safe='')}@localhost"},
    "both": {"URL": f"http://elastic:{quote(SEARCH_PASSWORD, safe='')}@{CLOSED}", "API_KEY": SEARCH_KEY},
    "no https": {"URL": f"https://elastic:{quote(SEARCH_PASSWORD, safe='')}@{CLOSED}"},
    "a key that is none": {"URL": f"http://{CLOSED}", "API_KEY": f"{SEARCH_KEY} {SEARCH_PASSWORD}"},
}


@pytest.mark.parametrize("kind", list(SEARCHES))
async def test_an_elasticsearch_that_cannot_be_used_is_named_without_password_and_key(
    kind: str, postgres_dsn: str
) -> None:
    said = {f"CQRSKIT_ELASTICSEARCH_{name}": value for name, value in SEARCHES[kind].items()}
    variables = {"CQRSKIT_DATABASE_URL": postgres_dsn, "CQRSKIT_CONNECT_TIMEOUT_SECONDS": "2", **said}
    finished = await cqrskit("status", "--app", "tests.integration.bank:bank", "--debug", variables=variables)
    assert finished.code in (2, 3), finished
    require_none_of({SEARCH_PASSWORD, SEARCH_KEY}, finished.out + finished.err)


class Terminal(io.StringIO):
    """Says that somebody looks at it, which makes the longest tracebacks."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["lines of JSON", "a terminal"])
def logged(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """All that is logged, by us and by libraries."""
    stream: io.StringIO = request.param()
    root = logging.getLogger()
    handlers, level, config = list(root.handlers), root.level, structlog.get_config()
    configure_logging("debug", stream)
    root.setLevel(logging.WARNING)
    yield stream
    structlog.configure(**config)
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def traces() -> Traces:
    return the_traces()


async def told_by(client: httpx.AsyncClient, *requests: tuple[str, str, dict[str, Any]]) -> str:
    """All that the replies to these requests say."""
    replies = await asyncio.gather(*(client.request(method, path, **more) for method, path, more in requests))
    return "\n".join(f"{reply.status_code} {reply.headers!r} {reply.text}" for reply in replies)


async def test_a_service_in_trouble_tells_no_secret(postgres_dsn: str, logged: io.StringIO, traces: Traces) -> None:
    async with CuttableWire(postgres_dsn) as wire:
        url = wire.url.replace("postgres@", "").replace("://", f"://postgres:{quote(PASSWORD, safe='')}@", 1)
        settings = Settings(database_url=url, port=0, metrics_open=True, tracing=True, lease_seconds=1.0)
        app = Litestar(ROUTES, plugins=[CqrskitPlugin(bank, settings, api_keys=True)])
        async with bank_client(settings, app) as client:
            keys = plugin_of(app).runtime.api_keys
            good, weak = await keys.make("shop", [Scope.WRITE, Scope.READ]), await keys.make("eyes", [Scope.READ])
            gone = await keys.make("gone", [Scope.READ])
            await keys.revoke(gone.key.id)
            wrong = good.text[:-4] + "AAAA"
            secrets = {PASSWORD, good.text, weak.text, gone.text, wrong, "of the house"}
            open_account = {"json": {"owner": "Ann"}}
            said = await told_by(
                client,
                ("POST", "/accounts", {**open_account, "headers": bearer(good.text)}),
                ("POST", "/accounts", {**open_account, "headers": bearer(weak.text)}),
                ("POST", "/accounts", {**open_account, "headers": bearer(wrong)}),
                ("GET", "/accounts", {"headers": bearer(gone.text)}),
                ("GET", "/accounts", {"headers": {"X-API-Key": good.text}}),
                ("GET", "/accounts", {"params": {"api_key": good.text}}),
                ("GET", "/broken", {"headers": bearer(good.text)}),
                ("GET", "/metrics", {}),
            )
            await wire.cut()
            said += await told_by(client, ("POST", "/accounts", {**open_account, "headers": bearer(good.text)}))
            said += await told_by(client, ("GET", "/accounts", {"headers": bearer(good.text)}), ("GET", "/metrics", {}))
            said += await told_by(client, ("GET", "/health/ready", {}))
            await eventually(lambda: "listener.disconnected" in logged.getvalue(), timeout_seconds=30)
            await eventually(lambda: "worker.waits_for_server" in logged.getvalue(), timeout_seconds=30)
            await wire.mend()
    assert "request.failed" in logged.getvalue()
    assert "access.key_refused" in logged.getvalue()
    require_none_of(secrets - {"of the house"}, logged.getvalue())
    require_none_of(secrets, said)
    require_none_of(secrets, "".join(span.to_json() for span in traces.all()))
