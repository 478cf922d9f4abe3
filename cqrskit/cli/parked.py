"""``cqrskit parked``: documents that an event could not be folded into."""

import sys
from collections.abc import Sequence

import msgspec
import rich_click as click

from cqrskit.application import Runtime
from cqrskit.checkpoints import Generation, ParkedKey
from cqrskit.cli.operating import confirm, counted, generation_of, near_to, opened, yes_option
from cqrskit.cli.parked_rows import ParkedRow, row_of, show_key, show_list
from cqrskit.cli.running import FAILED, common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError, CqrskitError
from cqrskit.events import RecordedEvent
from cqrskit.projection import Projection
from cqrskit.retrying import Retried, Retrying
from cqrskit.worker import worker_name

__all__ = ["parked_group"]

generation_option = click.option(
    "--generation", type=click.IntRange(min=1), help="Of this generation (default: the one that this code reads)."
)
timeout_option = click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the outcome.",
)


class RetryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a retry, for machines; `dropped` is the position of an event that was given up.

    `rebuild_due` are generations whose documents may have that event, since it was folded into them before.
    """

    projection: str
    generation: int
    keys: list[Retried]
    dropped: int | None = None
    rebuild_due: list[int] = []


@click.group("parked")
def parked_group() -> None:
    """Look at documents that an event could not be folded into, and mend them.

    \b
    Examples:
      cqrskit parked list --app bank:app
      cqrskit parked show balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app
      cqrskit parked retry balances --all --app bank:app
      cqrskit parked drop balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app
    """


# --- look


@parked_group.command("list")
@click.argument("name", required=False)
@app_option
@json_option("Write one JSON array; errors are JSON too.")
@common_options
def list_command(name: str | None, app: str | None, as_json: bool) -> None:
    """List parked keys of all projections, or of one, in all their generations.

    \b
    Examples:
      cqrskit parked list --app bank:app
      cqrskit parked list balances --app bank:app --json
    """
    application = application_of(app)
    wanted = application.projections if name is None else (application.projection_named(name),)

    async def work() -> None:
        async with opened(application) as runtime:
            show_list(await _rows(runtime, {each.name for each in wanted}), as_json)

    run(work)


async def _rows(runtime: Runtime, names: set[str]) -> list[ParkedRow]:
    rows = []
    for generation in await runtime.checkpoints.generations():
        if generation.parked_keys and generation.projection in names:
            parked = await runtime.checkpoints.parked(generation.projection, generation.number)
            rows += [row_of(generation, key) for key in parked]
    return rows


@parked_group.command("show")
@click.argument("name")
@click.argument("key")
@app_option
@generation_option
@json_option("Write one JSON object; errors are JSON too.")
@common_options
def show_command(name: str, key: str, app: str | None, generation: int | None, as_json: bool) -> None:
    """Show why a key is parked: the error, and the event that could not be folded.

    \b
    Examples:
      cqrskit parked show balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app
    """
    application = application_of(app)
    projection = application.projection_named(name)

    async def work() -> None:
        async with opened(application) as runtime:
            found = await generation_of(runtime, projection, generation)
            (parked,) = await _parked_keys(runtime, found, [key])
            event = await _event_at(runtime, parked.position)
            show_key(row_of(found, parked), event, as_json)

    run(work)


async def _event_at(runtime: Runtime, position: int) -> RecordedEvent | None:
    block = await runtime.event_store.read(position - 1, 1)
    return block.events[0] if block.events else None


# --- mend


@parked_group.command("retry")
@click.argument("name")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@app_option
@click.option("--all", "all_keys", is_flag=True, help="All parked keys of the projection.")
@generation_option
@timeout_option
@json_option("Write the outcome as JSON; errors are JSON too.")
@common_options
def retry_command(
    name: str,
    keys: tuple[str, ...],
    app: str | None,
    all_keys: bool,
    generation: int | None,
    timeout_seconds: float,
    as_json: bool,
) -> None:
    """Fold again what could not be folded, and all that waits behind it, in order.

    The worker that moves the partition does it, with its own code; where there is none, this command. Exit code 1 if a
    key fails again, or if the outcome is not known in time: then it is tried all the same, as soon as somebody can.

    \b
    Examples:
      cqrskit parked retry balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app
      cqrskit parked retry balances --all --app bank:app
    """
    if bool(keys) == all_keys:
        raise ConfigurationError("say which keys to retry, or --all")
    application = application_of(app)
    projection = application.projection_named(name)

    async def work() -> int:
        async with opened(application) as runtime:
            found = await generation_of(runtime, projection, generation)
            parked = await _parked_keys(runtime, found, None if all_keys else list(keys))
            return await _retry(runtime, projection, found, [key.key for key in parked], timeout_seconds, as_json)

    run(work)


@parked_group.command("drop")
@click.argument("name")
@click.argument("key")
@app_option
@generation_option
@timeout_option
@yes_option
@json_option("Write the outcome as JSON; errors are JSON too.")
@common_options
def drop_command(
    name: str,
    key: str,
    app: str | None,
    generation: int | None,
    timeout_seconds: float,
    yes: bool,
    as_json: bool,
) -> None:
    """Give up one event for one document, for good, and fold what waits behind it.

    It is the event that `cqrskit parked show` shows. It stays in the log, and other documents keep it. This document
    never gets it, in no generation that is still to fold it; for one that may have folded it before, a rebuild is due.
    Exit code 1 if the document is not parked at that event any more, if a later event fails, or if the outcome is not
    known in time.

    \b
    Examples:
      cqrskit parked drop balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app
      cqrskit parked drop balances 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c --app bank:app --yes
    """
    application = application_of(app)
    projection = application.projection_named(name)

    async def work() -> int:
        async with opened(application) as runtime:
            found = await generation_of(runtime, projection, generation)
            (parked,) = await _parked_keys(runtime, found, [key])
            await confirm(await _loss(runtime, projection, parked), yes=yes)
            due = await _drop(runtime, found, parked)
            dropped = parked.position
            return await _retry(runtime, projection, found, [key], timeout_seconds, as_json, dropped, due)

    run(work)


async def _drop(runtime: Runtime, generation: Generation, parked: ParkedKey) -> list[int]:
    """Give the event up; numbers of the other generations that may have it, so that a rebuild is due."""
    name, key, position = generation.projection, parked.key, parked.position
    before = {(each.key, each.position) for each in await runtime.checkpoints.skipped(name)}
    if not await runtime.checkpoints.skip(name, generation.number, key, position):
        raise CqrskitError(
            f"key {key!r} of projection {name!r} is not parked at position {position} any more, so nothing was given "
            f"up: see `cqrskit parked show {name} {key}`"
        )
    due: list[int] = []
    for each in await runtime.checkpoints.generations():
        if each.projection != name or each.number == generation.number:
            continue
        theirs = {found.key: found.position for found in await runtime.checkpoints.parked(name, each.number)}
        if key in theirs:  # maybe for the same event
            await runtime.checkpoints.request_retry(name, each.number, [key])
        waits = key in theirs and theirs[key] <= position
        if not waits and (key, position) not in before and _may_have_folded(each, position):
            await runtime.checkpoints.set_mixed(name, each.number)
            due.append(each.number)
    return due


def _may_have_folded(generation: Generation, position: int) -> bool:
    """Whether a partition has come so far, or is being moved by somebody who learns too late what was given up."""
    return any(each.position >= position or (each.leased_seconds or 0) > 0 for each in generation.partitions)


async def _loss(runtime: Runtime, projection: type[Projection], parked: ParkedKey) -> str:
    event = await _event_at(runtime, parked.position)
    what = "event" if event is None else event.type
    return (
        f"{what} at position {parked.position} will never be in document {parked.key!r} of projection "
        f"{projection.name!r}, also when it is built anew; this cannot be undone. Give it up?"
    )


async def _parked_keys(runtime: Runtime, generation: Generation, keys: Sequence[str] | None) -> list[ParkedKey]:
    """The parked keys of these names; ConfigurationError if one is not parked. None: all."""
    parked = {key.key: key for key in await runtime.checkpoints.parked(generation.projection, generation.number)}
    if keys is None:
        return list(parked.values())
    for key in keys:
        if key not in parked:
            raise ConfigurationError(
                f"key {key!r} of projection {generation.projection!r} is not parked in generation {generation.number}"
                f"{near_to(key, parked)}"
            )
    return [parked[key] for key in dict.fromkeys(keys)]


async def _retry(
    runtime: Runtime,
    projection: type[Projection],
    generation: Generation,
    keys: Sequence[str],
    timeout_seconds: float,
    as_json: bool,
    dropped: int | None = None,
    rebuild_due: Sequence[int] = (),
) -> int:
    retrying = Retrying(
        projection,
        generation.number,
        worker=worker_name(),
        read_store=runtime.read_store,
        checkpoints=runtime.checkpoints,
        settings=runtime.settings,
        make_projector=runtime.projector,
    )
    if generation.paused and keys:
        print(f"{projection.name} is paused: `cqrskit resume {projection.name}` lets the retry begin", file=sys.stderr)
        timeout_seconds = 0.0
    outcomes = await retrying.retry(keys, timeout_seconds=timeout_seconds) if keys else []
    report = RetryReport(
        projection=projection.name,
        generation=generation.number,
        keys=outcomes,
        dropped=dropped,
        rebuild_due=list(rebuild_due),
    )
    _show_report(report, timeout_seconds, as_json)
    return 0 if all(outcome.result == "level" for outcome in outcomes) else FAILED


def _show_report(report: RetryReport, timeout_seconds: float, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    if report.dropped is not None:
        print(f"the event at position {report.dropped} is given up for this document")
    for number in report.rebuild_due:
        print(f"generation {number} may have folded it before: `cqrskit rebuild {report.projection}` leaves it out")
    if not report.keys:
        print("no key is parked")
    for outcome in report.keys:
        if outcome.result == "level":
            print(f"{outcome.key} is level again")
        elif outcome.result == "failed":
            waiting = counted(outcome.events_waiting, "event")
            print(f"{outcome.key} failed again at position {outcome.position}, {waiting} behind it: {outcome.error}")
        else:
            print(f"{outcome.key} still waits after {timeout_seconds:g} s; it is tried as soon as a worker can")
