"""Traces on a real Postgres, seen by OpenTelemetry's own exporter: from a request to the documents that it changes."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import httpx
import msgspec
import psycopg
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs

from cqrskit import Metadata, Settings
from cqrskit.spans import SPANS
from cqrskit.testing import eventually
from tests.integration.bank import Balances, Open, bank
from tests.integration.counting import Grow
from tests.integration.reminding import GrowLater, opened
from tests.integration.running_processes import ROOT, Finished, bank_client, environment, finish
from tests.integration.test_reactions import mirroring
from tests.integration.traces import Traces, context, the_traces

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, LEFT_OUT = f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b7-00"


@pytest.fixture
def traces() -> Traces:
    return the_traces()


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, port=0, tracing=True)


@pytest.fixture
async def client(settings: Settings, traces: Traces) -> AsyncIterator[httpx.AsyncClient]:
    async with bank_client(settings) as client:
        yield client


async def projected(traces: Traces, count: int = 1) -> ReadableSpan:
    """The last span of the projection, once there are so many."""
    await eventually(lambda: len(traces.named("project balances")) >= count, timeout_seconds=30)
    return traces.named("project balances")[-1]


def trace_parents(settings: Settings) -> list[str | None]:
    """Of which command each event says that it comes."""
    with psycopg.connect(str(settings.database_url)) as connection:
        rows = connection.execute("SELECT metadata FROM events ORDER BY position").fetchall()
    return [json.loads(bytes(metadata)).get("trace_parent") for (metadata,) in rows]


async def test_one_request_is_one_trace_from_its_headers_to_the_documents(
    client: httpx.AsyncClient, traces: Traces, settings: Settings
) -> None:
    reply = await client.post("/accounts", json={"owner": "Ann"}, headers={"traceparent": SAMPLED})
    assert reply.status_code == 201
    block = await projected(traces)
    assert traces.way_up(traces.one("append")) == ["append", "command Open", "POST /accounts"]
    assert traces.way_up(traces.one("queue")) == ["queue", "command Open", "POST /accounts"]
    assert traces.way_up(traces.one("decide")) == ["decide", "command Open", "POST /accounts"]
    assert traces.way_up(traces.one("write")) == ["write", "project balances", "command Open", "POST /accounts"]
    assert traces.way_up(traces.one("fold")) == ["fold", "project balances", "command Open", "POST /accounts"]
    request, command = traces.one("POST /accounts"), traces.one("command Open")
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert {f"{span.context.trace_id:032x}" for span in traces.all() if span.context} == {TRACE}
    assert trace_parents(settings) == [f"00-{TRACE}-{context(command):016x}-01"]
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/accounts",
        "http.response.status_code": 201,
        "url.path": "/accounts",
        "url.scheme": "http",
    }
    assert dict(command.attributes or {}) == {
        "cqrskit.command": "Open",
        "cqrskit.command.outcome": "accepted",
        "cqrskit.command.position": 1,
    }
    assert dict(block.attributes or {}) == {
        "cqrskit.projection": "balances",
        "cqrskit.projection.partition": 0,
        "cqrskit.projection.events": 1,
    }


async def test_phases_lie_within_their_command_and_follow_one_another(
    client: httpx.AsyncClient, traces: Traces
) -> None:
    await client.post("/accounts", json={"owner": "Ann"})
    command = traces.one("command Open")
    phases = [traces.one(name) for name in ("queue", "decide", "append")]
    times = [command.start_time, *(moment for each in phases for moment in (each.start_time, each.end_time))]
    assert times == sorted(times, key=lambda moment: moment or 0)
    assert (phases[-1].end_time or 0) <= (command.end_time or 0)


async def test_a_trace_that_its_sender_left_out_is_left_out_here_and_told_to_whoever_comes_after(
    client: httpx.AsyncClient, traces: Traces, settings: Settings
) -> None:
    reply = await client.post("/accounts", json={"owner": "Ann"}, headers={"traceparent": LEFT_OUT})
    account = reply.json()["account_id"]
    shown = await client.get(f"/accounts/{account}", params={"min_position": 1}, headers={"traceparent": LEFT_OUT})
    assert shown.status_code == 200
    assert traces.all() == ()
    (trace_parent,) = trace_parents(settings)
    assert trace_parent is not None
    assert re.fullmatch(rf"00-{TRACE}-(?!00f067aa0ba902b7)[0-9a-f]{{16}}-00", trace_parent)


async def test_the_commands_of_a_block_are_what_its_span_is_a_part_of_or_linked_to(
    settings: Settings, traces: Traces
) -> None:
    async with bank.open(settings, projections=["balances"]) as runtime:
        await runtime.executor.execute_many([Open(account_id=uuid4(), owner=str(number)) for number in range(20)])

        async def all_are_projected() -> bool:
            blocks = traces.named("project balances")
            return sum((block.attributes or {})["cqrskit.projection.events"] for block in blocks) == 20  # type: ignore[misc]

        await eventually(all_are_projected, timeout_seconds=30)
    blocks = traces.named("project balances")
    parents = [block.parent.span_id for block in blocks if block.parent]
    links = [link.context.span_id for block in blocks for link in block.links]
    assert sorted(parents + links) == sorted(map(context, traces.named("command Open")))
    assert len(parents) == len(blocks) < 20


async def test_refusals_are_no_errors_and_failures_are_named_by_their_kind_only(
    client: httpx.AsyncClient, traces: Traces
) -> None:
    account = (await client.post("/accounts", json={"owner": "Ann"})).json()["account_id"]
    await projected(traces)
    traces.clear()
    for amount in (2_000_000, 666):
        await client.post(f"/accounts/{account}/credit", json={"amount": amount})
    refused, failed = traces.named("command Credit")
    assert (refused.attributes or {})["cqrskit.command.refusal"] == "over_limit"
    assert refused.status.status_code is StatusCode.UNSET
    assert (failed.attributes or {})["error.type"] == "CommandFailed"
    assert failed.status.status_code is StatusCode.ERROR
    too_large, broken = traces.named("POST /accounts/{account_id}/credit")
    assert (too_large.attributes or {})["http.response.status_code"] == 413
    assert too_large.status.status_code is StatusCode.UNSET
    assert (broken.attributes or {})["error.type"] == "500"
    assert "secret of the house" not in "".join(span.to_json() for span in traces.all())


async def test_a_command_is_a_part_of_the_span_that_the_application_is_in(settings: Settings, traces: Traces) -> None:
    async with bank.open(settings) as runtime:
        with trace.get_tracer("ours").start_as_current_span("our own"):
            await runtime.executor.execute(Open(account_id=uuid4(), owner="Ann"))
    assert traces.way_up(traces.one("append")) == ["append", "command Open", "our own"]


@pytest.mark.parametrize("trace_parent", ["garbage", "", "00-xyz-1-01", "00-00f067aa0ba902b7-01"])
async def test_events_with_a_trace_parent_that_is_none_are_folded_all_the_same(
    settings: Settings, traces: Traces, trace_parent: str
) -> None:
    account_id = uuid4()
    async with bank.open(msgspec.structs.replace(settings, tracing=False), projections=[]) as runtime:
        opening = await runtime.executor.execute(
            Open(account_id=account_id, owner="Ann"), Metadata(trace_parent=trace_parent)
        )
    async with bank.open(settings, projections=["balances"]) as runtime:
        answer = await runtime.reader.get(Balances, str(account_id), min_position=opening.position)
        assert answer.value is not None
        assert runtime.stopped_projections == []


async def test_lines_that_are_logged_for_a_request_name_its_trace(client: httpx.AsyncClient, traces: Traces) -> None:
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        await client.get("/broken", headers={"traceparent": SAMPLED})
    (line,) = [line for line in lines if line["event"] == "request.failed"]
    assert line["trace_id"] == TRACE


async def test_reactions_and_due_commands_go_on_with_the_trace_that_asked_for_them(
    settings: Settings, traces: Traces
) -> None:
    async with mirroring.open(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4(), by=1))
        await eventually(lambda: len(traces.named("command Grow")) == 2, timeout_seconds=30)
    first, second = traces.named("command Grow")
    assert traces.way_up(second) == ["command Grow", "due Grow", "react mirror", "command Grow"]
    assert traces.way_up(first) == ["command Grow"]
    traces.clear()
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=uuid4(), name="later", seconds=0.1))
        await eventually(lambda: traces.named("command GrowDue"), timeout_seconds=30)
    assert traces.way_up(traces.one("command GrowDue")) == ["command GrowDue", "due GrowDue", "command GrowLater"]


class Failing(SpanProcessor, SpanExporter):
    """A processor, and an exporter, that raise while they are told to."""

    def __init__(self) -> None:
        self.fails = True

    def on_end(self, span: ReadableSpan) -> None:
        if self.fails:
            raise ZeroDivisionError("the processor")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.fails:
            raise ZeroDivisionError("the exporter")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to do."""


async def test_a_processor_or_an_exporter_that_fails_harms_nothing_and_is_told_once(
    settings: Settings, traces: Traces
) -> None:
    failing = Failing()
    traces.add(SimpleSpanProcessor(failing))
    traces.add(failing)
    try:
        with capture_logs() as lines:
            async with bank_client(settings) as client:
                for number in range(5):
                    done = (await client.post("/accounts", json={"owner": str(number)})).json()
                shown = await client.get(f"/accounts/{done['account_id']}", params={"min_position": done["position"]})
                assert shown.json()["owner"] == "4"
    finally:
        failing.fails = False
    assert [line["reason"] for line in lines if line["event"] == "tracing.failed"] == ["ZeroDivisionError"]


async def test_all_spans_and_attributes_are_the_documented_ones_and_all_of_those_are_seen(
    settings: Settings, traces: Traces
) -> None:
    async with bank_client(settings) as client:
        account = (await client.post("/accounts", json={"owner": "Ann"})).json()["account_id"]
        for amount in (2_000_000, 666):
            await client.post(f"/accounts/{account}/credit", json={"amount": amount})
        await projected(traces)
    async with mirroring.open(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4(), by=1))
        await eventually(lambda: len(traces.named("command Grow")) == 2, timeout_seconds=30)
    async with opened(settings) as runtime:
        await runtime.executor.execute(GrowLater(counter_id=uuid4(), name="broken", then="break"))
        await eventually(lambda: [s for s in traces.named("due GrowDue") if "error.type" in (s.attributes or {})])
    seen: dict[str, set[str]] = {}
    for span in traces.all():
        name = documented_name(span.name)
        assert span.kind.name.lower() == SPANS[name].kind, span.name
        seen.setdefault(name, set()).update(span.attributes or {})
    assert seen == {name: set(each.attributes) for name, each in SPANS.items()}


def documented_name(name: str) -> str:
    """The name with places for what is not the same in all spans of a kind."""
    if name in SPANS:
        return name
    found = [each for each in SPANS if " " in each and name.startswith(each.split(" ")[0] + " ")]
    return found[0] if found else "{method} {route}"


SCRIPT = """
import sys
if "without" in sys.argv:
    sys.modules["opentelemetry"] = None
import asyncio
from uuid import uuid4
from cqrskit import load_settings
from tests.integration.bank import Open, bank

async def main() -> None:
    async with bank.open(load_settings()) as runtime:
        await runtime.executor.execute(Open(account_id=uuid4(), owner="Ann"))

asyncio.run(main())
print("done")
"""


async def ran(settings: Settings, *arguments: str, **variables: str) -> Finished:
    """The script's end, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, *arguments,
        cwd=ROOT,
        env=environment({"CQRSKIT_DATABASE_URL": str(settings.database_url), **variables}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return await finish(process)


async def test_without_opentelemetry_all_works_and_only_who_asks_for_traces_is_told(settings: Settings) -> None:
    finished = await ran(settings, "without")
    assert finished.out.endswith("done\n"), finished.err
    refused = await ran(settings, "without", CQRSKIT_TRACING="true")
    assert refused.code == 1
    assert "ConfigurationError" in refused.err
    assert "cqrskit[tracing]" in refused.err


async def test_without_the_setting_nothing_is_traced(settings: Settings, traces: Traces) -> None:
    async with bank.open(Settings(database_url=settings.database_url), projections=["balances"]) as runtime:
        result = await runtime.executor.execute(Open(account_id=uuid4(), owner="Ann"))
        await runtime.positions.wait(Balances, result.position, visible=True, timeout_seconds=30)
    assert runtime.tracer is None
    assert traces.all() == ()
    assert trace_parents(settings) == [None]


async def test_the_variables_of_opentelemetry_say_where_traces_go_and_what_the_service_is_called(
    settings: Settings,
) -> None:
    finished = await ran(settings, CQRSKIT_TRACING="true", OTEL_TRACES_EXPORTER="console")
    assert '"name": "command Open"' in finished.out
    assert '"service.name": "bank"' in finished.out
    named = await ran(
        settings, CQRSKIT_TRACING="true", OTEL_TRACES_EXPORTER="console", OTEL_SERVICE_NAME="the bank of England"
    )
    assert '"service.name": "the bank of England"' in named.out
    sampled_out = await ran(
        settings, CQRSKIT_TRACING="true", OTEL_TRACES_EXPORTER="console", OTEL_TRACES_SAMPLER="always_off"
    )
    assert sampled_out.out.endswith("done\n")
    assert "command Open" not in sampled_out.out
    missing = await ran(settings, CQRSKIT_TRACING="true", OTEL_TRACES_EXPORTER="carrier_pigeon")
    assert missing.code == 1
    assert "carrier_pigeon names an exporter that is not installed" in missing.err
