"""The load generator, a program: sends prebuilt HTTP requests over connections that stay open, and measures.

It is as cheap as Python allows (raw protocol, no parsing beyond status and length), and reports its own share of a
core, so that one sees whether it was the bottleneck. A line names the work and is answered ``{"ready": true}``
when the requests are built and the connections open; a second line starts it, and is answered with the result.
"""

import asyncio
import gc
import time
from collections import Counter, deque
from itertools import islice
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec
import uvloop

from tests.benchmarks.figures import percentile
from tests.benchmarks.pace import arrivals, at_moments
from tests.benchmarks.programs import answer_lines
from tests.benchmarks.samples import transfers

__all__ = ["PERCENTILES", "Connection", "Load", "Owner"]

WORK_SECONDS_MAX = 120
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Work(msgspec.Struct):
    """So many requests to one server, in a closed loop, or in an open one at `rate` each second."""

    host: str
    port: int
    connections: int
    accounts: list[UUID]
    requests: int
    key: str
    transfers_per_request: int = 1
    rate: float | None = None


def request_of(work: Work, source: Any) -> bytes:
    """The bytes of one request."""
    if work.transfers_per_request == 1:
        path, body = "/transfers", msgspec.json.encode(next(source))
    else:
        batch = {"mode": "independent", "transfers": list(islice(source, work.transfers_per_request))}
        path, body = "/transfers/batch", msgspec.json.encode(batch)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {work.host}\r\nAuthorization: Bearer {work.key}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Owner(Protocol):
    """Whose connections they are: it hears of answers and of ends."""

    def answered(self, connection: "Connection", answer: bytes, due: float) -> None:
        """A request has its whole answer; `due` is what `Connection.send` was told."""

    def lost(self, connection: "Connection", error: Exception | None) -> None:
        """The connection has ended."""


class Connection(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._buffer = b""
        self._length = 0
        self._due = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, request: bytes, due: float) -> None:
        """Ask; the latency counts from `due`."""
        self._due = due
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer = self._buffer + data
        if not self._length:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            at = data.lower().index(b"content-length:", 0, end) + 15
            self._length = end + 4 + int(data[at : data.index(b"\r", at)])
        if len(data) < self._length:
            self._buffer = data
            return
        self._buffer, self._length = b"", 0
        self._owner.answered(self, data, self._due)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner.lost(self, error)


class Load:
    """One piece of work."""

    def __init__(self, work: Work) -> None:
        self._work = work
        source = transfers(work.accounts, seed=uuid4().int)
        self._requests = deque(request_of(work, source) for _ in range(work.requests))
        self._connections: list[Connection] = []
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._statuses: Counter[bytes] = Counter()
        self._latencies: list[float] = []
        self._finished: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for _ in range(self._work.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), self._work.host, self._work.port)
            self._connections.append(connection)
        self._idle = deque(self._connections)

    async def run(self) -> dict[str, Any]:
        """Do it, and say what was seen."""
        self._finished = asyncio.get_running_loop().create_future()
        gc.collect()
        gc.freeze()
        begun, used = time.perf_counter(), time.process_time()
        async with asyncio.timeout(WORK_SECONDS_MAX):
            if self._work.rate is None:
                self._begin_closed()
            else:
                moments = arrivals(self._work.rate, self._work.requests / self._work.rate)[: self._work.requests]
                await at_moments(moments, self._arrive)
                self._work.requests = len(moments)
                self._end_if_all_answered()
            await self._finished
        seconds = time.perf_counter() - begun
        gc.unfreeze()
        for connection in self._connections:
            connection.close()
        answered = len(self._latencies)
        return {
            "per_second": answered * self._work.transfers_per_request / seconds,
            "statuses": {status.decode(): count for status, count in self._statuses.items()},
            "cpu_share": (time.process_time() - used) / seconds,
            "milliseconds": {name: 1000 * percentile(self._latencies, part) for name, part in PERCENTILES.items()},
        }

    def _begin_closed(self) -> None:
        for connection in self._idle:
            if self._requests:
                connection.send(self._requests.popleft(), time.perf_counter())

    def _arrive(self, due: float) -> None:
        request = self._requests.popleft()
        if self._idle:  # the one that rested longest, since servers close connections that rest for some seconds
            self._idle.popleft().send(request, due)
        else:
            self._waiting.append((request, due))

    def answered(self, connection: Connection, answer: bytes, due: float) -> None:
        """One request has its answer: the connection takes the next."""
        now = time.perf_counter()
        self._latencies.append(now - due)
        self._statuses[answer[9:12]] += 1
        if self._work.rate is not None:
            if self._waiting:
                connection.send(*self._waiting.popleft())
            else:
                self._idle.append(connection)
        elif self._requests:
            connection.send(self._requests.popleft(), now)
        self._end_if_all_answered()

    def _end_if_all_answered(self) -> None:
        assert self._finished is not None
        if len(self._latencies) == self._work.requests and not self._finished.done():
            self._finished.set_result(None)

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """A connection that the server closes while we work is an error."""
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(ConnectionError(f"the server closed a connection: {error}"))


def main() -> None:
    """Answer pairs of lines, the work and its start, as often as they come."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load: Load | None = None

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            nonlocal load
            if load is None:
                load = Load(msgspec.convert(question, Work))
                runner.run(load.connect())
                return {"ready": True}
            found: dict[str, Any] = runner.run(load.run())
            load = None
            return found

        answer_lines(answer)


if __name__ == "__main__":
    main()
