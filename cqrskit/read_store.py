"""The read store's port: versioned documents that are written in bulk, found by id, and searched.

`cqrskit.elasticsearch.read_store.ElasticsearchReadStore` and `cqrskit.postgres.read_store.PostgresReadStore` are
the adapters; both pass `cqrskit.testing.read_store_contract`. A document's version is the position of the last
event folded into it. The store refuses to go back: a write whose version is not above the stored one changes
nothing, which makes redelivery, crashes and two projectors at once harmless.
"""

import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from cqrskit.errors import DefinitionError
from cqrskit.query import LIMIT_MAX, Condition, Query
from cqrskit.query_plan import Plan
from cqrskit.summary import Groups, Summary

__all__ = [
    "Change",
    "IndexSettings",
    "IndexSpec",
    "Page",
    "ReadStore",
    "Stored",
    "numbers_behind",
    "page_of",
    "scan_pages",
]

_SHARDS_MAX = 1024
_OWN_SETTINGS = ("number_of_shards", "number_of_replicas", "auto_expand_replicas", "refresh_interval")


class IndexSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How Elasticsearch keeps a projection's index; Postgres passes it over. It counts when an index is made.

    `shards` are primary shards. `replicas` are copies of each; None means one, where a second node can hold it.
    `settings` are any other settings of an index by their names in Elasticsearch, without ``index.``, such as
    ``{"codec": "best_compression", "analysis": {...}}``. Raises DefinitionError for what is impossible.
    """

    shards: int = 1
    replicas: int | None = None
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds, and settings that are cqrskit's own."""
        if not 1 <= self.shards <= _SHARDS_MAX:
            raise DefinitionError(f"IndexSettings(shards={self.shards}): 1 to {_SHARDS_MAX} are possible")
        if self.replicas is not None and self.replicas < 0:
            raise DefinitionError(f"IndexSettings(replicas={self.replicas}): 0 or more are possible")
        for name in self.settings:
            if name == "index" or name.startswith("index."):
                raise DefinitionError(f"IndexSettings(settings={{{name!r}: ...}}): leave `index` out of the name")
            if name in _OWN_SETTINGS or name.split(".")[0] in ("blocks", "hidden"):
                raise DefinitionError(
                    f"IndexSettings(settings={{{name!r}: ...}}): cqrskit sets that itself; use `shards` and `replicas` "
                    "and, for refreshes, CQRSKIT_REFRESH_INTERVAL_SECONDS"
                )


class IndexSpec(msgspec.Struct, frozen=True):
    """Where one generation of a projection keeps its documents; `document` is their Struct class."""

    name: str
    generation: int
    document: type[Any]
    elasticsearch: IndexSettings = IndexSettings()


class Change(msgspec.Struct, frozen=True, gc=False):
    """A document's new content at `version`; without content, the document is deleted (and its version kept)."""

    id: str
    version: int
    document: Any


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
    """Each method raises ServerUnavailable when the server does not answer, ReadStoreError when it refuses.

    Those that read documents, and `refresh`, raise IndexMissing when the index is not there: it never answers as an
    empty one. A part of the server that does not answer is a server that does not answer.
    """

    writes_are_visible: bool
    """Whether searches see a write at once, so that no refresh is needed."""

    system: str
    """The server's name, as OpenTelemetry has it."""

    async def open(self) -> None:
        """Get ready to serve; does not require the server to answer."""

    async def close(self) -> None:
        """Let connections go."""

    async def ping(self, *, despite_pauses: bool = False) -> None:
        """Return if the server answers and can be used; raise ServerUnavailable or ConfigurationError if not.

        `despite_pauses`: ask even if it is being left alone because it did not answer.
        """

    async def identity(self) -> str:
        """Which store this is: the same in all programs that use it, and another for another server of its kind."""

    async def prepare(self, index: IndexSpec) -> str:
        """Make the index if it is missing, and return its identity, which no other index ever has.

        Whoever keeps a position for the index keeps the identity with it: a position says nothing about an index
        that was made later. ConfigurationError if the index was made for another shape of document. People do not
        see it yet: see `make_live`.
        """

    async def make_live(self, index: IndexSpec) -> None:
        """Show this generation, and no other, under the projection's own name to people and tools of the server.

        They see the old generation until they see the new one. Elasticsearch: the alias ``<prefix>-<projection>``;
        Postgres: the view ``read_models.<prefix>_<projection>``. Our own requests name the generation. ReadStoreError
        if the index is not there.
        """

    async def begin_bulk_load(self, index: IndexSpec) -> None:
        """Get ready for very many writes and no searches; every write is as safe as before. May be said twice."""

    async def end_bulk_load(self, index: IndexSpec) -> None:
        """Bring the index back to how it serves searches; may take long. Nothing happens if no load was begun."""

    async def size_bytes(self, index: IndexSpec) -> int:
        """Room that the index takes on the server's disks, copies included; 0 if there is none."""

    async def drop(self, index: IndexSpec) -> None:
        """Remove the index with its documents, live or not; nothing happens if there is none."""

    async def get(self, index: IndexSpec, document_id: str) -> Stored | None:
        """One document as last written, refreshed or not; None if there is none."""

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the documents that exist, as last written, deleted ones (with their version) included."""

    async def write(self, index: IndexSpec, changes: Sequence[Change]) -> dict[str, str]:
        """Write documents in bulk. The ids of those that the store will never take, each with the reason.

        All others are in the store then, in this version or a later one. Each id occurs at most once.

        ReadStoreError when the index is gone, or, here or in the next `refresh`, when it is not the one that was
        prepared: somebody has removed it and another process has made it anew.
        """

    async def refresh(self, index: IndexSpec) -> None:
        """Let searches see everything that was written before."""

    async def search(self, index: IndexSpec, query: Query) -> Page:
        """A page of documents. Raises InvalidQuery or InvalidCursor."""

    async def count(self, index: IndexSpec, where: Condition | None = None) -> int:
        """Number of documents that a search finds."""

    async def summarize(self, index: IndexSpec, summary: Summary) -> Groups:
        """Counts, sums and histograms of the documents that a search finds. Raises as `search` does."""

    async def numbers_of(self, name: str) -> list[int]:
        """Numbers of a projection's generations that have an index here, whoever knows of them, in order."""

    def name_of(self, index: IndexSpec) -> str:
        """What the server itself calls the index: Elasticsearch's index, or Postgres's table with its schema."""

    def scan(self, index: IndexSpec) -> AsyncGenerator[Stored, None]:
        """All documents that a search finds, ordered by id, without holding them in memory."""


def numbers_behind(beginning: str, names: Iterable[str]) -> list[int]:
    """The numbers that follow a beginning in those of the names which have nothing behind it but a number."""
    ends = [name.removeprefix(beginning) for name in names if name.startswith(beginning)]
    return sorted(int(end) for end in ends if re.fullmatch("[1-9][0-9]*", end))


def page_of(plan: Plan, found: list[Stored], *, held: str | None = None) -> Page:
    """The page that a plan asks for, from up to `limit` rows and one more; see `Plan.cursor_after` for `held`."""
    items = found[: plan.limit]
    more = len(found) > plan.limit
    return Page(items, plan.cursor_after(items[-1].id, items[-1].document, held=held) if more else None)


async def scan_pages(store: ReadStore, index: IndexSpec) -> AsyncGenerator[Stored, None]:
    """`ReadStore.scan` by pages of a search; for adapters that have nothing faster."""
    cursor: str | None = None
    while True:
        page = await store.search(index, Query(limit=LIMIT_MAX, cursor=cursor))
        for stored in page.items:
            yield stored
        if page.next is None:
            return
        cursor = page.next
