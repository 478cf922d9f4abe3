"""Parked keys: documents that one event could not be folded into, and what has waited behind it since."""

from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import msgspec

from cqrskit.checkpoints import ParkedKey
from cqrskit.event_store import EventStore
from cqrskit.event_versions import base_of
from cqrskit.folding import Failure, Folded, Folding, Grouped, Item, event_key
from cqrskit.read_store import Change, IndexSpec, ReadStore

__all__ = ["fold_into_stored", "fold_parked", "parked_key"]

OUT_OF_ORDER = (
    "it can be read now, but the documents that it belongs to may have had later events, and their order is kept: "
    "build them anew with"
)
NOT_FOUND = "the event that it was parked for does not belong to it any more: build its documents anew"


def parked_key(folding: Folding, key: str, failure: Failure, items: Sequence[Item] = ()) -> ParkedKey:
    """What is remembered of a key that failed; of its `items`, those behind the failure wait."""
    behind = sum(item[2].position > failure.position for item in items)
    return ParkedKey(key, failure.position, failure.reason, folding.owner_of(key, failure), behind)


async def fold_parked(
    folding: Folding,
    event_store: EventStore,
    read_store: ReadStore,
    index: IndexSpec,
    parked: Mapping[str, ParkedKey],
    *,
    until: int,
    block_size: int,
    must_be_seen: bool,
) -> dict[str, ParkedKey]:
    """Fold what waits behind parked keys, each from its position up to `until`; those that fail again.

    Each document gets its events in the order of the log, up to the first that fails. Where it `must_be_seen`, a key is
    level only if the event that it was parked for was among them, or was given up.
    """
    failed: dict[str, ParkedKey] = {}
    for key, given in parked.items():
        if key == event_key(given.position) and not folding.skips(key, given.position):
            reason = f"{OUT_OF_ORDER} `cqrskit rebuild {folding.projection.name}`"
            failed[key] = msgspec.structs.replace(given, error=reason, events_waiting=0)
    unseen = {key for key, given in parked.items() if not folding.skips(key, given.position)} - failed.keys()
    async for grouped in _portions(folding, event_store, parked, until, block_size):
        for key in parked.keys() & (grouped.groups.keys() | grouped.failures.keys()):
            items, unread = grouped.groups.get(key, []), grouped.failures.get(key)
            at = parked[key].position
            if any(item[2].position == at for item in items) or (unread is not None and unread.position == at):
                unseen.discard(key)
            before = failed.get(key)
            if before is not None and key == event_key(before.position):
                if unread is not None:
                    failed[key] = parked_key(folding, key, unread)
                continue
            if before is not None:
                waiting = before.events_waiting + len(items)
                failed[key] = msgspec.structs.replace(before, events_waiting=waiting)
                continue
            failure = await fold_into_stored(folding, read_store, index, key, items) or unread
            if failure is not None:
                failed[key] = parked_key(folding, key, failure, items)
    for key in unseen - failed.keys() if must_be_seen else ():
        failed[key] = msgspec.structs.replace(parked[key], error=NOT_FOUND)
    return failed


async def _portions(
    folding: Folding, event_store: EventStore, parked: Mapping[str, ParkedKey], until: int, block_size: int
) -> AsyncIterator[Grouped]:
    """The parked keys' events in order, some at a time; only their streams are read where keys are streams."""
    if folding.by_stream:
        wanted = {base_of(stored_name) for stored_name in folding.types}
        for key, given in parked.items():
            events = [
                event
                for event in await event_store.load_streams([UUID(key)])
                if given.position <= event.position <= until and base_of(event.type) in wanted
            ]
            for begin in range(0, len(events), block_size):
                yield folding.group(events[begin : begin + block_size])
        return
    after = min(given.position for given in parked.values()) - 1
    while after < until:
        feed = await event_store.read(after, min(block_size, until - after), folding.types, folding.feed_partition)
        yield folding.group(feed.events)
        after = feed.until


async def fold_into_stored(
    folding: Folding, read_store: ReadStore, index: IndexSpec, key: str, items: Sequence[Item]
) -> Failure | None:
    """Fold events into a document as it is stored, and write it; the first event that cannot be, with the reason.

    That is one whose fold fails, or one that makes a document which the store refuses. All before it are written.
    """
    stored = (await read_store.load(index, [key])).get(key)
    written = Folded(0, None) if stored is None else Folded(stored.version, stored.document)
    folded = msgspec.structs.replace(written)
    failure = folding.fold(folded, items)
    refusal = await _write(read_store, index, key, folded)
    if refusal is None:
        return failure
    # Some event before the end makes it impossible to store. Its place is found by halves: what the store takes of the
    # first half is kept, and the search goes on behind it.
    ends = [place for place in range(1, len(items) + 1) if _ends_event(items, place)]
    good, bad = 0, len(ends)
    while bad - good > 1:
        middle = (good + bad) // 2
        folded = msgspec.structs.replace(written, changed=False)
        cut_short = folding.fold(folded, items[ends[good - 1] if good else 0 : ends[middle - 1]])
        refused = await _write(read_store, index, key, folded)
        if refused is not None or cut_short is not None:
            bad, refusal = middle, refused or refusal
        else:
            good, written = middle, folded
    culprit = items[ends[bad - 1] - 1][2]
    return Failure(culprit.position, f"the read store refused it: {refusal}", culprit.stream_id)


def _ends_event(items: Sequence[Item], place: int) -> bool:
    """Whether no item from `place` on belongs to the event before it: an event's folds are never divided."""
    return place == len(items) or items[place][2].position != items[place - 1][2].position


async def _write(read_store: ReadStore, index: IndexSpec, key: str, folded: Folded) -> str | None:
    """Write a document if it has changed; why the store refuses it."""
    if not folded.changed:
        return None
    return (await read_store.write(index, [Change(key, folded.version, folded.document)])).get(key)
