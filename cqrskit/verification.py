"""Verifying a read model: folding the log again, and comparing every document, or a sample, with the read store.

The fold goes from the beginning to a fixed position. Documents that have gone on since, while projector and writers
work, are folded on to exactly the version that they have. Memory stays flat; see `cqrskit.folded_documents`.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgspec

from cqrskit.document_difference import FieldDifference, field_differences
from cqrskit.event_store import EventStore
from cqrskit.events import EventRegistry
from cqrskit.folded_documents import FoldedDocument, FoldedDocuments
from cqrskit.folding import Failure, Folded, Folding, Item, event_key
from cqrskit.projection import Projection
from cqrskit.read_store import IndexSpec, ReadStore, Stored

__all__ = [
    "Difference",
    "DifferenceKind",
    "ParkedDocument",
    "Progress",
    "VerificationReport",
    "Verifier",
    "sampled",
    "silent",
]

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, in which phase."""


def silent(*_: object) -> None:
    """A `Progress` for whom nobody watches."""


KEYS_A_REQUEST = 500
BLOCK_SIZE = 5_000


class DifferenceKind(StrEnum):
    """How a document differs from the fold of the log."""

    MISSING = "missing"
    """The log has the document, the store does not."""
    EXTRA = "extra"
    """The store has the document, the log does not."""
    STALE = "stale"
    """The store's version is older than the log's: events are not in it."""
    DIFFERENT = "different"
    """The content differs; `Difference.fields` says where."""
    VERSION = "version"
    """The content is equal, but the store's version is newer than the last event of the document."""
    UNFOLDABLE = "unfoldable"
    """A fold fails, or no store would take the document, but its key is not parked."""


class Difference(msgspec.Struct, frozen=True):
    """A document that is not what the log says. `expected` and `found` are None where there is no document.

    `reason` says why an unfoldable one cannot be folded; `expected` is what it was before.
    """

    projection: str
    id: str
    kind: DifferenceKind
    expected_version: int
    found_version: int
    expected: Any
    found: Any
    fields: tuple[FieldDifference, ...] = ()
    reason: str | None = None


class ParkedDocument(msgspec.Struct, frozen=True):
    """A key that is parked at `position`: its document is expected to be as it was before, until it is retried.

    `version` is what the store has (0: nothing). `moved_on`: it was retried while it was verified, and not compared.
    """

    key: str
    position: int
    version: int
    moved_on: bool = False


class VerificationReport(msgspec.Struct):
    """What was looked at. `head`: the position to which everything was folded; `documents`: how many were compared."""

    head: int = 0
    documents: int = 0
    differences: int = 0
    parked: list[ParkedDocument] = []


def sampled(key: str, share: float, seed: int) -> bool:
    """Whether a key is in the sample of this share (0 to 1) of all keys; the same for a seed, wherever it is asked."""
    digest = blake2b(key.encode(), digest_size=8, salt=seed.to_bytes(8, "big", signed=True)).digest()
    return int.from_bytes(digest, "big") < share * 2**64


class _ParkedFold:
    """What is known of one parked key: what the store had at the beginning, and how the fold came to it."""

    def __init__(self, position: int, stored: Stored | None) -> None:
        self.position = position
        self.stored = stored
        self.at_stored_version: Any = None
        self.folds_now = False
        """The fold takes the event at which the key was parked: the store refused it, or the code was mended."""


class Verifier:
    """One verification. Iterate over `differences`; `report` tells of the rest."""

    def __init__(
        self,
        projection: Projection,
        index: IndexSpec,
        *,
        event_store: EventStore,
        read_store: ReadStore,
        registry: EventRegistry,
        until: int | None = None,
        parked: Mapping[str, int] = {},
        skipped: Collection[tuple[str, int]] = (),
        share: float = 1.0,
        seed: int = 0,
        block_size: int = BLOCK_SIZE,
        on_progress: Progress = silent,
    ) -> None:
        """`index` may be of any generation; the projection must have reached `until` (default: the log's head) in it.

        `parked` are its parked keys with their positions, read after `until` was; `skipped` is as for `Folding`.
        With a `share` below 1 only a sample of the keys is compared, chosen by `seed`, and asked for one by one: so
        documents of keys that the log does not have at all are found by a full verification only. Of deleted
        documents, it is compared that they are gone, not at which version.
        """
        self.report = VerificationReport()
        self._projection = projection
        self._index = index
        self._event_store = event_store
        self._read_store = read_store
        self._until = until
        self._share = share
        self._block_size = block_size
        self._on_progress = on_progress
        wanted = (lambda key: sampled(key, share, seed)) if share < 1 else None
        self._parked_given = {key: position for key, position in parked.items() if wanted is None or wanted(key)}
        self._parked: dict[str, _ParkedFold] = {}
        self._failures: dict[str, Failure] = {}
        parked_events = {(key, position) for key, position in parked.items() if key == event_key(position)}
        self._folding = Folding(projection, registry, skipped={*skipped, *parked_events}, wanted=wanted)

    async def differences(self) -> AsyncIterator[Difference]:
        """Every difference, one after another. Raises ServerUnavailable, ReadStoreError or UnknownEventType."""
        head = await self._event_store.head() if self._until is None else self._until
        self.report = VerificationReport(head=head)
        self._failures = {}
        await self._look_at_parked(head)
        with FoldedDocuments(self._index.document) as folded:
            await self._fold(folded, 0, head, "fold", self._fold_first)
            await self._read_store.refresh(self._index)
            if self._share < 1:
                await self._compare_sample(folded)
            else:
                await self._compare_all(folded)
            await self._find_suspects(folded, head)
            async for difference in self._differing(folded):
                self.report.differences += 1
                yield difference

    # --- fold

    async def _fold(
        self,
        folded: FoldedDocuments,
        begin: int,
        end: int,
        phase: str,
        fold: Callable[[FoldedDocuments, dict[str, list[Item]]], None],
    ) -> None:
        """Fold the events of the positions `begin` + 1 … `end`."""
        position = begin
        while position < end:
            limit = min(self._block_size, end - position)
            block = await self._event_store.read(position, limit, self._folding.types)
            grouped = self._folding.group(block.events)
            fold(folded, grouped.groups)
            if end == self.report.head:
                self._note_failures(grouped.failures)
            position = block.until
            self._on_progress(position - begin, end - begin, phase)
        folded.flush()

    def _note_failures(self, failures: Mapping[str, Failure]) -> None:
        for key, failure in failures.items():
            parked = self._parked.get(key)
            if parked is None or failure.position < parked.position:
                self._failures.setdefault(key, failure)

    def _fold_first(self, folded: FoldedDocuments, groups: dict[str, list[Item]]) -> None:
        """Fold a block up to the head; keys that have failed are left as they are."""
        for key in self._failures.keys() & groups.keys():
            del groups[key]
        started = _started(folded, self._folding, groups)
        for key, items in groups.items():
            parked = self._parked.get(key)
            if parked is not None:
                items = self._fold_parked(parked, started[key], items)
            failure = self._folding.fold(started[key], items)
            if failure is not None:
                self._failures[key] = failure
        folded.keep(started)

    def _fold_parked(self, parked: _ParkedFold, folded: Folded, items: list[Item]) -> list[Item]:
        """The items before the key was parked. On the way, what the document was at the store's version is noted."""
        before = [item for item in items if item[2].position < parked.position]
        version = 0 if parked.stored is None else parked.stored.version
        if before and before[0][2].position <= version:
            seen = Folded(folded.version, folded.document)
            self._folding.fold(seen, [item for item in before if item[2].position <= version])
            parked.at_stored_version = seen.document
        failing = [item for item in items if item[2].position == parked.position]
        if failing:
            tried = Folded(folded.version, folded.document)
            self._folding.fold(tried, before)
            parked.folds_now = self._folding.fold(tried, failing) is None
        return before

    async def _look_at_parked(self, head: int) -> None:
        """What the store has of keys that were parked up to the head. Those parked later are as good as others."""
        positions = {key: position for key, position in self._parked_given.items() if position <= head}
        self._parked = {}
        for keys in _portions(list(positions)):
            stored = await self._read_store.load(self._index, keys)
            self._parked.update({key: _ParkedFold(positions[key], stored.get(key)) for key in keys})

    # --- compare

    async def _compare_sample(self, folded: FoldedDocuments) -> None:
        """Suspect all that differs; each document is asked for by its key."""
        total, done = folded.count(), 0
        for rows in _portions(folded.ordered()):
            stored = await self._read_store.load(self._index, [row.key for row in rows])
            folded.suspect([row.key for row in rows if not _equal(folded, row, stored.get(row.key))])
            done += len(rows)
            self._on_progress(done, total, "compare")
        self.report.documents = total

    async def _compare_all(self, folded: FoldedDocuments) -> None:
        """Suspect all that differs: both are read in the order of their keys, in one pass."""
        total, done = folded.count(), 0
        expected = (row for row in folded.ordered() if row.data is not None)
        row = next(expected, None)
        suspected: list[str] = []
        async for stored in self._read_store.scan(self._index):
            while row is not None and row.key < stored.id:
                suspected.append(row.key)
                row = next(expected, None)
            if row is None or row.key != stored.id:
                suspected.append(stored.id)
            else:
                if not _equal(folded, row, stored):
                    suspected.append(row.key)
                row = next(expected, None)
            done += 1
            if len(suspected) >= KEYS_A_REQUEST:
                folded.suspect(suspected)
                suspected = []
            if done % self._block_size == 0:
                self._on_progress(min(done, total), total, "compare")
        while row is not None:
            suspected.append(row.key)
            row = next(expected, None)
            if len(suspected) >= KEYS_A_REQUEST:
                folded.suspect(suspected)
                suspected = []
        folded.suspect(suspected)
        self.report.documents = done
        self._on_progress(total, total, "compare")

    async def _find_suspects(self, folded: FoldedDocuments, head: int) -> None:
        """Load what is suspected, as last written, and fold on to the versions that have gone beyond the head."""
        folded.suspect([*self._failures, *folded.unstorable, *self._parked])
        last = head
        for rows in folded.suspects():
            keys = [row.key for row in rows]
            for some in _portions(keys):
                stored = await self._read_store.load(self._index, some)
                folded.note_found({key: (each.version, each.document) for key, each in stored.items()})
                last = max([last, *(each.version for each in stored.values())])
        if last > head:
            await self._fold(folded, head, last, "fold on", self._fold_on)

    def _fold_on(self, folded: FoldedDocuments, groups: dict[str, list[Item]]) -> None:
        """Fold a block after the head into the suspects, each up to the version that the store has of it."""
        versions = folded.found_versions(list(groups))
        wanted = {}
        for key, version in versions.items():
            items = [item for item in groups[key] if item[2].position <= version]
            if items and key not in self._failures and key not in self._parked:
                wanted[key] = items
        started = _started(folded, self._folding, wanted)
        for key, items in wanted.items():
            failure = self._folding.fold(started[key], items)
            if failure is not None:
                self._failures[key] = failure
        folded.keep(started)

    # --- tell

    async def _differing(self, folded: FoldedDocuments) -> AsyncIterator[Difference]:
        """The differences among the suspects."""
        for found_rows in folded.suspects():
            expected_rows = folded.find([row.key for row in found_rows])
            for found in found_rows:
                expected = expected_rows.get(found.key, FoldedDocument(found.key, 0, None))
                difference = self._difference(folded, expected, found)
                if difference is not None:
                    yield difference

    def _difference(
        self, folded: FoldedDocuments, expected: FoldedDocument, found: FoldedDocument
    ) -> Difference | None:
        key, kind, reason = expected.key, _kind(folded, expected, found), None
        failure = self._failures.get(key)
        if failure is not None or key in folded.unstorable:
            kind = DifferenceKind.UNFOLDABLE
            reason = folded.unstorable.get(key, "") if failure is None else f"{failure.position}: {failure.reason}"
        parked = self._parked.get(key)
        if parked is not None and failure is None:
            moved_on = found.version >= parked.position
            self.report.parked.append(ParkedDocument(key, parked.position, found.version, moved_on))
            if moved_on or (parked.folds_now and _was(folded, parked, found)):
                return None
        if kind is None:
            return None
        wanted, got = folded.decoded(expected.data), folded.decoded(found.data)
        fields = field_differences(wanted, got)
        return Difference(
            self._projection.name, key, kind, expected.version, found.version, wanted, got, fields, reason
        )


def _started(folded: FoldedDocuments, folding: Folding, groups: Mapping[str, list[Item]]) -> dict[str, Folded]:
    """The documents before a block; those that begin with it need not be looked for."""
    started = folded.start([key for key, items in groups.items() if not folding.begins(items)])
    for key in groups:
        if key not in started:
            started[key] = Folded(0, None)
    return started


def _portions(values: Any) -> Iterator[list[Any]]:
    portion = []
    for value in values:
        portion.append(value)
        if len(portion) == KEYS_A_REQUEST:
            yield portion
            portion = []
    if portion:
        yield portion


def _equal(folded: FoldedDocuments, expected: FoldedDocument, stored: Stored | None) -> bool:
    if stored is None or stored.document is None:
        return expected.data is None
    return expected.version == stored.version and folded.equals(expected.data, stored.document)


def _kind(folded: FoldedDocuments, expected: FoldedDocument, found: FoldedDocument) -> DifferenceKind | None:
    if expected.data is None and found.data is None:
        return None
    if found.data is None:
        return DifferenceKind.MISSING
    if found.version < expected.version:
        return DifferenceKind.STALE
    if expected.data is None:
        return DifferenceKind.EXTRA
    if not folded.equals(expected.data, folded.decoded(found.data)):
        return DifferenceKind.DIFFERENT
    return None if found.version == expected.version else DifferenceKind.VERSION


def _was(folded: FoldedDocuments, parked: _ParkedFold, found: FoldedDocument) -> bool:
    """Whether the store has what the fold was at that version."""
    return bool(folded.decoded(found.data) == parked.at_stored_version)
