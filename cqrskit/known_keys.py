"""The keys that were used lately, so that a request asks no database who sent it.

A key that was revoked opens nothing any more within `FRESH_SECONDS`, as long as this process can ask the database.
While it cannot, keys that it has asked about in the last `KEPT_SECONDS` go on, also one that was revoked from
elsewhere. What such a key can still do is to read what is in Elasticsearch: commands need the same database. A key that
is not known here is not refused then: whether it is one cannot be told, and that is what its sender hears.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from cqrskit.access import ApiKey, ApiKeys
from cqrskit.errors import ServerUnavailable

__all__ = ["KnownKeys"]

log = structlog.get_logger(__name__)

FRESH_SECONDS = 1.0
KEPT_SECONDS = 60.0
PATIENCE_SECONDS = 0.5
"""So long a request waits for the database before it goes on with what was known."""
KEYS_MAX = 10_000
IDS_PER_QUERY = 1_000


class _Known(msgspec.Struct):
    """A key as it was looked up; by the monotonic clock, until when that holds, and until when if need be."""

    key: ApiKey
    fresh_until: float
    kept_until: float


class KnownKeys:
    """Finds keys by their ids: in memory, or by one query at a time for all that are asked for meanwhile.

    So keys that somebody makes up cost at most one connection, however many come.
    """

    def __init__(self, keys: ApiKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._wanted: dict[str, asyncio.Future[ApiKey | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of this id, be it usable or not. Raises ServerUnavailable if that cannot be found out."""
        known = self._known.get(key_id)
        if known is not None:
            now = self._clock()
            if now < known.fresh_until:
                return known.key
            if now < known.kept_until:
                return await self._find_anew(key_id, known)
        return await asyncio.shield(self._ask(key_id))

    async def _find_anew(self, key_id: str, known: _Known) -> ApiKey | None:
        """What the database says, or what was known if it does not answer soon."""
        answer = self._ask(key_id)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await asyncio.shield(answer)
        except (ServerUnavailable, TimeoutError) as error:
            if self._clock() >= known.kept_until:
                return await asyncio.shield(self._ask(key_id))
            if self._clock() >= known.fresh_until:  # the first one to find out says so
                known.fresh_until = self._clock() + FRESH_SECONDS
                log.warning("access.keys_not_looked_up", reason=str(error) or "no answer yet")
            return known.key

    def _ask(self, key_id: str) -> "asyncio.Future[ApiKey | None]":
        found = self._wanted.get(key_id)
        if found is None:
            found = self._wanted[key_id] = asyncio.get_running_loop().create_future()
            found.add_done_callback(_see_error)
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._look_up(), name="cqrskit-api-keys")
        return found

    async def _look_up(self) -> None:
        """Ask for all that are wanted, as long as there are any."""
        while self._wanted:
            ids = list(self._wanted)[:IDS_PER_QUERY]
            waiting = {key_id: self._wanted[key_id] for key_id in ids}
            begun = self._clock()
            try:
                found = {key.id: key for key in await self._keys.find(ids)}
            except BaseException as error:
                self._end(waiting, error)
                if not isinstance(error, Exception):
                    raise
            else:
                for key_id, answer in waiting.items():
                    self._keep(key_id, found.get(key_id), begun)
                    del self._wanted[key_id]
                    if not answer.done():
                        answer.set_result(found.get(key_id))

    def _end(self, waiting: "dict[str, asyncio.Future[ApiKey | None]]", error: BaseException) -> None:
        for key_id, answer in waiting.items():
            del self._wanted[key_id]
            if answer.done():
                continue
            if isinstance(error, Exception):
                answer.set_exception(error)
            else:
                answer.cancel()

    def _keep(self, key_id: str, key: ApiKey | None, begun: float) -> None:
        """Remember what is a key. Times count from before the question, for a key may be revoked after it."""
        self._known.pop(key_id, None)
        if key is None:
            return
        self._known[key_id] = _Known(key, begun + FRESH_SECONDS, begun + KEPT_SECONDS)
        if len(self._known) > KEYS_MAX:
            del self._known[next(iter(self._known))]


def _see_error(answer: "asyncio.Future[ApiKey | None]") -> None:
    """Look at an error that nobody waits for any more, so that asyncio does not complain."""
    if not answer.cancelled():
        answer.exception()
