"""``/metrics``: the runtime's metrics in the text format of Prometheus."""

import asyncio
import time
from collections.abc import Callable

from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cqrskit.application import Runtime
from cqrskit.status import ProjectionStatus
from cqrskit.web.access import needs_scope, open_to_all

__all__ = ["metrics_route"]

MEASURED_AGAIN_SECONDS = 5.0
MEASURING_TIMEOUT_SECONDS = 1.5


class _Measuring:
    """Measures the projections at most every few seconds, and one at a time, however often somebody scrapes."""

    def __init__(self) -> None:
        self._running: asyncio.Task[list[ProjectionStatus]] | None = None
        self._begun_at = 0.0

    async def measure(self, runtime: Runtime) -> None:
        """Bring the figures up to date, unless they are fresh or Postgres does not answer in time."""
        if self._running is None:
            if time.monotonic() - self._begun_at < MEASURED_AGAIN_SECONDS:
                return
            self._begun_at = time.monotonic()
            self._running = asyncio.create_task(runtime.status(count_documents=False), name="cqrskit-measuring")
            self._running.add_done_callback(lambda task: self._ended(task, runtime))
        await asyncio.wait({self._running}, timeout=MEASURING_TIMEOUT_SECONDS)

    def _ended(self, task: "asyncio.Task[list[ProjectionStatus]]", runtime: Runtime) -> None:
        self._running = None
        if not task.cancelled() and task.exception() is None:
            runtime.metrics.projections_measured(task.result())


def metrics_route(runtime: Callable[[], Runtime], *, is_open: bool) -> HTTPRouteHandler:
    """The route; it needs the scope `read` where the app has API keys, unless it `is_open`."""
    measuring = _Measuring()

    @get(
        "/metrics",
        opt=open_to_all() if is_open else needs_scope("read"),
        media_type=MediaType.TEXT,
        security=[{}] if is_open else None,
        tags=["health"],
        summary="Metrics in the text format of Prometheus",
    )
    async def metrics() -> Response[bytes]:
        found = runtime()
        await measuring.measure(found)
        return Response(generate_latest(found.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return metrics
