"""Documents as bytes: what a read store is given, checked so that the same document comes back."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cqrskit.document import DocumentShape, Field, FieldKind, shape_of
from cqrskit.fields import values_at
from cqrskit.words import words_of

__all__ = [
    "DATETIME_MAX",
    "DATETIME_MIN",
    "ID_BYTES_MAX",
    "INDEXED_BYTES_MAX",
    "KEYWORD_BYTES_MAX",
    "NESTED_MAX",
    "DocumentCodec",
    "Unstorable",
    "check_id",
    "codec_of",
]

ID_BYTES_MAX = 512
"""Longest document id, in UTF-8 bytes (Elasticsearch's limit)."""
KEYWORD_BYTES_MAX = 32_000
"""Longest keyword value, in UTF-8 bytes (Elasticsearch's is a little more)."""
NESTED_MAX = 10_000
"""Most elements that the `Nested` lists of one document have together (Elasticsearch's limit)."""
INDEXED_BYTES_MAX = 1_000
"""Longest value of a field with a B-tree in Postgres, whose pages hold two of them and an id."""

DATETIME_MIN = datetime(1970, 1, 1, tzinfo=UTC)
"""Earliest moment that a searchable field holds (Elasticsearch counts nanoseconds since then)."""
DATETIME_MAX = datetime(2261, 12, 31, tzinfo=UTC)
"""Latest moment that a searchable field holds."""

_LONGS = range(-(2**63), 2**63)
_DIGITS_AS_ZEROS = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else ord(" ") for byte in range(256))
_MANY_DIGITS = b"0" * 19
"""As many digits as a number beyond 64 bits has, once all digits are zeros: found ten times faster than by `re`."""
_TIME_WITHOUT_Z = re.compile(rb'T\d\d:\d\d:\d\d(?:\.\d{6})?["+-]')
_NEGATIVE_ZERO = b"-0.0"
_FAR_YEAR = re.compile(rb'"(?:0|1[0-8]|19[0-6]|226|22[7-9]|2[3-9]|[3-9])\d*-\d\d-')
"""A quoted date whose year may be beyond 1970 to 2259: then the moments are looked at one by one."""
_EARLIEST, _LATEST = "1970", "2262"
_NUL = b"\\u0000"
_DOUBTFUL_TIME = re.compile(
    rb'T(?:\d\d:\d\d:\d\d(?:\.\d{6})?["+-]'
    rb'|(?<!"(?:19[7-9]\d|20\d\d|21\d\d|22[0-5]\d)-\d\d-\d\dT)\d\d:\d\d:)'
)
"""What the two expressions above would find, and a little more; it begins with a letter, which is searched for fast."""
_CHECKED_AT_ONCE = 50
"""Documents whose bytes are searched together: a search has a price of its own, but one doubt means one by one."""


class Unstorable(Exception):
    """A document, or its id, will never be accepted; the message says why."""


class DocumentCodec:
    """Encodes and decodes the documents of one class; every read store uses it, so that all refuse alike."""

    def __init__(self, shape: DocumentShape) -> None:
        """Prepare for documents of this shape."""
        self._class = shape.document
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(shape.document)
        fields = shape.fields.values()
        self._limited = [
            field for field in fields if field.kind not in (FieldKind.STORED, FieldKind.TEXT) or field.exact
        ]
        self._moments = [field for field in fields if field.kind is FieldKind.DATETIME]
        self._nested = {
            field.path[: place + 1]
            for field in fields
            for place, step in enumerate(field.path)
            if step.nested and field.kind is not FieldKind.STORED
        }
        self._texts = [field for field in fields if field.kind is FieldKind.TEXT]
        self._has_floats = any(field.kind in (FieldKind.DOUBLE, FieldKind.STORED) for field in fields)
        self.has_words = bool(self._texts)
        """Whether there is anything to look for in `words`."""

    def encode(self, document: Any) -> bytes:
        """The document as UTF-8 JSON: datetimes in UTC, no negative zero.

        Raises Unstorable for a document that is not of the declared class and types, that JSON cannot carry (NaN,
        half of a surrogate pair), that has a datetime without a time zone, or a value beyond its kind's limit.
        """
        self._check_class(document)
        try:
            data = self._encoder.encode(document)
            if _NEGATIVE_ZERO in data or _TIME_WITHOUT_Z.search(data):
                document = _tidied(document)
                data = self._encoder.encode(document)
            if self._decoder.decode(data) != document:
                raise Unstorable("it would not come back as it is (is a number NaN or infinite?)")
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unstorable(f"it does not fit {self._class.__name__}: {error}") from error
        if _NUL in data:
            raise Unstorable("it contains a NUL character, which Postgres cannot keep")
        if self._nested and len(data) > NESTED_MAX:
            self._check_nested(data)
        if self._moments and _FAR_YEAR.search(data):
            self._check_moments(data)
        if len(data) > INDEXED_BYTES_MAX or _MANY_DIGITS in data.translate(_DIGITS_AS_ZEROS):
            self._check_limits(data)
        return data

    def encode_all(self, documents: Sequence[Any]) -> "list[bytes | Unstorable | None]":
        """What `encode` makes of each document, or why it refuses it, faster than one by one. None stays None."""
        found: list[bytes | Unstorable | None] = []
        for begin in range(0, len(documents), _CHECKED_AT_ONCE):
            some = documents[begin : begin + _CHECKED_AT_ONCE]
            found += self._encode_undoubted(some) or map(self._encode_or_refuse, some)
        return found

    def _encode_undoubted(self, documents: Sequence[Any]) -> list[bytes] | None:
        """The bytes of documents about which there is nothing to look at closely; None if there is."""
        if set(map(type, documents)) != {self._class}:
            return None
        try:
            text = self._encoder.encode_lines(documents)
            found = text.split(b"\n")
            found.pop()  # each line ends with a newline
            if max(map(len, found)) > INDEXED_BYTES_MAX or self._decoder.decode_lines(text) != documents:
                return None
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        doubtful = (
            len(found) != len(documents)
            or _NUL in text
            or (self._has_floats and _NEGATIVE_ZERO in text)
            or _MANY_DIGITS in text.translate(_DIGITS_AS_ZEROS)
            or _DOUBTFUL_TIME.search(text)
        )
        return None if doubtful else found

    def _encode_or_refuse(self, document: Any) -> "bytes | Unstorable | None":
        try:
            return None if document is None else self.encode(document)
        except Unstorable as error:
            return error

    def _check_class(self, document: Any) -> None:
        if type(document) is not self._class:
            raise Unstorable(f"it is a {type(document).__name__}, not a {self._class.__name__}")

    def decode(self, data: bytes | msgspec.Raw) -> Any:
        """The document that these bytes hold; raises msgspec.MsgspecError when they do not fit its class."""
        return self._decoder.decode(data)

    def from_plain(self, plain: Any) -> Any:
        """The document that these plain JSON values hold; raises msgspec.MsgspecError when they do not fit."""
        return msgspec.convert(plain, self._class)

    def words(self, data: bytes) -> dict[str, set[str]]:
        """The searchable words of an encoded document, by text field."""
        if not self.has_words:
            return {}
        document = msgspec.json.decode(data)
        return {
            field.name: {word for text in field.values_in(document) for word in words_of(text)} for field in self._texts
        }

    def _check_nested(self, data: bytes) -> None:
        document = msgspec.json.decode(data)
        count = sum(1 for path in self._nested for _ in values_at(path, document))
        if count > NESTED_MAX:
            raise Unstorable(f"its Nested() lists have {count} elements; {NESTED_MAX} are possible, or use Unindexed()")

    def _check_moments(self, data: bytes) -> None:
        document = msgspec.json.decode(data)
        for field in self._moments:
            for moment in field.values_in(document):
                if not _EARLIEST <= moment < _LATEST:
                    raise Unstorable(f"{field.name} is {moment}; 1970 to 2261 is possible, or mark it Unindexed()")

    def _check_limits(self, data: bytes) -> None:
        document = msgspec.json.decode(data)
        for field in self._limited:
            for value in field.values_in(document):
                _check_limit(field, value)


_codecs: dict[type[msgspec.Struct], DocumentCodec] = {}


def codec_of(document: type[msgspec.Struct]) -> DocumentCodec:
    """The codec of a document class; one per class. Raises DefinitionError as `shape_of` does."""
    codec = _codecs.get(document)
    if codec is None:
        codec = _codecs[document] = DocumentCodec(shape_of(document))
    return codec


def check_id(document_id: str) -> None:
    """Raise Unstorable unless this can be a document's id in every store: 1 to 512 bytes of UTF-8 without NUL."""
    try:
        size = len(document_id.encode())
    except UnicodeEncodeError as error:
        raise Unstorable(f"its id is not Unicode text: {error}") from error
    if not 1 <= size <= ID_BYTES_MAX:
        raise Unstorable(f"its id has {size} bytes; 1 to {ID_BYTES_MAX} are possible")
    if "\0" in document_id:
        raise Unstorable("its id contains a NUL character")


def _check_limit(field: Field, value: Any) -> None:
    if field.kind is FieldKind.LONG and value not in _LONGS:
        raise Unstorable(f"{field.name} is {value}, beyond 64 bits; mark it Unindexed() to keep such numbers")
    limit = INDEXED_BYTES_MAX if field.index is not None else KEYWORD_BYTES_MAX
    texts = [value] if isinstance(value, str) else []
    if field.kind is FieldKind.FLATTENED:
        texts = [f"{key}={one}" for key, one in value.items()]
    for text in texts:
        size = len(text.encode())
        if size > limit:
            raise Unstorable(
                f"{field.name} has a value of {size} bytes, {limit} are possible; use Text() or Unindexed()"
            )


def _tidied(value: Any) -> Any:
    """The same value with datetimes in UTC and zeros without a sign, so that equal values have equal bytes."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise Unstorable(f"{value!r} has no time zone: use datetime.now(UTC), or replace(tzinfo=UTC)")
        return value.astimezone(UTC)
    if isinstance(value, float):
        return 0.0 if value == 0.0 and math.copysign(1.0, value) < 0 else value
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        return msgspec.structs.replace(value, **{name: _tidied(getattr(value, name)) for name in names})
    if isinstance(value, list | tuple):
        return type(value)([_tidied(one) for one in value])
    if isinstance(value, dict):
        return {key: _tidied(one) for key, one in value.items()}
    return value
