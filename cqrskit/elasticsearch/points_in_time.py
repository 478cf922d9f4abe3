"""Points in time: pages that show one moment of an index, whatever is written meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

from elasticsearch import BadRequestError, NotFoundError

from cqrskit.cursors import GONE
from cqrskit.elasticsearch.connection import Connection
from cqrskit.elasticsearch.search_body import scan_body, search_body
from cqrskit.errors import IndexMissing, InvalidCursor, ReadStoreError, ServerUnavailable
from cqrskit.query import STABLE_FOR_SECONDS
from cqrskit.query_plan import Plan
from cqrskit.read_store import Page, Stored, page_of

__all__ = ["PointsInTime"]

KEEP_ALIVE = f"{STABLE_FOR_SECONDS}s"
SCAN_SIZE = 5_000
"""Documents of one request of a scan."""


class PointsInTime:
    """Requests on points in time; each is kept for some minutes after it was last used, and closed when it is done."""

    def __init__(self, connection: Connection) -> None:
        """Send by this connection."""
        self._connection = connection
        self._client = connection.client

    async def page(self, name: str, plan: Plan, stored: Callable[[Any], Stored]) -> Page:
        """A page of a stable query on the index of this name; its cursor holds the point in time."""
        held = await self._open(name) if plan.held is None else plan.held
        try:
            response = await self._search(held, search_body(plan))
        except ReadStoreError as error:
            if plan.held is not None and isinstance(error.__cause__, NotFoundError | BadRequestError):
                raise InvalidCursor(GONE) from error
            raise
        rows = response["hits"]["hits"]
        if any(row["_index"] != name for row in rows):  # a cursor comes from outside, and names what is read
            raise InvalidCursor(GONE)
        page = page_of(plan, [stored(row) for row in rows], held=response["pit_id"])
        if page.next is None:
            await self._close(response["pit_id"])
        return page

    async def scan(self, name: str) -> AsyncGenerator[Any, None]:
        """All rows of the index of this name, ordered by id; the next ones are fetched while some are looked at."""
        held = await self._open(name)
        coming = asyncio.create_task(self._search(held, scan_body(None, SCAN_SIZE)))
        try:
            while True:
                response = await coming
                held, rows = response["pit_id"], response["hits"]["hits"]
                last = len(rows) < SCAN_SIZE
                if not last:
                    coming = asyncio.create_task(self._search(held, scan_body(rows[-1]["sort"][0], SCAN_SIZE)))
                for row in rows:
                    yield row
                if last:
                    return
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await self._close(held)

    async def _open(self, name: str) -> str:
        """The id of a new point in time. Raises IndexMissing."""
        try:
            with self._connection.request():
                response = await self._client.open_point_in_time(index=name, keep_alive=KEEP_ALIVE)
        except ReadStoreError as error:
            if isinstance(error.__cause__, NotFoundError):
                raise IndexMissing(name) from error
            raise
        return str(response["id"])

    async def _search(self, held: str, body: dict[str, Any]) -> Any:
        body = {**body, "pit": {"id": held, "keep_alive": KEEP_ALIVE}}
        with self._connection.request():
            return await self._client.search(body=body, allow_partial_search_results=False)

    async def _close(self, held: str) -> None:
        """Give it back; one that cannot be closed now ends by itself."""
        with suppress(ServerUnavailable, ReadStoreError), self._connection.request():
            await self._client.options(ignore_status=404).close_point_in_time(id=held)
