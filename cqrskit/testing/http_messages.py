"""HTTP requests and answers as bytes, read from a stream and written to one."""

import asyncio
import gzip

import msgspec

__all__ = ["HttpRequest", "HttpResponse", "read_request", "read_response"]

Headers = list[tuple[bytes, bytes]]

OWN_HEADERS = {b"content-length", b"transfer-encoding", b"expect"}
"""Headers of the message's frame, which we make anew."""
WITHOUT_BODY = {204, 304}


class HttpRequest(msgspec.Struct, frozen=True):
    """A request with its whole body, which is unpacked where it was sent packed; `target` is its path and query."""

    method: str
    target: str
    headers: Headers
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def raw(self) -> bytes:
        """As it is sent."""
        return _raw(f"{self.method} {self.target} HTTP/1.1".encode(), self.headers, self.body)


class HttpResponse(msgspec.Struct, frozen=True):
    """An answer with its whole body."""

    status: int
    headers: Headers
    body: bytes
    reason: str = ""
    length: int | None = None
    """What ``Content-Length`` says where there is no body to count, as after HEAD."""

    def raw(self) -> bytes:
        """As it is sent."""
        line = f"HTTP/1.1 {self.status} {self.reason}".encode()
        return _raw(line, self.headers, self.body, self.length, has_body=self.status not in WITHOUT_BODY)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpRequest | None:
    """The next request of a client, who is told to go on if it asks whether it may; None when it has left."""
    head = await _read_head(reader)
    if head is None:
        return None
    line, headers = head
    method, target, _ = line.decode().split(" ", 2)
    if _value(headers, b"expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await _read_body(reader, headers) or b""
    if _value(headers, b"content-encoding") == b"gzip":
        body = gzip.decompress(body)
        headers = [(name, value) for name, value in headers if name.lower() != b"content-encoding"]
    return HttpRequest(method, target, headers, body)


async def read_response(reader: asyncio.StreamReader, method: str) -> HttpResponse:
    """The answer to a request of this method. Raises ConnectionError if the server leaves without one."""
    head = await _read_head(reader)
    if head is None:
        raise ConnectionResetError("the server has closed the connection without an answer")
    line, headers = head
    _, status, reason = [*line.decode().split(" ", 2), ""][:3]
    length = _value(headers, b"content-length")
    if method == "HEAD" or int(status) in WITHOUT_BODY:
        return HttpResponse(int(status), _without_frame(headers), b"", reason, int(length) if length else None)
    body = await _read_body(reader, headers)
    if body is None:
        body = await reader.read()
    return HttpResponse(int(status), _without_frame(headers), body, reason)


async def _read_head(reader: asyncio.StreamReader) -> tuple[bytes, Headers] | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head[:-4].split(b"\r\n")
    pairs = (each.partition(b":") for each in rest)
    return line, [(name, value.strip()) for name, _, value in pairs]


async def _read_body(reader: asyncio.StreamReader, headers: Headers) -> bytes | None:
    """The body as its frame says; None if that says nothing."""
    try:
        if _value(headers, b"transfer-encoding") == b"chunked":
            return await _read_chunks(reader)
        length = _value(headers, b"content-length")
        return None if length is None else await reader.readexactly(int(length))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the connection ended within a body") from error


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return bytes(body)


def _value(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value.lower() for name, value in headers if name.lower() == wanted), None)


def _without_frame(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in OWN_HEADERS]


def _raw(line: bytes, headers: Headers, body: bytes, length: int | None = None, *, has_body: bool = True) -> bytes:
    lines = [line, *(b"%b: %b" % pair for pair in _without_frame(headers))]
    if has_body:
        lines.append(b"content-length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
