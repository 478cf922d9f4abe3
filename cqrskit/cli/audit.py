"""``cqrskit audit``: who did what, and when, as the log tells it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import rich_click as click

from cqrskit.cli.running import common_options, json_option, run_until_stopped
from cqrskit.errors import ConfigurationError
from cqrskit.events import Metadata, RecordedEvent
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.postgres.migrate import require_migrated
from cqrskit.servers import database_url
from cqrskit.settings import Settings, load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["Deed", "audit_command"]

STREAM_IDS_MAX = 10
_metadata_in = msgspec.json.Decoder(Metadata).decode


class Deed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Neighbouring events of the log that one command caused, or several of one kind in one request.

    `events` counts them by their stored names; `stream_ids` are the first ten of all their `streams`.
    """

    at: datetime
    actor: str | None = None
    command: str | None = None
    correlation_id: str | None = None
    first_position: int
    last_position: int
    events: dict[str, int]
    streams: int
    stream_ids: list[UUID]


class _Question(msgspec.Struct, frozen=True):
    """Which deeds are wanted."""

    actor: str | None
    command: str | None
    stream: UUID | None
    since: datetime | None
    until: datetime | None
    limit: int | None

    def covers(self, event: RecordedEvent, metadata: Metadata) -> bool:
        """Whether an event is one of them."""
        return (
            self.actor in (None, metadata.actor)
            and self.command in (None, metadata.command)
            and self.stream in (None, event.stream_id)
            and (self.since is None or event.recorded_at >= self.since)
            and (self.until is None or event.recorded_at < self.until)
        )


@click.command("audit")
@click.option("--actor", metavar="NAME", help="Only what this one did: the name of an API key.")
@click.option("--command", metavar="NAME", help="Only this command, such as PostTransfer.")
@click.option("--stream", type=click.UUID, help="Only what was done to this stream.")
@click.option("--since", metavar="MOMENT", help="At this moment or later: 2026-05-01, or 2026-05-01T09:30:00+02:00.")
@click.option("--until", metavar="MOMENT", help="Before this moment.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many lines (default: all).")
@json_option("Write JSON lines; errors are JSON too.")
@common_options
def audit_command(
    actor: str | None,
    command: str | None,
    stream: UUID | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show who did what, and when: a line for each command that took effect, in the order of the log.

    Moments without a time zone are in UTC. It reads the log from its beginning, or one stream of it, and needs no
    application.

    \b
    Examples:
      cqrskit audit --actor shop --since 2026-05-01
      cqrskit audit --stream 6f1c1a2e-2f0e-4c9f-9f7e-0f6d3a1f2b3c
      cqrskit audit --command PostTransfer --json
    """
    question = _Question(actor, command, stream, _moment(since, "--since"), _moment(until, "--until"), limit)
    run_until_stopped(lambda stop: _audit(question, as_json, stop))


async def _audit(question: _Question, as_json: bool, stop: asyncio.Event) -> None:
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    async with database_url(settings) as url:
        await asyncio.to_thread(require_migrated, url, settings.connect_timeout_seconds)
        pool = await open_pool(url, connections_max=2, timeout_seconds=settings.connect_timeout_seconds)
        store = PostgresEventStore(pool, url, connect_timeout_seconds=settings.connect_timeout_seconds)
        try:
            if not as_json:
                print(f"{'at':<26}  {'actor':<16}  {'command':<20}  {'positions':>15}  events")
            shown = 0
            async for deed in _deeds(store, question, settings, stop):
                print(msgspec.json.encode(deed).decode() if as_json else _row(deed))
                shown += 1
                if shown == question.limit:
                    break
        finally:
            await store.close()
            await pool.close()


async def _deeds(
    store: PostgresEventStore, question: _Question, settings: Settings, stop: asyncio.Event
) -> AsyncIterator[Deed]:
    """The wanted events, put together as far as they are neighbours that say the same of where they come from."""
    deed: Deed | None = None
    said: bytes | None = None
    streams: set[UUID] = set()
    counts: Counter[str] = Counter()
    async for event in _events(store, question.stream, settings, stop):
        metadata = _metadata_in(event.metadata)
        if not question.covers(event, metadata):
            continue
        if deed is None or said != event.metadata or event.position != deed.last_position + 1:
            if deed is not None:
                yield _counted(deed, counts, streams)
            said, streams, counts = event.metadata, set(), Counter()
            deed = _begun_with(event, metadata)
        deed.last_position = event.position
        counts[event.type] += 1
        streams.add(event.stream_id)
        if len(streams) <= STREAM_IDS_MAX and event.stream_id not in deed.stream_ids:
            deed.stream_ids.append(event.stream_id)
    if deed is not None:
        yield _counted(deed, counts, streams)


async def _events(
    store: PostgresEventStore, stream: UUID | None, settings: Settings, stop: asyncio.Event
) -> AsyncIterator[RecordedEvent]:
    """The log up to its head, or a stream of it; until stopped."""
    if stream is not None:
        for event in await store.load_streams([stream]):
            yield event
        return
    position = 0
    while not stop.is_set():
        block = await store.read(position, settings.block_size_max)
        for event in block.events:
            yield event
        position = block.until
        if position >= block.head:
            return


def _begun_with(event: RecordedEvent, metadata: Metadata) -> Deed:
    return Deed(
        at=event.recorded_at,
        actor=metadata.actor,
        command=metadata.command,
        correlation_id=metadata.correlation_id,
        first_position=event.position,
        last_position=event.position,
        events={},
        streams=0,
        stream_ids=[],
    )


def _counted(deed: Deed, counts: Counter[str], streams: set[UUID]) -> Deed:
    deed.events, deed.streams = dict(counts), len(streams)
    return deed


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{option} {text!r} is no moment: write 2026-05-01, or 2026-05-01T09:30:00+02:00"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _row(deed: Deed) -> str:
    positions = f"{deed.first_position}–{deed.last_position}"
    events = ", ".join(name if count == 1 else f"{count} × {name}" for name, count in deed.events.items())
    return (
        f"{deed.at:%Y-%m-%d %H:%M:%S.%f}  {deed.actor or '':<16}  {deed.command or '':<20}  {positions:>15}  {events}"
    )
