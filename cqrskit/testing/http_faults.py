"""What an `HttpWire` can do to a request: answer it itself, lose it or its answer, slow it down, refuse parts of it."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from cqrskit.testing.http_messages import HttpRequest, HttpResponse
from cqrskit.testing.http_wire import Behaviour, Forward

__all__ = ["BulkItem", "answering", "cutting", "every_item", "refusing_items", "slow"]

JSON_HEADERS = [
    (b"content-type", b"application/vnd.elasticsearch+json;compatible-with=8"),
    (b"x-elastic-product", b"Elasticsearch"),
]
REASONS = {
    400: ("document_parsing_exception", "a fault of the wire: this document cannot be parsed"),
    403: ("cluster_block_exception", "a fault of the wire: blocked by: [FORBIDDEN/8/index write (api)];"),
    429: ("es_rejected_execution_exception", "a fault of the wire: rejected execution, the queue is full"),
    503: ("unavailable_shards_exception", "a fault of the wire: the primary shard is not active"),
}
"""How Elasticsearch names the reasons of these statuses; the wire says that it is not Elasticsearch that speaks."""


class BulkItem(msgspec.Struct, frozen=True):
    """One operation of a bulk request: ``index``, ``create``, ``update`` or ``delete``."""

    operation: str
    index: str
    id: str
    lines: bytes
    """Its lines in the body: the action, and but for ``delete`` the source."""


def answering(status: int, *, retry_after_seconds: int | None = None, body: bytes | None = None) -> Behaviour:
    """Answer in the server's place, which never hears of the request; by default with an error as Elasticsearch's."""
    headers = list(JSON_HEADERS)
    if retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % retry_after_seconds))
    answer = HttpResponse(
        status, headers, msgspec.json.encode({"error": _error(status), "status": status}) if body is None else body
    )

    async def behave(_: HttpRequest, __: Forward) -> HttpResponse | None:
        return answer

    return behave


def cutting(delivery: Literal["delivered", "lost"]) -> Behaviour:
    """Break the client's connection: after the server has acted on the request, or before it has got it."""

    async def behave(request: HttpRequest, forward: Forward) -> HttpResponse | None:
        if delivery == "delivered":
            await forward(request)
        return None

    return behave


def slow(seconds: float) -> Behaviour:
    """Let the server have the request only after so long."""

    async def behave(request: HttpRequest, forward: Forward) -> HttpResponse | None:
        await asyncio.sleep(seconds)
        return await forward(request)

    return behave


def every_item(count: int) -> Callable[[BulkItem], bool]:
    """Chooses each `count`-th item that comes, over all requests."""
    seen = 0

    def chosen(_: BulkItem) -> bool:
        nonlocal seen
        seen += 1
        return seen % count == 0

    return chosen


def refusing_items(status: int, chosen: Callable[[BulkItem], bool]) -> Behaviour:
    """Refuse the chosen items of a bulk request with a status; the server gets, and answers, the others only.

    The client gets one answer with all items in their order, as from a server that was short of room for some.
    """

    async def behave(request: HttpRequest, forward: Forward) -> HttpResponse | None:
        items = list(_items_of(request))
        refused = [chosen(item) for item in items]
        rest = [item for item, is_refused in zip(items, refused, strict=True) if not is_refused]
        answer = HttpResponse(200, JSON_HEADERS, b'{"took":0,"errors":false,"items":[]}')
        if rest:
            body = b"".join(item.lines for item in rest)
            headers = [(name, value) for name, value in request.headers if name.lower() != b"accept-encoding"]
            answer = await forward(msgspec.structs.replace(request, headers=headers, body=body))
            if answer.status != 200:
                return answer
        return msgspec.structs.replace(answer, body=_merged(answer.body, items, refused, status))

    return behave


def _items_of(request: HttpRequest) -> list[BulkItem]:
    default = request.path.strip("/").removesuffix("_bulk").strip("/")
    lines = iter(request.body.splitlines(keepends=True))
    items = []
    for line in lines:
        if not line.strip():
            continue
        ((operation, action),) = msgspec.json.decode(line).items()
        whole = line if operation == "delete" else line + next(lines)
        items.append(BulkItem(operation, action.get("_index", default), action.get("_id", ""), whole))
    return items


def _merged(body: bytes, items: list[BulkItem], refused: list[bool], status: int) -> bytes:
    """The server's answer with those of the refused items in their places."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    answered = iter(answer.get("items", []))
    answer["items"] = [
        {item.operation: {"_index": item.index, "_id": item.id, "status": status, "error": _error(status)}}
        if is_refused
        else next(answered)
        for item, is_refused in zip(items, refused, strict=True)
    ]
    answer["errors"] = any(refused) or answer.get("errors", False)
    return msgspec.json.encode(answer)


def _error(status: int) -> dict[str, str]:
    kind, reason = REASONS.get(status, ("exception", f"a fault of the wire: status {status}"))
    return {"type": kind, "reason": reason}
