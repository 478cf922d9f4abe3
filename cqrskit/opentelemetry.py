"""Traces by OpenTelemetry: the one module that knows it. The extra ``tracing`` brings it.

Whatever goes wrong in here, in a sampler, a processor or an exporter, is logged once and harms nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from typing import Any, ParamSpec, TypeVar

import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from cqrskit import tracing
from cqrskit.errors import ConfigurationError
from cqrskit.spans import ERROR_TYPE
from cqrskit.tracing import NO_ATTRIBUTES, Attributes, Kind

__all__ = ["OpenTelemetryTracer", "tracer_of"]

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

EXPORTERS = "opentelemetry_traces_exporter"
"""The group of entry points under which packages offer exporters."""
OTLP = ("otlp_proto_http", "otlp_proto_grpc")
PROTOCOLS = {"http/protobuf": OTLP[0], "grpc": OTLP[1]}
KINDS: dict[Kind, SpanKind] = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
}


def tracer_of(service: str) -> "OpenTelemetryTracer":
    """A tracer of the program's own provider, or, where it has set none, of one that the ``OTEL_`` variables describe.

    `service` is its name unless ``OTEL_SERVICE_NAME`` says another. Raises ConfigurationError for an exporter that is
    not installed.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _configured(service)
        trace.set_tracer_provider(provider)
    return OpenTelemetryTracer(provider)


def _configured(service: str) -> TracerProvider:
    """What the SDK itself reads from the environment, and the exporters, which it leaves to whoever starts it."""
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    provider = TracerProvider(resource=resource)
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if name.strip() != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
    return provider


def _exporter(name: str) -> SpanExporter:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    names: Sequence[str] = (name,)
    if name == "otlp":
        names = OTLP if protocol is None else (PROTOCOLS.get(protocol, protocol),)
    for each in names:
        for found in entry_points(group=EXPORTERS, name=each):
            made: SpanExporter = found.load()()
            return made
    raise ConfigurationError(
        f"OTEL_TRACES_EXPORTER={name} names an exporter that is not installed: install the package that brings it, "
        "such as opentelemetry-exporter-otlp-proto-http, or say `console` or `none`"
    )


class _Failures:
    """Keeps what goes wrong from everybody else; the first failure is logged."""

    def __init__(self) -> None:
        self._is_told = False

    def tell(self, error: Exception) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning("tracing.failed", reason=type(error).__name__, exc_info=error)

    def guard(self, function: Callable[P, T], *values: P.args, **named: P.kwargs) -> T | None:
        try:
            return function(*values, **named)
        except Exception as error:
            self.tell(error)
            return None


class OpenTelemetrySpan:
    """See the port, `cqrskit.tracing.Span`."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, failures: _Failures) -> None:
        self._tracer = tracer
        self._failures = failures
        self.span = span
        found = span.get_span_context()
        self.trace_parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"
        self.is_recorded = span.is_recording()

    def rename(self, name: str) -> None:
        """See the port."""
        self._failures.guard(self.span.update_name, name)

    def phase(
        self,
        name: str,
        begun_ns: int,
        ended_ns: int,
        *,
        kind: Kind = "internal",
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> None:
        """See the port."""
        if self.is_recorded:
            self._failures.guard(self._phase, name, begun_ns, ended_ns, kind, attributes)

    def _phase(self, name: str, begun_ns: int, ended_ns: int, kind: Kind, attributes: Attributes) -> None:
        parent = trace.set_span_in_context(self.span, contexts.Context())
        child = self._tracer.start_span(name, parent, KINDS[kind], attributes, start_time=begun_ns)
        child.end(ended_ns)

    def end(self, attributes: Attributes = NO_ATTRIBUTES, *, error: str | None = None) -> None:
        """See the port."""
        self._failures.guard(self._end, attributes, error)

    def _end(self, attributes: Attributes, error: str | None) -> None:
        self.span.set_attributes(dict(attributes))
        if error is not None:
            self.span.set_attribute(ERROR_TYPE, error)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


class OpenTelemetryTracer:
    """See the port, `cqrskit.tracing.Tracer`."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer("cqrskit", version("cqrskit"))
        self._failures = _Failures()

    def begin(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None = None,
        parent_state: str | None = None,
        links: Sequence[str] = (),
        attributes: Attributes = NO_ATTRIBUTES,
        begun_ns: int | None = None,
    ) -> OpenTelemetrySpan | None:
        """See the port."""

        def begin() -> OpenTelemetrySpan:
            context = contexts.Context()
            if parent is not None:
                context = trace.set_span_in_context(NonRecordingSpan(_place(parent, parent_state)), context)
            span = self._tracer.start_span(
                name, context, KINDS[kind], attributes, [Link(_place(each)) for each in links], begun_ns
            )
            return OpenTelemetrySpan(self._tracer, span, self._failures)

        return self._failures.guard(begin)

    def current(self) -> str | None:
        """See the port."""
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    @contextmanager
    def as_current(self, span: tracing.Span) -> Iterator[None]:
        """See the port."""
        assert isinstance(span, OpenTelemetrySpan)
        token: Any = contexts.attach(trace.set_span_in_context(span.span))
        try:
            yield
        finally:
            contexts.detach(token)


def _place(trace_parent: str, state: str | None = None) -> SpanContext:
    """A ``traceparent`` whose grammar was checked."""
    _, trace_id, span_id, flags = trace_parent.split("-")[:4]
    return SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16)),
        trace_state=None if state is None else TraceState.from_header([state]),
    )
