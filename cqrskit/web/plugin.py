"""The Litestar plugin: opens the runtime with the app, gives handlers what they ask for, and describes errors."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Literal

import structlog
from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.logging import LoggingConfig
from litestar.logging.config import BaseLoggingConfig
from litestar.plugins import InitPlugin, ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.types import ASGIApp

from cqrskit.application import Application, Runtime
from cqrskit.consistency import Reader
from cqrskit.errors import ConfigurationError, CqrskitError
from cqrskit.known_keys import KnownKeys
from cqrskit.rate_limit import RateLimits
from cqrskit.settings import Settings, load_settings
from cqrskit.web.access import Gate
from cqrskit.web.commands import Actor, Commands
from cqrskit.web.health import health_routes
from cqrskit.web.metrics import metrics_route
from cqrskit.web.observing import observed
from cqrskit.web.openapi import ApiDescription
from cqrskit.web.positions import MinPosition, PositionGuard, PositionInHeader, PositionInQuery, position_in
from cqrskit.web.problems import Problems
from cqrskit.web.requests import current_request, in_context
from cqrskit.web.strict_json import StrictRequest

__all__ = ["CqrskitPlugin", "plugin_of"]

log = structlog.get_logger(__name__)


class CqrskitPlugin(InitPlugin, ReceiveRoutePlugin):
    """Puts one application on the wire; see `cqrskit.web` for what handlers get.

    `settings` are read from the environment when not given. `projections` names those that run in this process:
    ``"all"`` or their names (none: ``()``). `statuses` maps codes of refusals to HTTP statuses, in place of 422.
    `only_known_parameters` refuses query parameters that no route declares. `actor` says who sends a request, for the
    metadata of events. `api_keys` lets only those in who show a key (``cqrskit keys``), whose name is the actor then.
    """

    def __init__(
        self,
        application: Application,
        settings: Settings | None = None,
        *,
        projections: Literal["all"] | Iterable[str] = "all",
        statuses: Mapping[str, int] | None = None,
        only_known_parameters: bool = False,
        actor: Actor | None = None,
        api_keys: bool = False,
    ) -> None:
        """Raises ConfigurationError for wrong settings, or a projection that does not exist."""
        if api_keys and actor is not None:
            raise ConfigurationError("with api_keys=True the name of the key is the actor: leave `actor` out")
        self.application = application
        self.settings = load_settings() if settings is None else settings
        self.projections = (
            tuple(projection.name for projection in application.projections)
            if projections == "all"
            else tuple(projections)
        )
        for name in self.projections:
            application.projection_named(name)
        self._problems = Problems(statuses or {}, body_size_max_bytes=self.settings.body_size_max_bytes)
        self._gate = Gate(_limits(self.settings)) if api_keys else None
        self._description = ApiDescription(
            statuses=statuses or {}, secured=api_keys, only_known_parameters=only_known_parameters
        )
        self._guard = PositionGuard()
        self._only_known_parameters = only_known_parameters
        self._actor = actor
        self._runtime: Runtime | None = None
        self._draining = False

    @property
    def runtime(self) -> Runtime:
        """The application at work; ConfigurationError unless the app is running."""
        if self._runtime is None:
            raise ConfigurationError(
                f"application {self.application.name!r} is not open: its Litestar app runs no lifespan yet"
            )
        return self._runtime

    def begin_drain(self) -> None:
        """Take no new commands (they are told `shutting_down`), and let each reply from now on end its connection.

        The server calls this when it stops; what was accepted is finished.
        """
        self._draining = True
        if self._runtime is not None:
            self._runtime.executor.refuse_new()

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the lifespan, dependencies, error handlers, limits and health routes; what the app set itself stays."""
        app_config.lifespan = [self._lifespan, *app_config.lifespan]
        app_config.dependencies = {**self._dependencies(), **app_config.dependencies}
        if self._gate is not None:
            app_config.on_startup = [*app_config.on_startup, self._tell_of_no_keys]
        app_config.exception_handlers = {
            CqrskitError: self._problems.of_cqrskit,
            HTTPException: self._problems.of_http,
            Exception: self._problems.of_unexpected,
            **app_config.exception_handlers,
        }
        app_config.request_class = app_config.request_class or StrictRequest
        app_config.middleware = [self._in_context, *app_config.middleware]
        app_config.route_handlers = [
            *app_config.route_handlers,
            *health_routes(lambda: self.runtime, lambda: self._draining),
            metrics_route(lambda: self.runtime, is_open=self.settings.metrics_open),
        ]
        if _is_default(app_config.logging_config):
            app_config.logging_config = None  # the default one would take over the root logger
        if app_config.openapi_config is not None:
            app_config.openapi_config = self._description.config(app_config.openapi_config, self.application.name)
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Take a route of the app into its API description."""
        if isinstance(route, HTTPRoute):
            self._description.receive(route)

    def _in_context(self, app: ASGIApp) -> ASGIApp:
        return in_context(
            app,
            gate=self._gate,
            only_known_parameters=self._only_known_parameters,
            is_draining=lambda: self._draining,
        )

    def _dependencies(self) -> dict[str, Provide]:
        def runtime() -> Runtime:
            return self.runtime

        def commands() -> Commands:
            request = current_request()
            assert request is not None, "routes are inside the middleware"
            return Commands(self.runtime.executor, request, self._actor)

        def reader() -> Reader:
            return self.runtime.reader

        async def min_position(
            position_in_header: PositionInHeader = None, position_in_query: PositionInQuery = None
        ) -> MinPosition:
            sent = [position_in(position_in_header, "header"), position_in(position_in_query, "query")]
            positions = [each for each in sent if each is not None]
            if not positions:
                return None
            await self._guard.check(max(positions), self.runtime)
            return max(positions)

        # Plain functions without parameters: Litestar resolves these with the least ado.
        plain = {each.__name__: Provide(each, sync_to_thread=False) for each in (runtime, commands, reader)}
        return {**plain, "min_position": Provide(min_position)}

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        # Litestar does not read this from the AppConfig that plugins get, so it is set on the finished app.
        app.request_max_body_size = self.settings.body_size_max_bytes
        _let_options_name_all_methods(app)
        if self._gate is not None:
            self._gate.check_routes(app)
        async with self.application.open(self.settings, projections=self.projections) as runtime:
            self._runtime, self._draining = runtime, False
            if self._gate is not None:
                self._gate.open(KnownKeys(runtime.api_keys), runtime.metrics.refusals)
            log.info("service.started", application=self.application.name, projections=self.projections)
            try:
                with observed(app, runtime.metrics, runtime.tracer):
                    yield
            finally:
                self._runtime = None
        log.info("service.stopped", application=self.application.name)

    async def _tell_of_no_keys(self) -> None:
        """Say that nobody can enter; last of what is done at the start, since the app may make keys there itself."""
        if not await self.runtime.api_keys.has_usable():
            log.warning("access.no_keys", make_one="cqrskit keys create NAME --scopes read,write")


def _let_options_name_all_methods(app: Litestar) -> None:
    """Litestar's answer to OPTIONS keeps to the first handler of a path, also where more are registered later."""
    its_own = HTTPRoute.create_options_handler.__qualname__
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        first, _ = route.route_handler_map["OPTIONS"]
        if first.fn.__qualname__.startswith(its_own):
            answering = route.create_options_handler(route.path)
            answering.owner = first.owner
            answering.on_registration(app)
            route.route_handler_map["OPTIONS"] = answering, answering.create_kwargs_model(route.path_parameters)


def _limits(settings: Settings) -> RateLimits | None:
    per_second = settings.rate_limit_requests_per_second
    return None if per_second is None else RateLimits(per_second, settings.rate_limit_burst_requests)


def _is_default(config: BaseLoggingConfig | None) -> bool:
    """Whether the app leaves logging to Litestar, which would then reconfigure the whole process."""
    default = LoggingConfig()
    return isinstance(config, LoggingConfig) and all(
        getattr(config, name) == getattr(default, name) for name in ("loggers", "handlers", "formatters", "root")
    )


def plugin_of(app: Litestar) -> CqrskitPlugin:
    """The app's `CqrskitPlugin`; ConfigurationError if it has none."""
    for plugin in app.plugins:
        if isinstance(plugin, CqrskitPlugin):
            return plugin
    raise ConfigurationError(
        "the Litestar app has no CqrskitPlugin: make it with Litestar(..., plugins=[CqrskitPlugin(application)])"
    )
