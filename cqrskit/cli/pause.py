"""``cqrskit pause`` and ``cqrskit resume``: keep workers from moving a projection, or let them again."""

import asyncio
import time

import msgspec
import rich_click as click

from cqrskit.application import Runtime
from cqrskit.checkpoints import GenerationState
from cqrskit.cli.operating import opened
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of

__all__ = ["pause_command", "resume_command"]

POLL_INTERVAL_SECONDS = 0.1
LEASES_WAITED_FOR = 2
"""So many times the length of a lease a pause waits for workers to let go."""


class Pause(msgspec.Struct, frozen=True):
    """Whether a projection is paused, and who moves partitions of it all the same, for the moment."""

    projection: str
    paused: bool
    workers: list[str]


@click.command("pause")
@click.argument("name")
@app_option
@json_option("Write the result as JSON; errors are JSON too.")
@common_options
def pause_command(name: str, app: str | None, as_json: bool) -> None:
    """Keep all workers from moving a projection, until `cqrskit resume`; queries go on with the documents as they are.

    The pause outlives restarts. The command waits for the workers to let go.

    \b
    Examples:
      cqrskit pause balances --app bank:app
    """
    application = application_of(app)
    application.projection_named(name)

    async def pause() -> None:
        async with opened(application) as runtime:
            await runtime.checkpoints.pause(name, paused=True)
            workers = await _let_go(runtime, name)
            if as_json:
                print(msgspec.json.encode(Pause(name, paused=True, workers=workers)).decode())
            elif workers:
                print(f"{name} is paused; {', '.join(workers)} will let go within a few seconds")
            else:
                print(f"{name} is paused; nobody moves it")

    run(pause)


@click.command("resume")
@click.argument("name")
@app_option
@json_option("Write the result as JSON; errors are JSON too.")
@common_options
def resume_command(name: str, app: str | None, as_json: bool) -> None:
    """Let workers move a projection again that was paused, or that has stopped; they begin within a second or so.

    What has stopped, as `cqrskit status` says, is tried again by the workers as they run, once its cause was mended:
    too many parked keys were dropped, an index was removed and is to be built anew. Other code needs a restart.

    \b
    Examples:
      cqrskit resume balances --app bank:app
    """
    application = application_of(app)
    application.projection_named(name)

    async def resume() -> None:
        async with opened(application) as runtime:
            await runtime.checkpoints.pause(name, paused=False)
            if as_json:
                print(msgspec.json.encode(Pause(name, paused=False, workers=await _workers(runtime, name))).decode())
            else:
                print(f"{name} goes on")

    run(resume)


async def _let_go(runtime: Runtime, name: str) -> list[str]:
    """Wait until nobody moves the projection; who does after all."""
    deadline = time.monotonic() + LEASES_WAITED_FOR * runtime.settings.lease_seconds
    while True:
        workers = await _workers(runtime, name)
        if not workers or time.monotonic() >= deadline:
            return workers
        await asyncio.sleep(POLL_INTERVAL_SECONDS)


async def _workers(runtime: Runtime, name: str) -> list[str]:
    """Who moves documents that are, or were, read; a rebuild goes on while the projection is paused."""
    read = (GenerationState.LIVE, GenerationState.RETIRED)
    return sorted(
        {
            partition.worker
            for generation in await runtime.checkpoints.generations()
            if generation.projection == name and generation.state in read
            for partition in generation.partitions
            if partition.worker and (partition.leased_seconds or 0) > 0
        }
    )
