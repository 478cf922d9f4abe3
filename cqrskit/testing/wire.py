"""A wire to a server that can be cut, mended and slowed down; and, to Postgres, cut or held at a chosen statement."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Protocol, Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit, urlunsplit

from cqrskit.errors import ConfigurationError
from cqrskit.testing.fault import Fault, Hold
from cqrskit.testing.postgres_messages import ClientMessage, ClientMessages, Match

__all__ = ["Connection", "Cut", "CuttableWire", "Delivery", "Streams", "Wire"]

Delivery = Literal["delivered", "lost", "late"]
"""What becomes of the message at which the wire is cut.

``delivered``: the server gets it and acts on it, only its answer is lost. ``lost``: the server never gets it.
``late``: the client's connection dies at once, and the server gets the message some time after that.
"""

BLOCK_BYTES = 65_536
READY_FOR_QUERY = b"Z\0\0\0\5"
READY_BYTES = len(READY_FOR_QUERY) + 1
ANSWER_TIMEOUT_SECONDS = 10.0
DEFAULT_PORTS = {"http": 80, "https": 443, "postgres": 5432, "postgresql": 5432}
ENDS = ("Query", "Sync", "Flush", "CopyDone", "CopyFail", "Terminate")
"""Messages after which a client waits for the server: a statement's messages have all been sent."""


class Cut(Fault):
    """A cut that waits for its message; `delivered` counts those that the server has got and dealt with after all."""

    def __init__(self, match: Match, delivery: Delivery, times: int | None, late_seconds: float) -> None:
        super().__init__(times)
        self.match = match
        self.delivery = delivery
        self.late_seconds = late_seconds
        self.delivered = 0


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connection(Protocol):
    """One client's connection by way of a wire."""

    async def carry(self) -> None:
        """Pass on what the one end says to the other until one of them breaks."""

    def abort(self) -> None:
        """Break both ends."""


class Wire(ABC):
    """Stands between clients and the server at `url`; give the clients `wire.url`. It belongs to one event loop."""

    def __init__(self, url: str) -> None:
        self.delay_seconds = 0.0
        """Time that every block of bytes waits before it is passed on, in both directions."""
        self._parts = urlsplit(url)
        self._is_postgres = self._parts.scheme in ("postgres", "postgresql")
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.mend()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The server's URL by way of this wire, which must have been mended once."""
        place = f"127.0.0.1:{self._port}"
        if "@" in self._parts.netloc:
            place = f"{self._parts.netloc.rpartition('@')[0]}@{place}"
        query = self._parts.query
        if self._is_postgres:
            options = {key: values[-1] for key, values in parse_qs(query).items() if key not in ("host", "port")}
            query = urlencode({**options, "sslmode": "disable", "gssencmode": "disable"}, quote_via=quote)
        return urlunsplit(self._parts._replace(netloc=place, query=query))

    async def mend(self) -> None:
        """Take connections, at the same address as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break all connections, and refuse new ones until the wire is mended."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.drop_connections()

    async def drop_connections(self) -> None:
        """Break all connections of now; new ones are taken."""
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    @abstractmethod
    def _connection(self, client: Streams, server: Streams) -> Connection:
        """What carries a client's connection."""

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        connection = self._connection((reader, writer), server)
        self._connections.add(connection)
        try:
            await connection.carry()
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _connect(self) -> Streams:
        port = self._parts.port or DEFAULT_PORTS[self._parts.scheme]
        host = self._parts.hostname
        if self._is_postgres:
            options = parse_qs(self._parts.query)
            host = options.get("host", [host or "localhost"])[0]
            port = int(options.get("port", [port])[0])
            if unquote(host).startswith("/"):
                return await asyncio.open_unix_connection(f"{unquote(host)}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


class CuttableWire(Wire):
    """A wire that passes bytes on as they are; to Postgres, also one that knows its messages. For Unix sockets and TCP.

    ::

        async with CuttableWire(postgres_dsn) as wire:
            settings = Settings(database_url=wire.url)
            ...
            wire.cut_at(commits, "delivered")   # the next COMMIT arrives, its answer does not
            hold = wire.hold_at(commits)        # the one after that does not arrive before `hold.release()`

    Connections with TLS are carried, but no statement is recognised in them; the wire's own URL to a Postgres asks
    for none.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._cuts: list[Cut] = []
        self._holds: list[tuple[Match, Hold]] = []
        self._bytes_max: int | None = None

    def cut_at(
        self, match: Match, delivery: Delivery = "delivered", *, times: int | None = 1, late_seconds: float = 0.2
    ) -> Cut:
        """Break a connection to Postgres at a message that `match` matches; other connections stay whole.

        If the message is an Execute, what its client sends with it up to the next Sync shares its fate, so that
        the server does act on what is ``delivered``. `times` None: at every such message until `Cut.cancel`.
        """
        self._require_postgres()
        cut = Cut(match, delivery, times, late_seconds)
        self._cuts.append(cut)
        return cut

    def hold_at(self, match: Match, *, times: int | None = 1) -> Hold:
        """Hold a message to Postgres that `match` matches, and all that its client says after it.

        Other connections go on. ``hold_at(commits)`` delays one commit; ``hold_at(says("UPDATE projections"))``
        stops a projector between its write and its checkpoint.
        """
        self._require_postgres()
        hold = Hold(times)
        self._holds.append((match, hold))
        return hold

    def _require_postgres(self) -> None:
        if not self._is_postgres:
            raise ConfigurationError(f"{self._parts.scheme} URLs have no Postgres messages: use `cut`, or an HttpWire")

    def cut_after_bytes(self, count: int | None) -> None:
        """Break each connection that is made from now on after `count` bytes of its client; None: do so no more."""
        self._bytes_max = count

    def _connection(self, client: Streams, server: Streams) -> Connection:
        messages = ClientMessages() if self._is_postgres else None
        return _Connection(self, client, server, messages, self._bytes_max)

    def cut_for(self, message: ClientMessage) -> Cut | None:
        """The cut that is to be made at this message of a client, which is counted as done."""
        self._cuts = [cut for cut in self._cuts if not cut.spent]
        for cut in self._cuts:
            if cut.match(message):
                cut.done += 1
                return cut
        return None

    def hold_for(self, message: ClientMessage) -> Hold | None:
        """The hold that is to be made at this message."""
        self._holds = [(match, hold) for match, hold in self._holds if not hold.spent]
        return next((hold for match, hold in self._holds if match(message)), None)


class _Connection:
    """One client's connection, and ours to the server in its name."""

    def __init__(
        self,
        wire: CuttableWire,
        client: Streams,
        server: Streams,
        messages: ClientMessages | None,
        bytes_max: int | None,
    ) -> None:
        self._wire = wire
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._messages = messages
        self._bytes_left = bytes_max
        self._cut: Cut | None = None
        self._cut_is_complete = False
        self._held = bytearray()

    def abort(self) -> None:
        """Break both ends."""
        self._to_client.transport.abort()
        self._to_server.transport.abort()

    async def carry(self) -> None:
        """Pass bytes on until one end breaks or a cut is made."""
        back = asyncio.create_task(self._pass_back())
        try:
            await self._pass_on()
            if self._cut is None:
                self._to_server.close()
                await back
            else:
                await self._end_of_cut(self._cut, back)
        except OSError:
            return
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _pass_on(self) -> None:
        while data := await self._from_client.read(BLOCK_BYTES):
            if self._wire.delay_seconds:
                await asyncio.sleep(self._wire.delay_seconds)
            if self._bytes_left is not None:
                data = data[: self._bytes_left]
                self._bytes_left -= len(data)
            if self._messages is None:
                await self._send(data)
            else:
                await self._pass_messages(self._messages.take(data))
            if self._cut is not None and self._cut_is_complete:
                return
            if self._bytes_left == 0:
                self._to_client.transport.abort()
                return

    async def _pass_messages(self, messages: Iterator[ClientMessage]) -> None:
        """Pass on what is neither held nor cut; messages of a cut are kept until they are complete."""
        passed = bytearray()
        for message in messages:
            hold = self._wire.hold_for(message) if self._cut is None else None
            if hold is not None:
                await self._send(passed)
                passed.clear()
                if not await hold.take():
                    raise ConnectionAbortedError("what was held is dropped")
            if self._cut is None:
                self._cut = self._wire.cut_for(message)
            if self._cut is None:
                passed += message.raw
            elif not self._cut_is_complete:
                self._held += message.raw
                self._cut_is_complete = message.kind in ENDS
        await self._send(passed)

    async def _send(self, data: bytes | bytearray) -> None:
        self._to_server.write(bytes(data))
        await self._to_server.drain()

    async def _end_of_cut(self, cut: Cut, back: "asyncio.Task[None]") -> None:
        """Break the client's end; deliver what the cut says, and wait until the server has dealt with it."""
        back.cancel()
        await asyncio.gather(back, return_exceptions=True)
        if cut.delivery == "delivered":
            await self._deliver(cut)
            self._to_client.transport.abort()
        elif cut.delivery == "lost":
            self.abort()
        else:
            self._to_client.transport.abort()
            await asyncio.sleep(cut.late_seconds)
            await self._deliver(cut)

    async def _deliver(self, cut: Cut) -> None:
        """Give the server what was kept, and wait until it is ready for more, or has gone: then it has acted on it."""
        try:
            await self._send(self._held)
            answer = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                    while READY_FOR_QUERY not in answer[-READY_BYTES:]:
                        data = await self._from_server.read(BLOCK_BYTES)
                        if not data:
                            return
                        answer = answer[-READY_BYTES:] + data
        finally:
            cut.delivered += 1

    async def _pass_back(self) -> None:
        try:
            while data := await self._from_server.read(BLOCK_BYTES):
                if self._wire.delay_seconds:
                    await asyncio.sleep(self._wire.delay_seconds)
                self._to_client.write(data)
                await self._to_client.drain()
        except OSError:
            return
        finally:
            self._to_client.close()
