"""What every group measures with: the servers, how much work, and a word to whoever waits."""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

from cqrskit import Settings
from cqrskit.testing import ElasticsearchServer, PostgresServer

__all__ = ["Bench", "garbage_collected_as_in_services"]

FULL_ROUNDS, FEW_ROUNDS = 5, 3


@contextmanager
def garbage_collected_as_in_services() -> Iterator[None]:
    """What is in memory now is not looked through again and again, as it is not in a service or worker of cqrskit.

    Else the objects of what was measured before would stop what is measured now.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(Settings().garbage_collection_threshold_objects, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Bench:
    """The servers of one run, started when they are first needed, and the share of the full work that it does."""

    def __init__(self, share: float) -> None:
        """`share` 1 is the full run, 0.05 the quick one."""
        self.share = share
        self.rounds = FULL_ROUNDS if share >= 1 else FEW_ROUNDS if share >= 0.1 else 1
        self._stack = ExitStack()
        self._postgres: PostgresServer | None = None
        self._elasticsearch: ElasticsearchServer | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Tell on standard error what is being done."""
        print(f"{time.monotonic() - self._begun:6.0f} s  {text}", file=sys.stderr, flush=True)

    def amount(self, full: int, *, at_least: int = 1) -> int:
        """How much of the full amount of work this run does."""
        return max(at_least, round(full * self.share))

    def seconds(self, full: float) -> float:
        """How long something that takes `full` seconds in a full run takes in this one."""
        return max(0.2, full * min(1.0, self.share * 4))

    @property
    def postgres(self) -> PostgresServer:
        """A Postgres with default settings."""
        if self._postgres is None:
            self._postgres = PostgresServer().start()
            self._stack.callback(self._postgres.stop)
        return self._postgres

    async def elasticsearch_url(self) -> str:
        """Where an Elasticsearch is; the first call waits until it has started."""
        if self._elasticsearch is None:
            self.say("starting Elasticsearch")
            server = await asyncio.to_thread(ElasticsearchServer().start)
            self._stack.callback(server.stop)
            self._elasticsearch = server
        return self._elasticsearch.url

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[str]:
        """URL of a database for as long as the context."""
        url = self.postgres.create_database(migrated=migrated)
        try:
            yield url
        finally:
            self.postgres.drop_database(url)
