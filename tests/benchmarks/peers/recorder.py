"""eventsourcing, on whose aggregates we build, as its documentation sets it up: its recorder and its application."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent

from cqrskit.events import NewEvent

__all__ = ["Eventsourcing", "stored"]


class PeerCounter(Aggregate):
    """A counter in the library's own words."""

    def __init__(self) -> None:
        self.value = 0

    @event("Grown")
    def grow(self, by: int) -> None:
        """Add to it."""
        self.value += by


def stored(events: Sequence[NewEvent]) -> list[StoredEvent]:
    """The same events in the recorder's words."""
    return [StoredEvent(each.stream_id, each.stream_version, each.type, each.data) for each in events]


class Eventsourcing:
    """Its application on an own database. Threads share the pool, which has a connection for each."""

    def __init__(self, url: str, *, threads: int) -> None:
        """`url` names an empty database."""
        parts = urlsplit(url)
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.removeprefix("/"),
            "POSTGRES_HOST": parts.hostname or parse_qs(parts.query)["host"][0],
            "POSTGRES_PORT": str(parts.port or os.environ.get("PGPORT", "5432")),
            "POSTGRES_USER": parts.username or "postgres",
            "POSTGRES_PASSWORD": parts.password or "none",
            "POSTGRES_POOL_SIZE": str(threads),
        }
        self._application: Any = Application(environment)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        self._application.close()

    def insert(self, batches: Sequence[Sequence[StoredEvent]]) -> None:
        """Record batches, one call for each, one after another."""
        for batch in batches:
            self._application.recorder.insert_events(batch)

    def insert_one_by_one(self, count: int) -> None:
        """Record `count` events, one for each call, from all threads at once."""

        def insert(number: int) -> None:
            for _ in range(number, count, self._threads):
                stream_id = uuid4()
                self._application.recorder.insert_events([StoredEvent(stream_id, 1, "Counter.Grown", b'{"by":1}')])

        self._in_threads(insert)

    def counters(self, count: int) -> list[Any]:
        """So many counters, saved."""
        counters = [PeerCounter() for _ in range(count)]
        self._application.save(*counters)
        return counters

    def grow(self, counters: Sequence[Any], count: int) -> None:
        """Get a counter, change it and save it, `count` times from all threads at once; each has its own counters."""

        def grow(number: int) -> None:
            for step in range(number, count, self._threads):
                counter = self._application.repository.get(counters[step % len(counters)].id)
                counter.grow(by=1)
                self._application.save(counter)

        self._in_threads(grow)

    def _in_threads(self, work: Callable[[int], None]) -> None:
        list(self._pool.map(work, range(self._threads)))
