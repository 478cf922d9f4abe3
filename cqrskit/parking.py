"""Parked keys: documents that one event could not be folded into, and what has waited behind it since."""

from cqrskit.checkpoints import ParkedKey
from cqrskit.event_store import EventStore
from cqrskit.folding import Folding, Item

__all__ = ["retried"]


async def retried(
    folding: Folding, event_store: EventStore, parked: ParkedKey, until: int, block_size: int
) -> list[Item]:
    """The events to fold again into a parked document, in order: from the one that failed up to `until`."""
    items: list[Item] = []
    after = parked.position - 1
    while after < until:
        feed = await event_store.read(after, min(block_size, until - after), folding.types)
        items.extend(folding.group(feed.events).get(parked.key, ()))
        after = feed.until
    return items
