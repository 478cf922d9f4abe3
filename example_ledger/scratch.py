"""State of a long pass over the log, in memory that does not grow: what was used last is held, the rest is in a file.

The file is a temporary SQLite database without a journal, made when it is first needed; nobody needs it after a crash.
"""

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Generic, Self, TypeVar
from uuid import UUID

import msgspec

__all__ = ["Records", "Scratch"]

T = TypeVar("T", bound=msgspec.Struct)

CACHE_KIBIBYTES = 32_000
ROWS_AT_ONCE = 1_000

_PRAGMAS = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -{CACHE_KIBIBYTES};
CREATE TABLE records (name TEXT, id BLOB, data BLOB NOT NULL, PRIMARY KEY (name, id)) WITHOUT ROWID;
"""


class Scratch:
    """The file. Use it as a context; without one it goes when it is collected."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._file: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def file(self) -> sqlite3.Connection:
        """The database; it is made now if there is none yet."""
        if self._file is None:
            self._folder = TemporaryDirectory(prefix="ledger-check-")
            self._file = sqlite3.connect(Path(self._folder.name) / "records", isolation_level=None)
            self._file.executescript(_PRAGMAS)
        return self._file

    def close(self) -> None:
        """Delete it."""
        if self._file is not None and self._folder is not None:
            self._file.close()
            self._folder.cleanup()
        self._file = self._folder = None


class Records(Generic[T]):
    """Structs by UUID, any number of them. What was got may be changed in place until the next `trim`."""

    def __init__(self, scratch: Scratch, name: str, record: type[T], held_max: int) -> None:
        """Records of one class, under a `name` of their own in the file; `trim` leaves about `held_max` in memory."""
        self._scratch = scratch
        self._name = name
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(record).decode
        self._held: dict[UUID, T] = {}
        self._held_max = held_max
        self._has_written = False

    def get(self, key: UUID) -> T | None:
        """The record of this key."""
        found = self._held.get(key)
        if found is not None or not self._has_written:
            return found
        row = self._scratch.file.execute(
            "SELECT data FROM records WHERE name = ? AND id = ?", (self._name, key.bytes)
        ).fetchone()
        if row is None:
            return None
        found = self._held[key] = self._decode(row[0])
        return found

    def __getitem__(self, key: UUID) -> T:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: UUID, record: T) -> None:
        self._held[key] = record

    def pop(self, key: UUID) -> T | None:
        """The record of this key, which is forgotten."""
        found = self.get(key)
        if found is not None:
            del self._held[key]
            if self._has_written:
                self._scratch.file.execute("DELETE FROM records WHERE name = ? AND id = ?", (self._name, key.bytes))
        return found

    def items(self) -> Iterator[tuple[UUID, T]]:
        """All records by key. They must not be changed."""
        if not self._has_written:
            yield from sorted(self._held.items())
            return
        self._write(len(self._held))
        after = b""
        while rows := self._scratch.file.execute(
            "SELECT id, data FROM records WHERE name = ? AND id > ? ORDER BY id LIMIT ?",
            (self._name, after, ROWS_AT_ONCE),
        ).fetchall():
            yield from ((UUID(bytes=key), self._decode(data)) for key, data in rows)
            after = rows[-1][0]

    def trim(self) -> None:
        """Move those that have been held longest to the file, if there are too many."""
        surplus = len(self._held) - self._held_max
        if surplus > 0:
            self._write(surplus + self._held_max // 4)

    def _write(self, count: int) -> None:
        """In the order of their keys, so that neighbours in the file are written together."""
        self._has_written = True
        file, held, name = self._scratch.file, self._held, self._name
        keys = sorted(islice(held, count), key=lambda key: key.int)
        file.execute("BEGIN")
        file.executemany(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?)",
            ((name, key.bytes, self._encode(held.pop(key))) for key in keys),
        )
        file.execute("COMMIT")
