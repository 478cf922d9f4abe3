"""``/metrics``: the runtime's metrics in the text format of Prometheus."""

from collections.abc import Callable

from litestar import MediaType, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cqrskit.application import Runtime
from cqrskit.web.access import needs_scope, open_to_all

__all__ = ["metrics_route"]


def metrics_route(runtime: Callable[[], Runtime], *, is_open: bool) -> HTTPRouteHandler:
    """The route; it needs the scope `read` where the app has API keys, unless it `is_open`."""

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
        await found.measuring.measure()
        return Response(generate_latest(found.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return metrics
