"""``cqrskit rebuild`` and ``cqrskit rollback``: new documents beside the old ones, and back."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence

import msgspec
import rich_click as click

from cqrskit.application import Application, Runtime
from cqrskit.checkpoints import Generation, GenerationState
from cqrskit.cli.operating import counted
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import FAILED, common_options, die_with_parent, json_option, run
from cqrskit.cli.verify import line_of, verified
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError
from cqrskit.generations import live_generation
from cqrskit.projection import Projection
from cqrskit.rebuild import Rebuild, RebuildPlan, Tail, build_slice, plan_of_rebuild
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["rebuild_command", "rebuild_slice_command", "rollback_command"]

POLL_INTERVAL_SECONDS = 0.25
SLICES_MAX = 64
SLICES_UNASKED_MAX = 4
NICENESS = 10
"""A slice works with what others on its machine leave: nobody waits for it as callers wait for the service."""
SAMPLED_KEYS = 1_000
"""About so many documents are compared by a sample."""


class _Wanted(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    app: str | None
    slices: int
    verify: str
    swap: bool
    restart: bool
    allow_parked: bool
    as_json: bool


class Result(msgspec.Struct, frozen=True):
    """What a rebuild or a roll-back has come to, for machines."""

    projection: str
    generation: int
    state: str
    position: int
    parked_keys: int
    differences: int
    seconds: float


@click.command("rebuild")
@click.argument("name")
@app_option
@click.option("--plan", "only_plan", is_flag=True, help="Say what would be done: events, time and disk.")
@click.option(
    "--slices",
    type=click.IntRange(1, SLICES_MAX),
    default=lambda: min(max((os.cpu_count() or 1) // 2, 1), SLICES_UNASKED_MAX),
    show_default="one for every two cores, at most 4",
    help="Parts that are folded side by side. More are quicker, and take more from all else.",
)
@click.option(
    "--verify",
    type=click.Choice(["full", "sample", "none"]),
    default="sample",
    show_default=True,
    help="Compare all documents, or some of them, with the log before they go live.",
)
@click.option("--no-swap", is_flag=True, help="Leave the new documents ready; the same command without it swaps.")
@click.option("--restart", is_flag=True, help="Throw away what an earlier rebuild has left, and begin anew.")
@click.option("--allow-parked", is_flag=True, help="Go live with more parked keys than the live documents have.")
@json_option("Write the plan or the result as JSON; errors are JSON too.")
@common_options
def rebuild_command(
    name: str,
    app: str | None,
    only_plan: bool,
    slices: int,
    verify: str,
    no_swap: bool,
    restart: bool,
    allow_parked: bool,
    as_json: bool,
) -> None:
    """Build a projection's documents anew, beside those that are read, and swap them in.

    Readers and the live documents go on undisturbed. The old documents are kept for `cqrskit rollback`. A rebuild that
    was interrupted, however that happened, goes on where it was when it is called again.

    \b
    Examples:
      cqrskit rebuild balances --app bank:app --plan
      cqrskit rebuild balances --app bank:app
      cqrskit rebuild balances --app bank:app --verify full --no-swap
    """
    application = application_of(app)
    projection = application.projection_named(name)
    wanted = _Wanted(app, slices, verify, not no_swap, restart, allow_parked, as_json)

    async def rebuild() -> int:
        settings = load_settings()
        configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
        async with application.open(settings, executor=False) as runtime:
            if only_plan:
                _show_plan(await plan_of_rebuild(runtime, projection, slices), as_json)
                return 0
            try:
                return await _rebuild(runtime, projection, wanted)
            except asyncio.CancelledError:
                _tell_how_to_go_on(projection)
                raise

    run(rebuild)


async def _rebuild(runtime: Runtime, projection: type[Projection], wanted: _Wanted) -> int:
    begun_at = time.monotonic()
    work = Rebuild(runtime, projection)
    generation = await work.begin(wanted.slices, restart=wanted.restart)
    if generation.state is GenerationState.BUILDING:
        if not await _build(runtime, projection, generation, wanted):
            return FAILED
        generation = await work.finish_building()
    async with Tail(runtime, projection, generation).running() as tail:
        with ProgressBar(f"{projection.name}: catching up", 1, quiet=wanted.as_json) as bar:
            position = await tail.level(lambda done, total: bar.show(done, total=total))
        generation = await work.generation()
        differences = await _verified(runtime, projection, generation, wanted)
        own = [each for each in await runtime.checkpoints.generations() if each.projection == projection.name]
        live = live_generation(own)
        parked = generation.parked_keys
        swap = wanted.swap and differences == 0
        if swap and not wanted.allow_parked and parked > (0 if live is None else live.parked_keys):
            keys = counted(parked, "key")
            _tell(f"{keys} parked: see `cqrskit parked list {projection.name}`, or swap with --allow-parked")
            swap = False
        if swap:
            await work.swap(generation)
    seconds = time.monotonic() - begun_at
    state = "live" if swap else "ready"
    _show_result(
        Result(projection.name, generation.number, state, position, parked, differences, seconds), wanted.as_json
    )
    return 0 if swap or (not wanted.swap and differences == 0) else FAILED


async def _verified(runtime: Runtime, projection: type[Projection], generation: Generation, wanted: _Wanted) -> int:
    """Number of documents that are not what the log says; the first of them are told on standard error."""
    if wanted.verify == "none":
        return 0
    share = 1.0
    if wanted.verify == "sample":
        share = min(1.0, SAMPLED_KEYS / max(1, await runtime.read_store.count(projection.index(generation.number))))
    seed = generation.number
    result = await verified(runtime, projection, generation, share=share, seed=seed, quiet=wanted.as_json)
    for difference in result.differences:
        _tell(line_of(difference))
    if result.differences_count:
        documents = counted(result.differences_count, "document")
        _tell(f"{documents} not as the log says: generation {generation.number} does not go live")
    return result.differences_count


# --- slices


async def _build(runtime: Runtime, projection: type[Projection], generation: Generation, wanted: _Wanted) -> bool:
    """Fold all slices, each in a process of its own; False if one has failed."""
    variables = {**os.environ, "CQRSKIT_DATABASE_URL": runtime.database_url}
    numbers = [each.number for each in generation.partitions]
    processes = [
        await _start_slice(projection.name, generation.number, each, wanted.app, variables) for each in numbers
    ]
    ended = asyncio.gather(*(process.communicate() for process in processes))
    try:
        await _show_progress(runtime, projection, generation, ended, quiet=wanted.as_json)
        outputs = await ended
    finally:
        ended.cancel()
        for process in processes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(ended, *(process.wait() for process in processes), return_exceptions=True)
    failed = [
        (number, process.returncode, errors.decode(errors="replace").strip())
        for number, process, (_, errors) in zip(numbers, processes, outputs, strict=True)
        if process.returncode
    ]
    for number, code, text in failed:
        _tell(f"slice {number} ended with exit code {code}: {text or 'no message'}")
    if failed:
        _tell_how_to_go_on(projection)
    return not failed


def _tell_how_to_go_on(projection: type[Projection]) -> None:
    _tell(f"run `cqrskit rebuild {projection.name}` again to go on where it stopped")


async def _start_slice(
    name: str, generation: int, partition: int, app: str | None, variables: dict[str, str]
) -> asyncio.subprocess.Process:
    arguments = ["rebuild-slice", name, str(generation), str(partition)]
    if app is not None:
        arguments += ["--app", app]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cqrskit",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=variables,
        preexec_fn=_give_way,
    )


def _give_way() -> None:
    """As ``preexec_fn``: a slice ends with its parent, and begins with a low priority."""
    die_with_parent()
    os.nice(NICENESS)


async def _show_progress(
    runtime: Runtime,
    projection: type[Projection],
    generation: Generation,
    ended: "asyncio.Future[list[tuple[bytes, bytes]]]",
    *,
    quiet: bool,
) -> None:
    """Until all slices have ended, say how far they are and how fast."""
    what = f"{projection.name}: building generation {generation.number}"
    slices = len(generation.partitions)
    begun_at, begun_from = time.monotonic(), sum(each.position for each in generation.partitions)
    with ProgressBar(what, 1, quiet=quiet) as bar:
        while not ended.done():
            found = await runtime.checkpoints.generations()
            mine = next(
                (each for each in found if (each.projection, each.number) == (projection.name, generation.number)), None
            )
            if mine is None:
                raise ConfigurationError(
                    f"somebody has removed generation {generation.number} while it was being built"
                )
            done, head = sum(each.position for each in mine.partitions), await runtime.event_store.head()
            rate = (done - begun_from) / slices / max(time.monotonic() - begun_at, 0.001)
            bar.show(done, f"{rate:,.0f} events/s", total=head * slices)
            await asyncio.wait([ended], timeout=POLL_INTERVAL_SECONDS)


@click.command("rebuild-slice", hidden=True)
@click.argument("name")
@click.argument("generation", type=int)
@click.argument("partition", type=int)
@app_option
@common_options
def rebuild_slice_command(name: str, generation: int, partition: int, app: str | None) -> None:
    """Fold one slice of a generation that `cqrskit rebuild` is building; it calls this itself."""
    application = application_of(app)
    projection = application.projection_named(name)

    async def build() -> None:
        settings = msgspec.structs.replace(load_settings(), elasticsearch_bulk_max_requests=1)
        configure_logging("warning")
        async with application.open(settings, executor=False) as runtime:
            await build_slice(runtime, projection, generation, partition)

    run(build)


# --- back


@click.command("rollback")
@click.argument("name")
@app_option
@json_option("Write the result as JSON; errors are JSON too.")
@common_options
def rollback_command(name: str, app: str | None, as_json: bool) -> None:
    """Read the documents again that were live before the last rebuild.

    They are brought level with the log first. The documents that are given up are kept until `cqrskit prune`; to have
    them again, rebuild.

    \b
    Examples:
      cqrskit rollback balances --app bank:app
    """
    application: Application = application_of(app)
    projection = application.projection_named(name)

    async def rollback() -> None:
        settings = load_settings()
        configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
        async with application.open(settings, executor=False) as runtime:
            begun_at = time.monotonic()
            work = Rebuild(runtime, projection)
            generation = await work.previous()
            async with Tail(runtime, projection, generation).running() as tail:
                with ProgressBar(f"{name}: catching up", 1, quiet=as_json) as bar:
                    position = await tail.level(lambda done, total: bar.show(done, total=total))
                await work.swap(generation, rolled_back=True)
            seconds = time.monotonic() - begun_at
            _show_result(Result(name, generation.number, "live", position, generation.parked_keys, 0, seconds), as_json)

    run(rollback)


# --- what is said


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_plan(plan: RebuildPlan, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(plan).decode())
        return
    _lines(
        [
            ("projection", plan.projection),
            ("events to read", f"{plan.events:,}" + (f" by each of {plan.slices} slices" if plan.slices > 1 else "")),
            ("documents now", "none" if plan.documents is None else f"{plan.documents:,}"),
            ("disk, about as now", "unknown" if plan.bytes is None else _size(plan.bytes)),
            ("time", _time_of(plan)),
            *([("goes on with", f"generation {plan.continues}")] if plan.continues is not None else []),
        ]
    )


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e3:,.0f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:,.1f} MB"


def _time_of(plan: RebuildPlan) -> str:
    if plan.seconds is None:
        return "none: the log is empty"
    if plan.tried:
        tried = counted(plan.tried, "event")
        return f"{plan.seconds:,.1f} s or more: {tried} folded at that rate, and not written"
    return f"about {plan.seconds:,.1f} s, as the last time"


def _show_result(result: Result, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(result).decode())
        return
    name, number = result.projection, result.generation
    if result.state == "live":
        position = f"{result.position:,}"
        print(f"generation {number} of {name} is live, level with position {position} ({result.seconds:,.1f} s)")
    else:
        print(f"generation {number} of {name} is ready, not live ({result.seconds:,.1f} s)")


def _lines(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
