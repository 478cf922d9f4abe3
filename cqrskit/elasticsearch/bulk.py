"""Bulk writes: bodies made of bytes, sent in parts, answered item by item.

The client's own helpers turn every document into a dict and back, at 15 times the CPU; here a document is encoded
once. Versions are external: Elasticsearch itself refuses to go back.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from elasticsearch import ApiError

from cqrskit.document_codec import ID_BYTES_MAX, DocumentCodec, Unstorable, check_id
from cqrskit.elasticsearch.connection import BLOCKED, Connection, is_busy, is_busy_status, reason_of
from cqrskit.elasticsearch.mapping import DELETED_FIELD, ID_FIELD, WORDS_FIELD
from cqrskit.errors import ReadStoreError, ServerUnavailable
from cqrskit.read_store import Change

__all__ = ["BulkWriter"]

ATTEMPTS_MAX = 8
PAUSE_SECONDS_MAX = 5.0
RETRY_AFTER_SECONDS_MAX = 60.0
REFUSED, NOT_FOUND, CONFLICT, TOO_LARGE = 400, 404, 409, 413
NOT_THE_DOCUMENT = ("index_closed_exception", "invalid_index_name_exception")
"""Types of errors that Elasticsearch answers with 400 although the document is not to blame."""
NO_WRITE_INDEX = "no write index is defined"
ANSWERED = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by"
HEADERS = {
    "content-type": "application/vnd.elasticsearch+x-ndjson; compatible-with=8",
    "accept": "application/vnd.elasticsearch+json; compatible-with=8",
}

_OWN_ID = b'"%b":' % ID_FIELD.encode()
_DELETED = b',"%b":true}\n' % DELETED_FIELD.encode()
_encode = msgspec.json.Encoder().encode
Item = tuple[str, bytes]
"""A document's id, and its two lines of the bulk body."""


class _Busy(msgspec.Struct):
    """The server takes nothing at this moment; it may say after how many seconds to come again."""

    reason: str
    retry_after_seconds: float = 0.0


class BulkWriter:
    """Writes changes to an index behind an alias; one part of them is one request."""

    def __init__(
        self,
        connection: Connection,
        *,
        max_documents: int,
        max_bytes: int,
        max_requests: int,
        request_timeout_seconds: float,
        on_retry: Callable[[], None],
    ) -> None:
        """A part ends at `max_documents`, or before it exceeds `max_bytes` (a larger document is a part of its own).

        `max_requests` parts of one `write` are under way at once. `on_retry` is called when what is left of a part is
        sent again.
        """
        self._connection = connection
        self._on_retry = on_retry
        self._max_documents = max_documents
        self._max_bytes = max_bytes
        self._max_requests = max_requests
        # The server gives up waiting for a missing shard before we do, and so can still say which items it has written.
        self._wait_milliseconds = max(1, round(request_timeout_seconds * 500))

    async def write(self, alias: str, codec: DocumentCodec, changes: Sequence[Change]) -> dict[str, str]:
        """Write all changes. Those that Elasticsearch will never take, by id, with the reason.

        Busy answers are tried again after a growing pause. ServerUnavailable says that it is not known of some changes
        whether they are written: write all of them again, which changes nothing where they are. Only an alias is
        written to: Elasticsearch would make a missing index anew, without our mapping.
        """
        refused: dict[str, str] = {}
        in_flight = asyncio.Semaphore(self._max_requests)

        async def write(part: list[Item]) -> None:
            try:
                await self._write_part(alias, part, refused)
            finally:
                in_flight.release()

        try:
            async with asyncio.TaskGroup() as group:
                for some in self._evenly(changes):
                    for part in self._parts(codec, some, refused):
                        await in_flight.acquire()
                        group.create_task(write(part))
                        await asyncio.sleep(0)  # so that it is sent before the next part is made
        except* (ServerUnavailable, ReadStoreError) as errors:
            raise errors.exceptions[0] from errors
        return refused

    def _evenly(self, changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
        """As few parts as can be, of one size: a small last one would be waited for as long as a large one."""
        size = -(-len(changes) // max(1, -(-len(changes) // self._max_documents)))
        for begin in range(0, len(changes), max(1, size)):
            yield changes[begin : begin + size]

    def _parts(self, codec: DocumentCodec, changes: Sequence[Change], refused: dict[str, str]) -> Iterator[list[Item]]:
        """What is to be sent, in requests that are not too large. Documents that no store takes are `refused`."""
        part: list[Item] = []
        size = 0
        encoded = codec.encode_all([change.document for change in changes])
        for change, data in zip(changes, encoded, strict=True):
            try:
                lines = _lines(codec, change, data)
            except Unstorable as error:
                refused[change.id] = str(error)
                continue
            if part and size + len(lines) > self._max_bytes:
                yield part
                part, size = [], 0
            part.append((change.id, lines))
            size += len(lines)
        if part:
            yield part

    async def _write_part(self, alias: str, part: list[Item], refused: dict[str, str]) -> None:
        """Send a part until each of its items is written or refused. What is too large for the server is halved.

        It is given up after some attempts in a row that came to nothing.
        """
        busy = _Busy("")
        attempt = 0
        while attempt < ATTEMPTS_MAX:
            if attempt:
                self._on_retry()
                await _pause(attempt, busy.retry_after_seconds)
            answers = await self._send(alias, b"".join(lines for _, lines in part))
            if isinstance(answers, _Busy):
                busy = answers
                attempt += 1
                continue
            if answers is None:
                await self._write_halves(alias, part, refused)
                return
            again: list[Item] = []
            for item, answer in zip(part, answers, strict=True) if answers else ():
                answer = answer["index"]
                if "error" not in answer or answer["status"] == CONFLICT:
                    continue
                if self._is_refusal(alias, answer):
                    refused[item[0]] = _reason(answer)
                else:
                    again.append(item)
                    busy = _Busy(_reason(answer))
            if not again:
                return
            attempt = 1 if len(again) < len(part) else attempt + 1
            part = again
        raise self._connection.unavailable(f"{len(part)} documents were not taken, again and again ({busy.reason})")

    async def _write_halves(self, alias: str, part: list[Item], refused: dict[str, str]) -> None:
        if len(part) == 1:
            document_id, lines = part[0]
            reason = (
                f"it has {len(lines)} bytes, more than Elasticsearch, or a proxy before it, takes in one request "
                "(http.max_content_length)"
            )
            refused[document_id] = reason
            return
        middle = len(part) // 2
        await self._write_part(alias, part[:middle], refused)
        await self._write_part(alias, part[middle:], refused)

    async def _send(self, alias: str, body: bytes) -> list[Any] | _Busy | None:
        """Each item's answer, none if all were taken; _Busy if the whole request came at a bad moment; None if it is
        too large.
        """
        path = f"/{alias}/_bulk?filter_path={ANSWERED}&require_alias=true&timeout={self._wait_milliseconds}ms"
        try:
            with self._connection.request():
                response = await self._connection.client.perform_request("POST", path, headers=HEADERS, body=body)
        except (ServerUnavailable, ReadStoreError) as error:
            cause = error.__cause__
            if isinstance(cause, ApiError) and cause.status_code == TOO_LARGE:
                return None
            if isinstance(cause, ApiError) and is_busy(cause) and self._connection.circuit.state == "closed":
                return _Busy(reason_of(cause), _retry_after_seconds(cause))
            raise
        return list(response["items"]) if response["errors"] else []

    def _is_refusal(self, alias: str, answer: dict[str, Any]) -> bool:
        """Whether the document is to blame, or the moment. Raises when the answer says something about the index."""
        status, error = answer["status"], answer["error"]
        kind, reason = error["type"], str(error.get("reason"))
        if status == NOT_FOUND:
            raise ReadStoreError(f"{alias} is gone while it was being written to: start again to build it anew")
        if kind == BLOCKED or kind == "security_exception":
            raise self._connection.unavailable(f"{alias} takes no writes: {reason}")
        if is_busy_status(status):
            return False
        if status not in (REFUSED, TOO_LARGE) or kind in NOT_THE_DOCUMENT or NO_WRITE_INDEX in reason:
            raise ReadStoreError(f"Elasticsearch refused to write to {alias}: {status} {kind}: {reason}")
        return True


def _lines(codec: DocumentCodec, change: Change, data: bytes | Unstorable | None) -> bytes:
    """The action line and the document (None: deleted), to which our own fields are added as bytes."""
    if not (change.id.isascii() and 0 < len(change.id) <= ID_BYTES_MAX and "\0" not in change.id):
        check_id(change.id)
    if isinstance(data, Unstorable):
        raise data
    document_id = _encode(change.id)
    action = b'{"index":{"_id":%b,"version":%d,"version_type":"external"}}\n' % (document_id, change.version)
    if data is None:
        return b"%b{%b%b%b" % (action, _OWN_ID, document_id, _DELETED)
    comma = b"" if data == b"{}" else b","
    return b"".join((action, data[:-1], comma, _OWN_ID, document_id, _words(codec, data), b"}\n"))


def _words(codec: DocumentCodec, data: bytes) -> bytes:
    """The field of searchable words, if the document has any."""
    if not codec.has_words:
        return b""
    words = [f"{field}:{word}" for field, found in codec.words(data).items() for word in sorted(found)]
    return b',"%b":%b' % (WORDS_FIELD.encode(), _encode(words)) if words else b""


async def _pause(attempt: int, at_least_seconds: float) -> None:
    seconds = random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, PAUSE_SECONDS_MAX)
    await asyncio.sleep(max(seconds, min(at_least_seconds, RETRY_AFTER_SECONDS_MAX)))


def _retry_after_seconds(error: ApiError) -> float:
    """What the header says, as seconds or as a date; 0 if it says nothing that can be read."""
    text = error.meta.headers.get("retry-after") or ""
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0


def _reason(answer: dict[str, Any]) -> str:
    error = answer["error"]
    cause = error.get("caused_by", {}).get("reason")
    return f"{error['type']}: {error.get('reason')}" + (f" ({cause})" if cause else "")
