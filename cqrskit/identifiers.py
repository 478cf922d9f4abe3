"""Ids for new things, which a retry makes again."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID, uuid5

__all__ = ["ids_made_from", "new_id", "was_made"]

NAMESPACE = UUID("0c8d1d5a-6f1e-5f0e-9d57-3f0f7b1b6f5e")


class _Maker:
    """Makes the ids of one request: the first, the second … of its idempotency key."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._count = 0

    def next_id(self) -> UUID:
        self._count += 1
        return self._id(self._count)

    def has_made(self, made: UUID) -> bool:
        return any(self._id(number) == made for number in range(1, self._count + 1))

    def _id(self, number: int) -> UUID:
        return uuid5(NAMESPACE, f"{number} {self._key}")


_maker: ContextVar[_Maker | None] = ContextVar("cqrskit_id_maker", default=None)


def new_id() -> UUID:
    """An id for something new: a random one that begins with the time, or in a request with an idempotency key the next
    one made from that key.

    The time (version 7 of RFC 9562) keeps the streams that are begun now side by side in the log's index. Each batch
    then writes to few of its pages, however long the log is; with ids that are random alone, to one for each stream.

    Use it as ``msgspec.field(default_factory=new_id)`` in commands. With random ids a retry whose body leaves the id
    out would be another command under the same key, and be refused.
    """
    maker = _maker.get()
    return _time_ordered() if maker is None else maker.next_id()


def was_made(found: UUID) -> bool:
    """Whether this is an id that `new_id` made in this request from its idempotency key: its sender never named it."""
    maker = _maker.get()
    return maker is not None and maker.has_made(found)


def _time_ordered() -> UUID:
    """48 bits of milliseconds, then 74 random ones around the version and the variant."""
    randomness = int.from_bytes(os.urandom(10))
    high, low = randomness >> 68, randomness & (1 << 62) - 1
    return UUID(int=time.time_ns() // 1_000_000 << 80 | 7 << 76 | high << 64 | 2 << 62 | low)


@contextmanager
def ids_made_from(key: str) -> Iterator[None]:
    """Let `new_id` make its ids from this key, the same ones in the same order each time."""
    token = _maker.set(_Maker(key))
    try:
        yield
    finally:
        _maker.reset(token)
