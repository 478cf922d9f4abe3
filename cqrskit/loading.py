"""Loading what a batch of commands needs into the repository: thousands of streams in one query, but not without end.

How many events a stream brings is learnt from the loads before. Streams are then asked for in portions that bring about
`EVENTS_MAX` events, so that neither memory nor the time until others get a turn grows with the age of the streams.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from cqrskit.event_store import LogReader
from cqrskit.receipts import Receipt
from cqrskit.repository import Repository

__all__ = ["Loader"]

EVENTS_MAX = 4_000
STREAMS_MIN = 64


class Loader:
    """Fills one repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._events_per_stream = 1.0

    async def load(
        self,
        stream_ids: Iterable[UUID],
        keys: Sequence[str],
        reader: LogReader,
        *,
        as_of: int,
        undurable: Callable[[UUID], Iterable[Any]],
    ) -> dict[str, Receipt]:
        """Load what is not known of these streams, and return the receipts of these keys.

        `undurable` gives the events of a stream that were decided and are perhaps not in the log yet. What the reader
        sees contains the head `as_of`.
        """
        repository = self._repository
        wanted = repository.versions_to_load(stream_ids)
        receipts: dict[str, Receipt] = {}
        if not wanted and not keys:
            return receipts
        rest = iter(wanted.items())
        while True:
            portion = dict(islice(rest, max(STREAMS_MIN, int(EVENTS_MAX / self._events_per_stream))))
            if not portion and not keys:
                return receipts
            found = await reader.load(portion, keys, repository.shapes)
            repository.learn(portion, found, as_of)
            for stream_id in portion:
                repository.replay(stream_id, undurable(stream_id))
            receipts.update((receipt.key, receipt) for receipt in found.receipts)
            keys = ()
            self._note(len(portion), len(found.events))

    def _note(self, streams: int, events: int) -> None:
        """Follow the average, more slowly for small portions, which say little."""
        if streams:
            weight = min(1.0, streams / STREAMS_MIN) / 4
            self._events_per_stream += weight * (max(1.0, events / streams) - self._events_per_stream)
