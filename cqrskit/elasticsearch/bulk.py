"""Bulk writes: bodies made of bytes, sent in parts, answered item by item.

The client's own helpers turn every document into a dict and back, at 15 times the CPU; here a document is encoded
once. Versions are external: Elasticsearch itself refuses to go back.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from elasticsearch import ApiError, AsyncElasticsearch

from cqrskit.document_codec import DocumentCodec, Unstorable, check_id
from cqrskit.elasticsearch.mapping import DELETED_FIELD, ID_FIELD, WORDS_FIELD
from cqrskit.errors import ReadStoreError, ServerUnavailable
from cqrskit.read_store import Change, Outcome

__all__ = ["write_in_bulk"]

PART_BYTES_MAX = 8 * 1024 * 1024
PARTS_IN_FLIGHT = 2
ATTEMPTS_MAX = 8
PAUSE_SECONDS_MAX = 5.0
NOT_FOUND, CONFLICT, TOO_MANY, SERVER_ERROR = 404, 409, 429, 500
ANSWERED = "items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
HEADERS = {
    "content-type": "application/vnd.elasticsearch+x-ndjson; compatible-with=8",
    "accept": "application/vnd.elasticsearch+json; compatible-with=8",
}

_encode = msgspec.json.encode
Item = tuple[int, bytes]
"""A change's place in the list, and its two lines of the bulk body."""


async def write_in_bulk(
    client: AsyncElasticsearch, alias: str, codec: DocumentCodec, changes: Sequence[Change]
) -> list[Outcome]:
    """Write all changes to the index behind an alias; one outcome each. Busy answers are tried again after a pause.

    Only an alias is written to: Elasticsearch would make a missing index anew, without our mapping.
    """
    outcomes = [Outcome(applied=False)] * len(changes)
    items: list[Item] = []
    for place, change in enumerate(changes):
        try:
            items.append((place, _lines(codec, change)))
        except Unstorable as error:
            outcomes[place] = Outcome(applied=False, refusal=str(error))
    in_flight = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def write(part: list[Item]) -> None:
        async with in_flight:
            await _write_part(client, alias, part, outcomes)

    async with asyncio.TaskGroup() as group:
        for part in _parts(items):
            group.create_task(write(part))
    return outcomes


def _lines(codec: DocumentCodec, change: Change) -> bytes:
    """The action line and the document, to which our own fields are added as bytes."""
    check_id(change.id)
    document_id = _encode(change.id)
    action = b'{"index":{"_id":%b,"version":%d,"version_type":"external"}}\n' % (document_id, change.version)
    if change.document is None:
        return b'%b{"%b":%b,"%b":true}\n' % (action, ID_FIELD.encode(), document_id, DELETED_FIELD.encode())
    data = codec.encode(change.document)
    own = b'"%b":%b' % (ID_FIELD.encode(), document_id)
    words = [f"{field}:{word}" for field, found in codec.words(data).items() for word in sorted(found)]
    if words:
        own += b',"%b":%b' % (WORDS_FIELD.encode(), _encode(words))
    comma = b"" if data == b"{}" else b","
    return b"%b%b%b%b}\n" % (action, data[:-1], comma, own)


def _parts(items: Sequence[Item]) -> Iterator[list[Item]]:
    part: list[Item] = []
    size = 0
    for item in items:
        if part and size + len(item[1]) > PART_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item[1])
    if part:
        yield part


async def _write_part(client: AsyncElasticsearch, alias: str, part: list[Item], outcomes: list[Outcome]) -> None:
    for attempt in range(ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, PAUSE_SECONDS_MAX))
        answers = await _send(client, alias, b"".join(lines for _, lines in part))
        if answers is None:
            continue
        again: list[Item] = []
        for item, answer in zip(part, answers, strict=True):
            status = answer["index"]["status"]
            if status == NOT_FOUND:
                raise ReadStoreError(f"{alias} is gone while it was being written to: start again to build it anew")
            if status == TOO_MANY or status >= SERVER_ERROR:
                again.append(item)
            else:
                outcomes[item[0]] = _outcome(status, answer["index"])
        if not again:
            return
        part = again
    raise ServerUnavailable("Elasticsearch", alias, f"{len(part)} documents were refused as too many, again and again")


async def _send(client: AsyncElasticsearch, alias: str, body: bytes) -> list[Any] | None:
    """Each item's answer, or None if the whole request came at a bad moment."""
    path = f"/{alias}/_bulk?filter_path={ANSWERED}&require_alias=true"
    try:
        response = await client.perform_request("POST", path, headers=HEADERS, body=body)
    except ApiError as error:
        if error.status_code == TOO_MANY or error.status_code >= SERVER_ERROR:
            return None
        raise ReadStoreError(f"Elasticsearch refused a bulk request to {alias}: {error}") from error
    answers: list[Any] = response["items"]
    return answers


def _outcome(status: int, answer: dict[str, Any]) -> Outcome:
    if status == CONFLICT:
        return Outcome(applied=False)
    error = answer.get("error")
    if error is None:
        return Outcome(applied=True)
    cause = error.get("caused_by", {}).get("reason")
    return Outcome(applied=False, refusal=f"{error['type']}: {error['reason']}" + (f" ({cause})" if cause else ""))
