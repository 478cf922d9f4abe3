"""A wire to an HTTP server, such as Elasticsearch, that knows requests: lost, held, refused, or refused in part."""

import asyncio
from collections.abc import Awaitable, Callable

from cqrskit.errors import ConfigurationError
from cqrskit.testing.fault import Fault, Hold
from cqrskit.testing.http_messages import HttpRequest, HttpResponse, read_request, read_response
from cqrskit.testing.wire import Connection, Streams, Wire

__all__ = ["Behaviour", "Forward", "HttpFault", "HttpWire", "RequestMatch", "asks", "bulk_writes"]

RequestMatch = Callable[[HttpRequest], bool]
"""Tells whether a request is one that is waited for."""
Forward = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Gives a request to the server and returns its answer."""
Behaviour = Callable[[HttpRequest, Forward], Awaitable[HttpResponse | None]]
"""What a wire does with a request: the answer that its client gets; None breaks the client's connection."""


def asks(word: str, method: str | None = None) -> RequestMatch:
    """Matches requests whose path has `word` as one of its parts, such as ``_search``; of `method` only, if given."""
    return lambda request: word in request.path.split("/") and method in (None, request.method)


bulk_writes = asks("_bulk")
"""Matches Elasticsearch's bulk requests."""


class HttpFault(Fault):
    """A behaviour that waits for its requests."""

    def __init__(self, match: RequestMatch, behaviour: Behaviour, times: int | None) -> None:
        super().__init__(times)
        self.match = match
        self.behaviour = behaviour


class HttpWire(Wire):
    """Stands between clients and a real HTTP server; requests go through unchanged, but for the faults of the hour.

    ::

        async with HttpWire(elasticsearch_url) as wire:
            settings = Settings(database_url=..., elasticsearch_url=wire.url)
            ...
            wire.fault(bulk_writes, answering(429, retry_after_seconds=1), times=3)
            wire.fault(bulk_writes, cutting("delivered"))     # it takes effect, nobody hears of it
            wire.fault(bulk_writes, refusing_items(429, every=3), times=None)
            hold = wire.hold_at(bulk_writes)                  # it hangs until `hold.release()`

    The behaviours are in `cqrskit.testing.http_faults`; any coroutine function like them will do. Only ``http://``:
    TLS would hide the requests.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if self._parts.scheme != "http":
            raise ConfigurationError(f"an HttpWire cannot read {self._parts.scheme} URLs: use a CuttableWire")
        self._faults: list[HttpFault] = []

    def fault(self, match: RequestMatch, behaviour: Behaviour, *, times: int | None = 1) -> HttpFault:
        """Let requests that `match` matches meet this behaviour; `times` None: until `HttpFault.cancel`."""
        fault = HttpFault(match, behaviour, times)
        self._faults.append(fault)
        return fault

    def hold_at(self, match: RequestMatch, *, times: int | None = 1) -> Hold:
        """Hold requests before the server gets them: a hang. What is released reaches it in any case."""
        hold = Hold(times)

        async def behave(request: HttpRequest, forward: Forward) -> HttpResponse | None:
            return await forward(request) if await hold.take() else None

        self._hold(match, behave, hold)
        return hold

    def hold_answer_at(self, match: RequestMatch, *, times: int | None = 1) -> Hold:
        """Hold the answers to requests, which have taken effect by then."""
        hold = Hold(times)

        async def behave(request: HttpRequest, forward: Forward) -> HttpResponse | None:
            answer = await forward(request)
            return answer if await hold.take() else None

        self._hold(match, behave, hold)
        return hold

    def _hold(self, match: RequestMatch, behaviour: Behaviour, hold: Hold) -> None:
        self.fault(lambda request: not hold.spent and match(request), behaviour, times=hold.times)

    def _connection(self, client: Streams, server: Streams) -> Connection:
        return _Exchange(self, client, server)

    def behaviour_for(self, request: HttpRequest) -> Behaviour | None:
        """What is to happen to this request, which is counted as done."""
        self._faults = [fault for fault in self._faults if not fault.spent]
        for fault in self._faults:
            if fault.match(request):
                fault.done += 1
                return fault.behaviour
        return None


class _Exchange:
    """One client's connection, and ours to the server in its name: one request after another."""

    def __init__(self, wire: HttpWire, client: Streams, server: Streams) -> None:
        self._wire = wire
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server

    def abort(self) -> None:
        """Break both ends."""
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def carry(self) -> None:
        """Answer requests until one end breaks or a fault breaks it."""
        try:
            while (request := await read_request(self._from_client, self._to_client)) is not None:
                behaviour = self._wire.behaviour_for(request)
                await self._delay()
                answer = await (self._forward(request) if behaviour is None else behaviour(request, self._forward))
                if answer is None:
                    return
                await self._delay()
                self._to_client.write(answer.raw())
                await self._to_client.drain()
        except OSError:
            return

    async def _forward(self, request: HttpRequest) -> HttpResponse:
        self._to_server.write(request.raw())
        await self._to_server.drain()
        return await read_response(self._from_server, request.method)

    async def _delay(self) -> None:
        if self._wire.delay_seconds:
            await asyncio.sleep(self._wire.delay_seconds)
