"""What pages of the ledger are measured beside: the same rows of the same index or table, by a bare client.

Nothing is looked at in an answer while the clock runs, and nothing is decoded.
"""

import json
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
import psycopg
from psycopg import sql

__all__ = ["RawElasticsearch", "RawPages", "RawPostgres"]

HEADERS = {"content-type": "application/json"}
ROWS = 50


class RawPages(Protocol):
    """Asks for the newest 50 rows; `statement` those of an account, `found` those that have all the words."""

    name: str

    async def statement(self, account_id: str, before: int | None) -> Any:
        """Lines of one account, those before a position if one is given."""

    async def found(self, words: list[str]) -> Any:
        """Transfers."""

    def positions(self, answer: Any) -> list[int]:
        """The positions of an answer's rows."""


class RawElasticsearch:
    """By HTTP, on a connection that stays open; the bodies say what the ledger's own say."""

    name = "the same search by a bare HTTP client"

    def __init__(self, url: str, lines: str, transfers: str) -> None:
        """The names of the two indexes."""
        self._lines, self._transfers = f"{url}/{lines}/_search", f"{url}/{transfers}/_search"

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def statement(self, account_id: str, before: int | None) -> bytes:
        """A page of lines."""
        more = {} if before is None else {"search_after": [before]}
        return await self._search(self._lines, [{"term": {"account_id": account_id}}], more)

    async def found(self, words: list[str]) -> bytes:
        """A page of transfers."""
        conditions = [
            {"terms": {"cqrskit_words": [f"{field}:{word}" for field in ("description", "reference")]}}
            for word in words
        ]
        return await self._search(self._transfers, conditions, {})

    async def _search(self, url: str, conditions: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        body = {
            "query": {"bool": {"filter": conditions}},
            "sort": [{"position": {"order": "desc"}}],
            "size": ROWS,
            "track_total_hits": False,
            **more,
        }
        async with self._session.post(url, data=json.dumps(body).encode(), headers=HEADERS) as response:
            response.raise_for_status()
            return await response.read()

    def positions(self, answer: bytes) -> list[int]:
        """The positions of an answer's rows."""
        return [hit["_source"]["position"] for hit in json.loads(answer)["hits"]["hits"]]


class RawPostgres:
    """By SQL that the table's indexes serve, on a connection that stays open."""

    name = "the same rows by SQL"

    def __init__(self, url: str, lines: str, transfers: str) -> None:
        """The names of the two tables, with their schema."""
        self._url = url
        self._lines, self._transfers = (sql.Identifier(*name.split(".")) for name in (lines, transfers))

    async def __aenter__(self) -> Self:
        self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def statement(self, account_id: str, before: int | None) -> list[Any]:
        """A page of lines."""
        query = sql.SQL(
            "SELECT document::text FROM {} "
            "WHERE (document->>'account_id') COLLATE \"C\" = %s AND (document->>'position')::bigint < %s "
            "ORDER BY (document->>'position')::bigint DESC LIMIT %s"
        )
        values = (account_id, 2**63 - 1 if before is None else before, ROWS)
        return await self._rows(query.format(self._lines), values)

    async def found(self, words: list[str]) -> list[Any]:
        """A page of transfers."""
        each_word = sql.SQL(" AND ").join(sql.SQL("words && %s::text[]") for _ in words)
        query = sql.SQL("SELECT document::text FROM {} WHERE {} ORDER BY (document->>'position')::bigint DESC LIMIT %s")
        values = [[f"{field}:{word}" for field in ("description", "reference")] for word in words]
        return await self._rows(query.format(self._transfers, each_word), (*values, ROWS))

    async def _rows(self, query: sql.Composed, values: tuple[Any, ...]) -> list[Any]:
        return await (await self._connection.execute(query, values)).fetchall()

    def positions(self, answer: list[Any]) -> list[int]:
        """The positions of an answer's rows."""
        return [json.loads(text)["position"] for (text,) in answer]
