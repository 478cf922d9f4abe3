"""The documents that a projector has in memory, so that it need not load what it has written a moment ago."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from cqrskit.folding import Folded, Folding, Item
from cqrskit.read_store import Change, IndexSpec, ReadStore, Stored

__all__ = ["HeldDocuments"]


class HeldDocuments:
    """Holds documents as they were last folded, at most `size_max`; those that were not changed for longest go first.

    `loads` tells whether the last block needed documents that are not here, `holds` whether any is ever needed: none is
    where each event begins one.
    """

    def __init__(
        self,
        folding: Folding,
        read_store: ReadStore,
        index: IndexSpec,
        *,
        size_max: int,
        all_held: bool,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        """`all_held`: there are no documents yet, so that none is elsewhere. `settle` ends writes before a load."""
        self._folding = folding
        self._read_store = read_store
        self._index = index
        self._size_max = size_max
        self._all_held = all_held
        self._settle = settle
        self._held: OrderedDict[str, Stored] = OrderedDict()
        self.holds = not folding.only_begins
        self.loads = False

    async def start(self, groups: Mapping[str, Sequence[Item]], changes: Mapping[str, Change]) -> dict[str, Folded]:
        """The documents as they were before a block: among the `changes` not yet written, held, or loaded in one
        request.

        Those that are not there yet are left out.
        """
        started: dict[str, Folded] = {}
        if not self.holds:
            return started
        held, begins = self._held, self._folding.begins
        wanted: list[str] = []
        for key, items in groups.items():
            if known := changes.get(key) or held.get(key):
                started[key] = Folded(known.version, known.document)
            elif not (self._all_held or begins(items)):
                wanted.append(key)
        self.loads = bool(wanted)
        if wanted:
            await self._settle()  # what has left memory must be in the store before it is loaded
            for stored in (await self._read_store.load(self._index, wanted)).values():
                started[stored.id] = Folded(stored.version, stored.document)
        return started

    def keep(self, key: str, folded: Folded) -> None:
        """Hold a document as it is now."""
        self._held[key] = Stored(key, folded.version, folded.document)
        self._held.move_to_end(key)

    def forget(self, key: str) -> None:
        """What is in memory of a document is not what is stored."""
        self._held.pop(key, None)
        self._all_held = False

    def forget_all(self) -> None:
        """What is in memory may not be what is stored."""
        self._held.clear()
        self._all_held = False

    def trim(self) -> None:
        """Hold no more than the limit."""
        while len(self._held) > self._size_max:
            self._held.popitem(last=False)
            self._all_held = False
