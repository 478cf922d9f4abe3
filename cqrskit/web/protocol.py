"""HTTP as uvicorn speaks it, but a reply's head and body go out in one write.

Uvicorn writes the head when it is known and the body after it: two system calls and two packets, which cost more than
anything else in a small reply. Here what is written first waits until the rest comes, or until the event loop has its
next turn.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HTTPProtocol"]


class _OneWrite:
    """A transport that holds back the first of several writes in one turn of the event loop."""

    __slots__ = ("_held", "_loop", "_transport", "_turn")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._turn: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Hold back, or write together with what is held."""
        if self._held:
            head, self._held = self._held, b""
            self._transport.writelines([head, data])
        else:
            self._held = data
            if self._turn is None:
                self._turn = self._loop.call_soon(self._end_turn)

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def _end_turn(self) -> None:
        self._turn = None
        self._flush()

    def _flush(self) -> None:
        data, self._held = self._held, b""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HTTPProtocol(HttpToolsProtocol):
    """Uvicorn's protocol on such a transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(_OneWrite(transport))  # type: ignore[arg-type]
