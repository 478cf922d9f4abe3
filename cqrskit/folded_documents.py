"""Documents that are being folded from a whole log: any number of them, in memory that does not grow.

The ones used last are held; the others wait in a temporary SQLite file, which nobody needs after a crash. The same file
notes which documents of a read store have to be looked at again.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import msgspec

from cqrskit.document_codec import Unstorable, codec_of
from cqrskit.folding import Folded

__all__ = ["FoldedDocument", "FoldedDocuments"]

HELD_MAX = 20_000
KEYS_A_QUERY = 500
FILE_CACHE_KIBIBYTES = 32_000

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
CREATE TABLE folded (key TEXT PRIMARY KEY, version INTEGER NOT NULL, document BLOB) WITHOUT ROWID;
CREATE TABLE suspects (key TEXT PRIMARY KEY, version INTEGER, document BLOB) WITHOUT ROWID;
"""


_FIND_FOLDED = "SELECT key, version, document FROM folded WHERE key IN (SELECT value FROM json_each(?))"
_FIND_SUSPECTS = "SELECT key, version, document FROM suspects WHERE key IN (SELECT value FROM json_each(?))"


class FoldedDocument(msgspec.Struct, frozen=True, gc=False):
    """What the fold says of a key: the version, and the document as a read store encodes it, None if it is deleted."""

    key: str
    version: int
    data: bytes | None


class FoldedDocuments:
    """The documents of one fold, by key. A context: the file is gone when it ends.

    Keys come in code-point order, as read stores scan them.
    """

    def __init__(self, document: type[msgspec.Struct], *, held_max: int = HELD_MAX) -> None:
        """For documents of one class; at most about `held_max` of them are held in memory."""
        self._codec = codec_of(document)
        self._encode = msgspec.json.Encoder().encode
        self._held: OrderedDict[str, Folded] = OrderedDict()
        self._held_max = held_max
        self.unstorable: dict[str, str] = {}
        """Why those documents that no store would take, as they are at the end, are refused; see `flush`."""

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="cqrskit-fold-")
        self._file = sqlite3.connect(Path(self._folder.name) / "documents", isolation_level=None)
        self._file.execute(f"PRAGMA cache_size = -{FILE_CACHE_KIBIBYTES}")
        self._file.executescript(_TABLES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._folder.cleanup()

    # --- folding

    def start(self, keys: Sequence[str]) -> dict[str, Folded]:
        """The documents of these keys as they are, to be folded on; those of other keys begin with nothing."""
        held = self._held
        found = {key: held[key] for key in keys if key in held}
        missing = [key for key in keys if key not in found]
        for row in self._rows(_FIND_FOLDED, missing):
            data = row.data
            found[row.key] = Folded(row.version, None if data is None else self._codec.decode(data))
        for key in missing:
            if key not in found:
                found[key] = Folded(0, None)
        return found

    def keep(self, folded: Mapping[str, Folded]) -> None:
        """Take documents back after folding; those that were used longest ago leave memory."""
        held = self._held
        for key, each in folded.items():
            held[key] = each
            held.move_to_end(key)
        surplus = len(held) - self._held_max
        if surplus > 0:
            self._write(list(islice(held, surplus + self._held_max // 4)))

    def flush(self) -> None:
        """Write all that is held, so that it can be read in order."""
        self.unstorable = {}
        self._write(list(self._held))
        for key, each in self._held.items():
            try:
                self._codec.encode(each.document)
            except Unstorable as error:
                self.unstorable[key] = str(error)

    def _write(self, keys: list[str]) -> None:
        """Move documents to the file. One that no store would take stays: the next event may change that."""
        rows = []
        for key in keys:
            each = self._held[key]
            if each.changed:
                try:
                    data = None if each.document is None else self._codec.encode(each.document)
                except Unstorable:
                    continue
                rows.append((key, each.version, data))
            del self._held[key]
        self._file.execute("BEGIN")
        self._file.executemany("INSERT OR REPLACE INTO folded VALUES (?, ?, ?)", rows)
        self._file.execute("COMMIT")

    # --- reading

    def count(self) -> int:
        """Number of keys that were written, deleted documents included."""
        (number,) = self._file.execute("SELECT count(*) FROM folded").fetchone()
        return int(number)

    def ordered(self) -> Iterator[FoldedDocument]:
        """All that were written, by key."""
        return (FoldedDocument(*row) for row in self._file.execute("SELECT * FROM folded ORDER BY key"))

    def find(self, keys: Sequence[str]) -> dict[str, FoldedDocument]:
        """Those of these keys that were written."""
        return {row.key: row for row in self._rows(_FIND_FOLDED, keys)}

    def equals(self, data: bytes | None, document: Any) -> bool:
        """Whether a document of a read store is the one that was folded to these bytes."""
        if data is None or document is None:
            return data is None and document is None
        # The bytes can differ where the documents do not: Postgres has its own order for the keys of a dict.
        return bool(self._encode(document) == data or self._codec.decode(data) == document)

    def decoded(self, data: bytes | None) -> Any:
        """The document of these bytes."""
        return None if data is None else self._codec.decode(data)

    # --- suspects

    def suspect(self, keys: Sequence[str]) -> None:
        """Note keys whose documents have to be looked at again."""
        self._file.executemany("INSERT OR IGNORE INTO suspects (key) VALUES (?)", [(key,) for key in keys])

    def suspects(self) -> Iterator[list[FoldedDocument]]:
        """All suspects with what `note_found` said of them, by key, in portions; version 0 if it said nothing."""
        after = ""
        while True:
            rows = self._file.execute(
                "SELECT key, coalesce(version, 0), document FROM suspects WHERE key > ? ORDER BY key LIMIT 1000",
                (after,),
            ).fetchall()
            if not rows:
                return
            yield [FoldedDocument(*row) for row in rows]
            after = rows[-1][0]

    def note_found(self, found: Mapping[str, tuple[int, Any]]) -> None:
        """Note version and document that the read store has for suspects."""
        rows = [
            (version, None if document is None else self._encode(document), key)
            for key, (version, document) in found.items()
        ]
        self._file.executemany("UPDATE suspects SET version = ?, document = ? WHERE key = ?", rows)

    def found_versions(self, keys: Sequence[str]) -> dict[str, int]:
        """The versions that the read store has of those keys that are suspects."""
        return {row.key: row.version for row in self._rows(_FIND_SUSPECTS, keys) if row.version is not None}

    def _rows(self, query: str, keys: Sequence[str]) -> Iterator[FoldedDocument]:
        for begin in range(0, len(keys), KEYS_A_QUERY):
            some = msgspec.json.encode(keys[begin : begin + KEYS_A_QUERY]).decode()
            yield from (FoldedDocument(*row) for row in self._file.execute(query, (some,)))
