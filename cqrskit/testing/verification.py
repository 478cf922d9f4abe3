"""Whether every document equals the fold of the log: the promise that a read model rests on, checked from outside."""

from typing import Any

import msgspec

from cqrskit.application import Runtime
from cqrskit.folding import Folded, Folding
from cqrskit.projection import Projection
from cqrskit.read_store import Stored

__all__ = ["Difference", "differences_from_log"]


class Difference(msgspec.Struct, frozen=True):
    """A document that is not what the log says. `expected` and `found` are None where there is no document."""

    projection: str
    id: str
    expected: Any
    found: Any


async def differences_from_log(
    runtime: Runtime, projection: type[Projection], *, until: int | None = None
) -> list[Difference]:
    """Fold the log up to `until` (default: its head) in memory, and compare all documents of the read store with it.

    The projection must have reached that position; documents that have gone beyond it are passed over. Everything is
    held in memory, so this is for logs of up to some million events.
    """
    head = await runtime.event_store.head() if until is None else until
    expected = await _fold(runtime, projection(), head)
    index = await runtime.reader.index(projection)
    await runtime.read_store.refresh(index)
    differences = []
    async for stored in runtime.read_store.scan(index):
        if stored.version > head:
            expected.pop(stored.id, None)
            continue
        wanted = expected.pop(stored.id, None)
        if wanted is None or (wanted.version, wanted.document) != (stored.version, stored.document):
            differences.append(Difference(projection.name, stored.id, wanted and wanted.document, stored.document))
    missing = [stored for stored in expected.values() if stored.document is not None]
    return differences + [Difference(projection.name, each.id, each.document, None) for each in missing]


async def _fold(runtime: Runtime, projection: Projection, head: int) -> dict[str, Stored]:
    folding = Folding(projection, runtime.application.registry)
    documents: dict[str, Stored] = {}
    position = 0
    while position < head:
        limit = min(runtime.settings.block_size_max, head - position)
        block = await runtime.event_store.read(position, limit, folding.types)
        for key, items in folding.group(block.events).groups.items():
            before = documents.get(key)
            folded = Folded(0, None) if before is None else Folded(before.version, before.document)
            folding.fold(folded, items)
            documents[key] = Stored(key, folded.version, folded.document)
        position = block.until
    return documents
