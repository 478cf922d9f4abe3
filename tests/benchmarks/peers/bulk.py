"""What writes of documents are measured beside: their bytes, made beforehand, and the client's own helper with dicts.

None of it looks at the answers item by item; an item that failed is an error.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import aiohttp
import psycopg
from elasticsearch import AsyncElasticsearch
from elasticsearch.helpers import async_bulk, async_scan
from psycopg import sql

__all__ = ["Written", "bulk_bodies", "copy_bodies", "copy_into", "send_bodies", "send_dicts", "written"]

HEADERS = {"content-type": "application/x-ndjson"}


class Written(NamedTuple):
    """A document as an index has it."""

    id: str
    version: int
    source: dict[str, Any]


async def written(url: str, index: str) -> list[Written]:
    """All documents of an index, in the order of their versions."""
    async with AsyncElasticsearch(url) as client:
        found = [
            Written(hit["_id"], hit["_version"], hit["_source"])
            async for hit in async_scan(client, index=index, size=5_000, version=True)
        ]
    return sorted(found, key=lambda each: each.version)


def bulk_bodies(documents: Sequence[Written], part: int) -> list[bytes]:
    """The bodies of bulk requests for so many documents each, byte for byte as a projector sends them."""
    return [b"".join(_lines(each) for each in some) for some in _parts(documents, part)]


def _lines(document: Written) -> bytes:
    action = {"index": {"_id": document.id, "version": document.version, "version_type": "external"}}
    return b"".join(_json(each) + b"\n" for each in (action, document.source))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


async def send_bodies(url: str, index: str, bodies: Sequence[bytes], in_flight: int) -> None:
    """Send these bytes by a bare HTTP client, so many requests at a time, and refresh."""
    waiting = iter(bodies)
    async with aiohttp.ClientSession() as session:

        async def send() -> None:
            for body in waiting:
                path = f"{url}/{index}/_bulk?filter_path=errors"
                async with session.post(path, data=body, headers=HEADERS) as response:
                    answer = await response.read()
                if answer != b'{"errors":false}':
                    raise RuntimeError(f"not every item was taken: {response.status} {answer[:500]!r}")

        await asyncio.gather(*(send() for _ in range(in_flight)))
        async with session.post(f"{url}/{index}/_refresh") as response:
            response.raise_for_status()


async def send_dicts(url: str, index: str, documents: Sequence[Written], chunk: int) -> None:
    """Send dicts by the client's own helper, in chunks of so many, and refresh."""
    async with AsyncElasticsearch(url, request_timeout=60) as client:
        actions = (
            {"_id": each.id, "version": each.version, "version_type": "external", "_source": each.source}
            for each in documents
        )
        await async_bulk(client, actions, chunk_size=chunk, index=index)
        await client.indices.refresh(index=index)


def copy_bodies(documents: Sequence[Written], part: int, own_fields: Sequence[str]) -> list[bytes]:
    """The same documents without `own_fields`, as bodies of COPY in its text format."""
    return [b"".join(_copy_row(each, own_fields) for each in some) for some in _parts(documents, part)]


def _copy_row(document: Written, own_fields: Sequence[str]) -> bytes:
    kept = {name: value for name, value in document.source.items() if name not in own_fields}
    return b"%b\t%d\t%b\t{}\n" % (document.id.encode(), document.version, _json(kept).replace(b"\\", rb"\\"))


async def copy_into(url: str, table: str, bodies: Sequence[bytes]) -> None:
    """Copy these bytes into a table of documents, each body in a transaction of its own."""
    statement = sql.SQL("COPY {} (id, version, document, words) FROM STDIN").format(sql.Identifier(*table.split(".")))
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for body in bodies:
            async with connection.cursor() as cursor, cursor.copy(statement) as copy:
                await copy.write(body)


def _parts(documents: Sequence[Written], part: int) -> Iterator[Sequence[Written]]:
    return (documents[begin : begin + part] for begin in range(0, len(documents), part))
