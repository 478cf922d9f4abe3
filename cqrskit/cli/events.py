"""``cqrskit events``: read the log."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import msgspec
import rich_click as click

from cqrskit.cli.running import common_options, json_option, run_until_stopped
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError
from cqrskit.event_versions import base_of
from cqrskit.events import RecordedEvent
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.postgres.migrate import require_migrated
from cqrskit.servers import database_url
from cqrskit.settings import Settings, load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["event_fields", "events_command"]


class _Selection(msgspec.Struct, frozen=True):
    """Which events are wanted."""

    stream: UUID | None
    types: tuple[str, ...]
    after: int
    limit: int | None
    follow: bool


@click.command("events")
@app_option
@click.option("--stream", type=click.UUID, help="Only events of this stream.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="NAME",
    help="Only events of this name, in all versions or in one (Account.Credited@2); repeatable.",
)
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events after this position.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many events (default: all).")
@click.option("--follow", is_flag=True, help="Go on as the log grows, until SIGINT or SIGTERM.")
@json_option("Write JSON lines; errors are JSON too.")
@common_options
def events_command(
    app: str | None,
    stream: UUID | None,
    types: tuple[str, ...],
    after: int,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Read the log in the order of its positions. It needs no application; with one, --type is checked.

    \b
    Examples:
      cqrskit events --limit 20
      cqrskit events --stream 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c
      cqrskit events --type Account.Credited --after 1000 --json | head
      cqrskit events --follow
    """
    if app and types:
        registry = application_of(app).registry
        for name in types:
            if name not in registry:
                known = ", ".join(registry.stored_names)
                raise ConfigurationError(f"no event is stored as {name!r}; the names are {known}")
    selection = _Selection(stream, types, after, limit, follow)
    run_until_stopped(lambda stop: _events(selection, as_json, stop))


async def _events(selection: _Selection, as_json: bool, stop: asyncio.Event) -> None:
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    show = _as_json if as_json else _as_row
    async with database_url(settings) as url:
        await asyncio.to_thread(require_migrated, url, settings.connect_timeout_seconds)
        pool = await open_pool(url, connections_max=2, timeout_seconds=settings.connect_timeout_seconds)
        store = PostgresEventStore(pool, url, connect_timeout_seconds=settings.connect_timeout_seconds)
        try:
            if not as_json:
                print(f"{'position':>10}  {'recorded at':<26}  {'stream':<36}  {'version':>7}  type  data")
            shown = 0
            async for event in _read(store, selection, settings, stop):
                print(show(event), flush=selection.follow)
                shown += 1
                if shown == selection.limit:
                    break
        finally:
            await store.close()
            await pool.close()


async def _read(
    store: PostgresEventStore, selection: _Selection, settings: Settings, stop: asyncio.Event
) -> AsyncIterator[RecordedEvent]:
    """The wanted events, block by block, up to the head or until stopped."""
    if selection.stream is not None and not selection.follow:
        for event in await store.load_streams([selection.stream]):
            if event.position > selection.after and _is_wanted(event.type, selection.types):
                yield event
        return
    position = selection.after
    while not stop.is_set():
        block = await store.read(position, settings.block_size_max, selection.types or None)
        for event in block.events:
            if selection.stream in (None, event.stream_id):
                yield event
        position = block.until
        if position < block.head:
            continue
        if not selection.follow:
            return
        try:
            async with asyncio.timeout(settings.poll_interval_seconds):
                await stop.wait()
        except TimeoutError:
            continue


def _is_wanted(stored_name: str, types: tuple[str, ...]) -> bool:
    return not types or stored_name in types or base_of(stored_name) in types


def event_fields(event: RecordedEvent) -> dict[str, object]:
    """An event as JSON shows it; what is not JSON itself is `data_base64`, and `data` is null."""
    fields: dict[str, object] = {
        "position": event.position,
        "stream_id": event.stream_id,
        "stream_version": event.stream_version,
        "type": event.type,
        "recorded_at": event.recorded_at,
        "data": msgspec.Raw(event.data) if _is_json(event.data) else None,
        "metadata": msgspec.Raw(event.metadata),
    }
    if fields["data"] is None:
        fields["data_base64"] = event.data
    return fields


def _as_json(event: RecordedEvent) -> str:
    return msgspec.json.encode(event_fields(event)).decode()


def _as_row(event: RecordedEvent) -> str:
    data = event.data.decode() if _is_json(event.data) else f"({len(event.data)} bytes that are not JSON)"
    return (
        f"{event.position:>10}  {event.recorded_at:%Y-%m-%d %H:%M:%S.%f}  {event.stream_id}  "
        f"{event.stream_version:>7}  {event.type}  {data}"
    )


def _is_json(data: bytes) -> bool:
    """Whether people can read it: the eventsourcing library may compress or encrypt what it stores."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
