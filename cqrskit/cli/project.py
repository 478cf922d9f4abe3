"""``cqrskit project``: run projections in a process of their own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import rich_click as click
from prometheus_client import start_http_server

from cqrskit.application import Application, Runtime
from cqrskit.cli.running import FAILED, common_options, run_until_stopped
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError
from cqrskit.settings import load_settings
from cqrskit.status import ProjectionStatus
from cqrskit.tasks import enter_unless_stopped
from cqrskit.telemetry import configure_logging

__all__ = ["project_command"]

CHECK_INTERVAL_SECONDS = 0.1


@click.command("project")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@app_option
@click.option("--until-level", is_flag=True, help="Stop when all have reached the log's head of the start.")
@common_options
def project_command(names: tuple[str, ...], app: str | None, until_level: bool) -> None:
    """Run projections (all, or those named) until SIGINT or SIGTERM.

    Exit code 1 if a projection cannot go on.

    \b
    Examples:
      cqrskit project --app bank:app
      cqrskit project --app bank:app balances
      cqrskit project --app bank:app --until-level
    """
    application = application_of(app)
    chosen = names or tuple(projection.name for projection in application.projections)
    for name in chosen:
        application.projection_named(name)
    run_until_stopped(lambda stop: _project(application, chosen, until_level, stop))


async def _project(application: Application, names: Sequence[str], until_level: bool, stop: asyncio.Event) -> int:
    settings = load_settings()
    configure_logging(settings.log_level)
    async with AsyncExitStack() as stack:
        opening = application.open(settings, executor=False, projections=names)
        runtime = await enter_unless_stopped(stack, opening, stop)
        if runtime is None:
            return 0
        await stack.enter_async_context(_metrics_shown(runtime))
        goal = await runtime.event_store.head() if until_level else None
        print(f"projecting {', '.join(names)}", flush=True)
        return await _until_stopped(runtime, names, goal, stop)


async def _until_stopped(runtime: Runtime, names: Sequence[str], goal: int | None, stop: asyncio.Event) -> int:
    """Look after the projections until `stop`, the goal, or a projection that cannot go on; the exit code."""
    while not stop.is_set():
        if runtime.settings.metrics_port is not None:
            await runtime.measuring.measure()
        if runtime.stopped_projections:
            return FAILED
        if goal is not None and await _reached(runtime, names, goal):
            break
        try:
            async with asyncio.timeout(CHECK_INTERVAL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
    return 0


@asynccontextmanager
async def _metrics_shown(runtime: Runtime) -> AsyncIterator[None]:
    """Answer whoever scrapes, in a thread, if the settings say at which port. ConfigurationError if it is taken."""
    host, port = runtime.settings.host, runtime.settings.metrics_port
    if port is None:
        yield
        return
    try:
        server, thread = start_http_server(port, host, runtime.metrics.registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot show metrics on {host}:{port}: {error.strerror or error}. Choose another CQRSKIT_METRICS_PORT."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        await asyncio.to_thread(thread.join)


async def _reached(runtime: Runtime, names: Sequence[str], goal: int) -> bool:
    """Whether searches of all these projections see the log up to `goal`."""
    found: dict[str, ProjectionStatus] = {each.name: each for each in await runtime.status(count_documents=False)}
    return all(found[name].visible_position >= goal for name in names)
