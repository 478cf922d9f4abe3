"""The clients of the chaos test: each sends acts over HTTP until it is told what became of them, and keeps all of it.

They retry with the same id and key, at the other API when one is gone; they send duplicates, some of them at the same
time through two APIs; they break connections in the middle of a request or a reply; they read what they wrote.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import msgspec

from tests.acceptance.api import bearer
from tests.faults.chaos_acts import Act, Batch, Capture, Enter, Post
from tests.faults.chaos_wishes import Wishes

__all__ = ["Answer", "Attempt", "Clients", "Operation"]

REQUEST_TIMEOUT_SECONDS = 6.0
RETRY_PAUSES_SECONDS = (0.02, 0.3)
PAUSES_SECONDS = (0.0, 0.08)
SETTLING_SECONDS = 90.0
GIVEN_UP, DUPLICATED, DOUBLED, CUT, READ_AGAIN = 1 / 8, 1 / 10, 1 / 10, 1 / 16, 1 / 8


class Answer(msgspec.Struct, frozen=True):
    """What one attempt got. ``unchanged``: it changed nothing; ``unknown``: nobody said what became of it."""

    kind: Literal["accepted", "refused", "unchanged", "unknown"]
    status: int = 0
    body: dict[str, Any] = {}
    replayed: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the client knows now what became of its act."""
        return self.kind in ("accepted", "refused")

    @property
    def outcome(self) -> tuple[str, dict[str, Any]]:
        """What a retry must be told too."""
        return self.kind, self.body


class Attempt(msgspec.Struct):
    """One sending; times are seconds since 1970."""

    begun: float
    ended: float | None = None
    answer: Answer | None = None

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether the log may hold something of it."""
        return self.answer is None or self.answer.kind != "unchanged"


class Operation(msgspec.Struct):
    """One act, and all attempts at it. `name` is its idempotency key, and the correlation id of all its events."""

    name: str
    act: Act
    attempts: list[Attempt] = []

    @property
    def final(self) -> Answer | None:
        """The first answer that settled it."""
        finals = [each for each in self.attempts if each.answer is not None and each.answer.is_final]
        return min(finals, key=lambda each: each.ended or 0.0).answer if finals else None


class Clients:
    """So many clients at work on the APIs at these addresses; `operations` has what each was told.

    `unexpected` has answers that no client should ever get.
    """

    def __init__(self, addresses: Sequence[str], key: str, rng: random.Random) -> None:
        self.operations: list[Operation] = []
        self.unexpected: list[str] = []
        self.answers: Counter[str] = Counter()
        self.longest_gap_seconds = 0.0
        self._random = rng
        self._wishes = Wishes(random.Random(rng.getrandbits(64)))
        self._addresses = list(addresses)
        self._headers = bearer(key)
        limits = httpx.Limits(max_connections=64)
        self._https = [
            httpx.AsyncClient(base_url=each, timeout=REQUEST_TIMEOUT_SECONDS, limits=limits, headers=self._headers)
            for each in addresses
        ]
        self._stopping = asyncio.Event()

    async def close(self) -> None:
        """Close the connections."""
        for http in self._https:
            await http.aclose()

    async def begin(self) -> None:
        """Make the accounts, and give them their first money."""
        for act in self._wishes.first():
            operation = self._new(act)
            await self.settle(operation)
            assert operation.final is not None
            assert operation.final.kind == "accepted", operation

    async def work(self, count: int) -> None:
        """Let so many clients work until `stop`."""
        await asyncio.gather(*(self._client() for _ in range(count)))

    def stop(self) -> None:
        """Let each client end with what it is at."""
        self._stopping.set()

    async def settle_all(self) -> None:
        """Find out what became of all that was given up."""
        unsettled = [each for each in self.operations if each.final is None]
        await asyncio.gather(*(self.settle(each) for each in unsettled))

    async def repeat(self, count: int) -> None:
        """Send so many settled operations once more, a few at a time."""
        chosen = self._random.sample(self.operations, min(count, len(self.operations)))
        for begin in range(0, len(chosen), 16):
            await asyncio.gather(*(self.settle(each, again=True) for each in chosen[begin : begin + 16]))

    async def settle(self, operation: Operation, *, again: bool = False) -> None:
        """Send an operation until its outcome is known; with `again` once more than that."""
        deadline = time.monotonic() + SETTLING_SECONDS
        place = self._random.randrange(len(self._https))
        while again or operation.final is None:
            answer = await self._attempt(operation, place)
            if answer.is_final:
                return
            assert time.monotonic() < deadline, f"no answer in {SETTLING_SECONDS:g} s: {operation.attempts[-3:]}"
            place = (place + 1) % len(self._https)
            await asyncio.sleep(self._random.uniform(*RETRY_PAUSES_SECONDS))

    # --- one client

    async def _client(self) -> None:
        last = time.monotonic()
        while not self._stopping.is_set():
            operation = self._new(self._wishes.next())
            await self._send(operation)
            if operation.final is not None:
                last = self._note_gap(last)
                if operation.final.kind == "accepted":
                    self._wishes.fulfilled(operation.act)
                if self._random.random() < DUPLICATED:
                    await self.settle(operation, again=True)
                if operation.final.kind == "accepted" and self._random.random() < READ_AGAIN:
                    await self._read_own_write(operation)
            await asyncio.sleep(self._random.uniform(*PAUSES_SECONDS))

    def _note_gap(self, last: float) -> float:
        now = time.monotonic()
        self.longest_gap_seconds = max(self.longest_gap_seconds, now - last)
        return now

    def _new(self, act: Act) -> Operation:
        operation = Operation(f"operation-{len(self.operations)}", act, [])
        self.operations.append(operation)
        return operation

    async def _send(self, operation: Operation) -> None:
        """In one of the ways in which clients do, until it is settled or given up."""
        manner = self._random.random()
        if manner < CUT:
            await self._cut(operation)
        elif manner < CUT + DOUBLED:
            await asyncio.gather(*(self._attempt(operation, place) for place in range(len(self._https))))
        else:
            await self._attempt(operation, self._random.randrange(len(self._https)))
        if operation.final is None and self._random.random() >= GIVEN_UP:
            await self.settle(operation)

    # --- one attempt

    async def _attempt(self, operation: Operation, place: int) -> Answer:
        request = operation.act.request()
        content = None if request.body is None else msgspec.json.encode(request.body)
        attempt = Attempt(time.time())
        operation.attempts.append(attempt)
        try:
            reply = await self._https[place].request(
                request.method, request.path, content=content, headers=_headers_of(operation)
            )
            answer = self._answer_of(operation, reply)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            answer = Answer("unchanged")
        except httpx.TransportError:
            answer = Answer("unknown")
        attempt.ended, attempt.answer = time.time(), answer
        self.answers[answer.kind] += 1
        return answer

    def _answer_of(self, operation: Operation, reply: httpx.Response) -> Answer:
        status, body = reply.status_code, reply.json()
        replayed = reply.headers.get("Idempotent-Replay") == "true"
        if status in (200, 201):
            if int(reply.headers["Consistency-Position"]) != body["position"]:
                self.unexpected.append(f"{reply.headers} of {body}")
            unsettled = any(each["status"] == "unsettled" for each in body.get("results", ()))
            return Answer("unknown" if unsettled else "accepted", status, body, replayed)
        if status in (404, 409, 422):
            del body["instance"]
            return Answer("refused", status, body, replayed)
        if status == 503:
            parts = isinstance(operation.act, Batch) and operation.act.mode == "independent"
            return Answer("unknown" if parts else "unchanged", status, body)
        if not (status == 500 and body["code"] == "commit_unknown"):
            self.unexpected.append(f"{status} {reply.text} to {operation.act}")
        return Answer("unknown", status, body)

    async def _cut(self, operation: Operation) -> None:
        """Break the connection: half-way in the request, after it, or after the first bytes of the reply."""
        attempt = Attempt(time.time())
        operation.attempts.append(attempt)
        parts = urlsplit(self._random.choice(self._addresses))
        raw = _raw(operation, parts.netloc, self._headers)
        manner = self._random.choice(["half", "sent", "reply"])
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(raw[: self._random.randrange(1, len(raw))] if manner == "half" else raw)
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                await writer.drain()
                if manner == "reply":
                    await reader.read(self._random.randrange(1, 200))
        except (OSError, TimeoutError):
            pass
        else:
            writer.transport.abort()
        attempt.ended, attempt.answer = time.time(), Answer("unknown")
        self.answers["cut"] += 1

    # --- reads

    async def _read_own_write(self, operation: Operation) -> None:
        """Who names the position of a reply sees what it did, or is told to come back."""
        act, final = operation.act, operation.final
        assert final is not None
        if not isinstance(act, Post | Enter | Capture):
            return
        transfer_id = act.hold_id if isinstance(act, Capture) else act.transfer_id
        headers = {"Consistency-Position": str(final.body["position"])}
        http = self._random.choice(self._https)
        try:
            reply = await http.get(f"/transfers/{transfer_id}", headers=headers)
        except httpx.TransportError:
            self.answers["unread"] += 1
            return
        body = reply.json()
        self.answers[f"read {reply.status_code}"] += 1
        if reply.status_code == 200:
            seen = body["as_of_position"] >= final.body["position"] and body["position"] >= 1
            seen = seen and not (isinstance(act, Capture) and body["status"] == "held")
            if not seen:
                self.unexpected.append(f"a reader of {final} was shown {body}")
        elif reply.status_code != 503:
            self.unexpected.append(f"a reader of {final} was told {reply.status_code} {reply.text}")


def _headers_of(operation: Operation) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Idempotency-Key": operation.name,
        "X-Correlation-ID": operation.name,
    }


def _raw(operation: Operation, host: str, headers: dict[str, str]) -> bytes:
    """The request as bytes."""
    request = operation.act.request()
    body = b"" if request.body is None else msgspec.json.encode(request.body)
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **_headers_of(operation)}.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
