"""Cursors: where a page ended, as text that belongs to one query."""

import base64
import hashlib
from typing import Any

import msgspec

from cqrskit.errors import InvalidCursor
from cqrskit.query import STABLE_FOR_SECONDS

__all__ = ["GONE", "MALFORMED", "Cursor", "fingerprint_of", "pack", "unpack"]

MALFORMED = "the cursor is malformed: send back the `next` of a page as it came"
GONE = (
    f"the list that the cursor belongs to is gone: it is kept for {STABLE_FOR_SECONDS} s after each page, until its "
    "last page was given, and for one index only; begin anew without a cursor"
)


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """`fingerprint` is that of the query, `values` are where the page ended, `held` names what the store keeps."""

    fingerprint: str
    values: tuple[Any, ...]
    held: str | None = None


def fingerprint_of(parts: Any) -> str:
    """12 hexadecimal digits for the parts of a query (plain JSON values)."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def pack(cursor: Cursor) -> str:
    """The cursor as text that may stand in a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).rstrip(b"=").decode()


def unpack(text: str, fingerprint: str, values: int) -> Cursor:
    """The cursor in `text`; InvalidCursor unless it has this fingerprint and number of values."""
    try:
        content = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        cursor = msgspec.json.decode(content, type=Cursor)
    except (ValueError, AttributeError, msgspec.MsgspecError):
        raise InvalidCursor(MALFORMED) from None
    if cursor.fingerprint != fingerprint or len(cursor.values) != values:
        raise InvalidCursor("the cursor belongs to another query: keep the same conditions and sort, or begin anew")
    return cursor
