"""What a client says to Postgres, read from the bytes on the wire just far enough to recognise a statement."""

import re
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

__all__ = ["ClientMessage", "ClientMessages", "Match", "commits", "every", "says"]

KINDS = {
    b"B": "Bind",
    b"C": "Close",
    b"D": "Describe",
    b"E": "Execute",
    b"H": "Flush",
    b"P": "Parse",
    b"Q": "Query",
    b"S": "Sync",
    b"X": "Terminate",
    b"c": "CopyDone",
    b"d": "CopyData",
    b"f": "CopyFail",
    b"p": "Password",
}
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80_877_103, 80_877_104, 80_877_102
M = TypeVar("M")
COMMIT = re.compile(r"(^|;)\s*(COMMIT|END)\b", re.IGNORECASE)


class ClientMessage(msgspec.Struct, frozen=True):
    """One message of a client. `kind` is its name in Postgres' protocol ("Query", "Execute", "Sync", "CopyData" …).

    `statement` is the SQL that a Query, Parse, Bind or Execute is about, also where the statement was prepared
    earlier on the same connection; "" for all others. `raw` is the message as it was sent.
    """

    kind: str
    statement: str
    raw: bytes


Match = Callable[[ClientMessage], bool]
"""Tells whether a message is the one that is waited for."""


def commits(message: ClientMessage) -> bool:
    """Whether this message makes the server commit the client's transaction."""
    return message.kind in ("Query", "Execute") and COMMIT.search(message.statement) is not None


def says(words: str) -> Match:
    """Matches the execution of a statement that contains `words`, whatever their case."""
    wanted = words.lower()
    return lambda message: message.kind in ("Query", "Execute") and wanted in message.statement.lower()


def every(count: int, match: Callable[[M], bool]) -> Callable[[M], bool]:
    """Matches each `count`-th of the messages that `match` matches."""
    seen = 0

    def counted(message: M) -> bool:
        nonlocal seen
        if not match(message):
            return False
        seen += 1
        return seen % count == 0

    return counted


class ClientMessages:
    """Cuts the bytes of one client's connection into messages; `take` them as they arrive, in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._starting = True
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}

    def take(self, data: bytes) -> Iterator[ClientMessage]:
        """The messages that are complete with these bytes."""
        self._buffer += data
        while (raw := self._next()) is not None:
            yield self._starting_message(raw) if self._starting else self._message(raw)

    def _next(self) -> bytes | None:
        """The next complete message; only the first ones of a connection begin with their length, not their kind."""
        offset = 0 if self._starting else 1
        if len(self._buffer) < offset + 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer, offset)
        if len(self._buffer) < offset + length:
            return None
        raw = bytes(self._buffer[: offset + length])
        del self._buffer[: offset + length]
        return raw

    def _starting_message(self, raw: bytes) -> ClientMessage:
        (code,) = struct.unpack_from("!I", raw, 4)
        self._starting = code in (SSL_REQUEST, GSS_REQUEST)
        return ClientMessage("Cancel" if code == CANCEL_REQUEST else "Start", "", raw)

    def _message(self, raw: bytes) -> ClientMessage:
        kind = KINDS.get(raw[:1], "Other")
        body = raw[5:]
        statement = ""
        if kind == "Query":
            statement = body.rstrip(b"\0").decode(errors="replace")
        elif kind == "Parse":
            name, sql, _ = body.split(b"\0", 2)
            statement = self._prepared[name] = sql.decode(errors="replace")
        elif kind == "Bind":
            portal, name, _ = body.split(b"\0", 2)
            statement = self._portals[portal] = self._prepared.get(name, "")
        elif kind == "Execute":
            statement = self._portals.get(body.split(b"\0", 1)[0], "")
        return ClientMessage(kind, statement, raw)
