"""Parked keys: documents that one event could not be folded into, and what has waited behind it since."""

from cqrskit.checkpoints import ParkedKey
from cqrskit.event_store import EventStore
from cqrskit.folding import Failure, Folding, Item

__all__ = ["retried"]


async def retried(
    folding: Folding, event_store: EventStore, parked: ParkedKey, until: int, block_size: int
) -> tuple[list[Item], Failure | None]:
    """The events to fold again into a parked document, in order: from the one that failed up to `until`.

    If one of them cannot be read, those before it, and that failure.
    """
    items: list[Item] = []
    after = parked.position - 1
    while after < until:
        feed = await event_store.read(after, min(block_size, until - after), folding.types, folding.feed_partition)
        grouped = folding.group(feed.events)
        items.extend(grouped.groups.get(parked.key, ()))
        if parked.key in grouped.failures:
            return items, grouped.failures[parked.key]
        after = feed.until
    return items, None
