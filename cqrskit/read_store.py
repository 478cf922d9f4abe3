"""The read store's port: versioned documents that are written in bulk, found by id, and searched.

`cqrskit.elasticsearch.read_store.ElasticsearchReadStore` and `cqrskit.postgres.read_store.PostgresReadStore` are
the adapters; both pass `cqrskit.testing.read_store_contract`. A document's version is the position of the last
event folded into it. The store refuses to go back: a write whose version is not above the stored one changes
nothing, which makes redelivery, crashes and two projectors at once harmless.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import msgspec

from cqrskit.query import LIMIT_MAX, Condition, Query

__all__ = ["Change", "IndexSpec", "Outcome", "Page", "ReadStore", "Stored", "scan_pages"]


class IndexSpec(msgspec.Struct, frozen=True):
    """Where one generation of a projection keeps its documents; `document` is their Struct class."""

    name: str
    generation: int
    document: type[Any]


class Change(msgspec.Struct, frozen=True, gc=False):
    """A document's new content at `version`; without content, the document is deleted (and its version kept)."""

    id: str
    version: int
    document: Any


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one change. `refusal` says why the store will never take this document.

    `applied` is False without a refusal when the store had this version, or a later one, already.
    """

    applied: bool
    refusal: str | None = None


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A document as the store has it. `document` is None only where `load` found a deleted one.

    `stale` is set by a `Reader` alone: the document is parked, and lacks events.
    """

    id: str
    version: int
    document: Any
    stale: bool = False


class Page(msgspec.Struct, frozen=True):
    """Rows of a search, and the cursor of the next page (None at the end)."""

    items: list[Stored]
    next: str | None = None


class ReadStore(Protocol):
    """Each method raises ServerUnavailable when the server does not answer, ReadStoreError when it refuses."""

    writes_are_visible: bool
    """Whether searches see a write at once, so that no refresh is needed."""

    async def open(self) -> None:
        """Get ready to serve; does not require the server to answer."""

    async def close(self) -> None:
        """Let connections go."""

    async def ping(self) -> None:
        """Return if the server answers and can be used; raise ServerUnavailable or ConfigurationError if not."""

    async def prepare(self, index: IndexSpec) -> str:
        """Make the index if it is missing, and return its identity, which no other index ever has.

        Whoever keeps a position for the index keeps the identity with it: a position says nothing about an index
        that was made later. ConfigurationError if the index was made for another shape of document.
        """

    async def drop(self, index: IndexSpec) -> None:
        """Remove the index with its documents; nothing happens if there is none."""

    async def get(self, index: IndexSpec, document_id: str) -> Stored | None:
        """One document as last written, refreshed or not; None if there is none."""

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the documents that exist, as last written, deleted ones (with their version) included."""

    async def write(self, index: IndexSpec, changes: Sequence[Change]) -> list[Outcome]:
        """Write documents in bulk; one outcome for each change, in order. Each id occurs at most once."""

    async def refresh(self, index: IndexSpec) -> None:
        """Let searches see everything that was written before."""

    async def search(self, index: IndexSpec, query: Query) -> Page:
        """A page of documents. Raises InvalidQuery or InvalidCursor. A missing index answers as an empty one."""

    async def count(self, index: IndexSpec, where: Condition | None = None) -> int:
        """Number of documents that a search finds."""

    def scan(self, index: IndexSpec) -> AsyncIterator[Stored]:
        """All documents that a search finds, ordered by id, without holding them in memory."""


async def scan_pages(store: ReadStore, index: IndexSpec) -> AsyncIterator[Stored]:
    """`ReadStore.scan` by pages of a search; for adapters that have nothing faster."""
    cursor: str | None = None
    while True:
        page = await store.search(index, Query(limit=LIMIT_MAX, cursor=cursor))
        for stored in page.items:
            yield stored
        if page.next is None:
            return
        cursor = page.next
