"""The servers that one process of an application works with: opened in order, closed in the opposite order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from cqrskit.elasticsearch.connection import Access
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore
from cqrskit.embedded import EmbeddedPostgres
from cqrskit.errors import ConfigurationError, ServerUnavailable
from cqrskit.metrics import Metrics
from cqrskit.postgres.api_keys import PostgresApiKeys
from cqrskit.postgres.checkpoints import PostgresCheckpoints
from cqrskit.postgres.connections import AsyncPool, address_of, is_lasting, open_pool
from cqrskit.postgres.due_commands import PostgresDueCommands
from cqrskit.postgres.event_store import PostgresEventStore
from cqrskit.postgres.feed import LogListener, LogNotifier
from cqrskit.postgres.migrate import migrate, require_migrated
from cqrskit.postgres.read_store import PostgresReadStore
from cqrskit.read_store import ReadStore
from cqrskit.settings import Settings
from cqrskit.store_identity import StoreIdentity
from cqrskit.tasks import end_tasks, retry_delays
from cqrskit.tracing import Tracer

__all__ = ["Servers", "database_url", "open_servers", "open_tracer"]

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Servers(msgspec.Struct, frozen=True):
    """The ports beneath an application, each wired to its server. `database_url` may hold a password."""

    database_url: str
    event_store: PostgresEventStore
    read_store: ReadStore
    identity: StoreIdentity
    checkpoints: PostgresCheckpoints
    api_keys: PostgresApiKeys
    due_commands: PostgresDueCommands
    notifier: LogNotifier
    listener: LogListener


@asynccontextmanager
async def open_servers(
    settings: Settings, metrics: Metrics, *, waits: bool, needs_read_store: bool
) -> AsyncIterator[Servers]:
    """Wire the ports to the servers that the settings name. Raises ServerUnavailable, or what is wrong with them.

    `waits`: servers that are away are waited for, as long as the settings say. With `needs_read_store` False an
    Elasticsearch that is still away then is looked for in the background, and what needs it raises ServerUnavailable.
    """
    retried = metrics.retries.count
    timeout_seconds = settings.connect_timeout_seconds
    patience_seconds = timeout_seconds if waits else 0.0
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(database_url(settings))
        pool = await _patiently(lambda: _open_database(settings, url), patience_seconds)
        stack.push_async_callback(pool.close)
        event_store = PostgresEventStore(
            pool, url, connect_timeout_seconds=timeout_seconds, on_reconnect=partial(retried, "postgres_writer")
        )
        stack.push_async_callback(event_store.close)
        read_store = _read_store(settings, PostgresReadStore(pool, url, settings.index_prefix), metrics)
        await read_store.open()
        stack.push_async_callback(read_store.close)
        identity = StoreIdentity(read_store)
        try:
            await _patiently(identity.learn, patience_seconds)
        except ServerUnavailable as error:
            if needs_read_store or settings.elasticsearch_url is None:
                raise
            log.warning("read_store.away", address=error.address, reason=error.reason)
            learning = asyncio.create_task(identity.keep_learning(), name="cqrskit-read-store")
            stack.push_async_callback(end_tasks, [learning])
        yield Servers(
            database_url=url,
            event_store=event_store,
            read_store=read_store,
            identity=identity,
            checkpoints=PostgresCheckpoints(pool, url, identity.known),
            api_keys=PostgresApiKeys(pool, url),
            due_commands=PostgresDueCommands(pool, url),
            notifier=LogNotifier(
                url, connect_timeout_seconds=timeout_seconds, on_reconnect=partial(retried, "postgres_notifier")
            ),
            listener=LogListener(
                url, connect_timeout_seconds=timeout_seconds, on_reconnect=partial(retried, "postgres_listener")
            ),
        )


def open_tracer(settings: Settings, service: str) -> Tracer | None:
    """What makes traces, if the settings say so. ConfigurationError if OpenTelemetry, or an exporter, is missing."""
    if not settings.tracing:
        return None
    try:
        from cqrskit.opentelemetry import tracer_of
    except ImportError as error:
        raise ConfigurationError(
            f"CQRSKIT_TRACING needs OpenTelemetry ({error}): install `cqrskit[tracing]`, or unset it"
        ) from error
    return tracer_of(service)


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """The database to use: the configured one, or an embedded Postgres that runs as long as the context."""
    if settings.database_url is not None:
        address_of(settings.database_url)
        yield settings.database_url
        return
    log.info("database.embedded", folder=str(settings.postgres_folder), setting="CQRSKIT_DATABASE_URL")
    server = await asyncio.to_thread(EmbeddedPostgres(settings.postgres_folder).start)
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


async def _open_database(settings: Settings, url: str) -> AsyncPool:
    """A pool to the database; an embedded one is migrated at once, any other must have been."""
    timeout_seconds = settings.connect_timeout_seconds
    if settings.database_url is None:
        await asyncio.to_thread(migrate, url)
    else:
        await asyncio.to_thread(require_migrated, url, timeout_seconds)
    return await open_pool(url, connections_max=settings.connections_max, timeout_seconds=timeout_seconds)


async def _patiently(attempt: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What the attempt gives; as long as a server is away it is made again, for so many seconds, and once at least.

    Raises what the last one raised. What waiting does not mend is raised at once.
    """
    away: ServerUnavailable | None = None
    async for _ in retry_delays(seconds):
        try:
            return await attempt()
        except ServerUnavailable as error:
            if is_lasting(error):
                raise
            if away is None and seconds:
                log.warning(
                    "servers.waiting", server=error.server, address=error.address, reason=error.reason, seconds=seconds
                )
            away = error
    assert away is not None, "there is one attempt at least"
    raise away


def _read_store(settings: Settings, in_postgres: ReadStore, metrics: Metrics) -> ReadStore:
    if settings.elasticsearch_url is None:
        log.info("read_models.postgres", setting="CQRSKIT_ELASTICSEARCH_URL")
        return in_postgres
    store = ElasticsearchReadStore(
        settings.elasticsearch_url,
        settings.index_prefix,
        access=Access(
            api_key=settings.elasticsearch_api_key,
            ca_file=settings.elasticsearch_ca_file,
            certificate_fingerprint=settings.elasticsearch_certificate_fingerprint,
        ),
        request_timeout_seconds=settings.elasticsearch_request_timeout_seconds,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        bulk_max_documents=settings.elasticsearch_bulk_max_documents,
        bulk_max_bytes=settings.elasticsearch_bulk_max_bytes,
        bulk_max_requests=settings.elasticsearch_bulk_max_requests,
        circuit_max_failures=settings.elasticsearch_circuit_max_failures,
        circuit_max_pause_seconds=settings.elasticsearch_circuit_max_pause_seconds,
        on_bulk_retry=partial(metrics.retries.count, "bulk_write"),
    )
    metrics.watch_circuit(lambda: store.circuit.state)
    return store
