"""What was traced: spans that OpenTelemetry's own exporter has kept in memory."""

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

__all__ = ["Traces", "the_traces"]


class Traces:
    """The spans of one test, by what they are a part of."""

    def __init__(self, provider: TracerProvider) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = provider
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def add(self, processor: SpanProcessor) -> None:
        """Let another processor see each span too."""
        self.provider.add_span_processor(processor)

    def clear(self) -> None:
        """Forget what was seen."""
        self._exporter.clear()

    def all(self) -> Sequence[ReadableSpan]:
        """All that have ended, in that order."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name."""
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        (found,) = self.named(name)
        return found

    def parent_of(self, span: ReadableSpan) -> ReadableSpan | None:
        """The span that another is a part of."""
        return next((each for each in self.all() if span.parent and context(each) == span.parent.span_id), None)

    def way_up(self, span: ReadableSpan) -> list[str]:
        """The names of what a span is a part of, from the inside out."""
        names = []
        above: ReadableSpan | None = span
        while above is not None:
            names.append(above.name)
            above = self.parent_of(above)
        return names


def context(span: ReadableSpan) -> int:
    """A span's id."""
    assert span.context is not None
    found: int = span.context.span_id
    return found


def the_traces() -> Traces:
    """The one provider of this process, which can be set once only, with an exporter that keeps all in memory."""
    global _traces
    if _traces is None:
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
        _traces = Traces(provider)
    _traces.clear()
    return _traces


_traces: Traces | None = None
