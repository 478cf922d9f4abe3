"""Partitions: shares of a projection's documents, or of the log's streams, that are worked on apart."""

import zlib
from uuid import UUID

import msgspec

__all__ = ["WHOLE", "Partition", "partition_of"]

UUID_LENGTH = 36
HASHED_DIGITS = 4
HASHED_BITS = 0xFFFF


class Partition(msgspec.Struct, frozen=True):
    """A share of a projection's documents: those whose key falls on `number`, of `count` shares."""

    number: int
    count: int

    def owns(self, key: str) -> bool:
        """Whether the document with this key belongs here."""
        return self.count == 1 or partition_of(key, self.count) == self.number

    def owns_stream(self, stream_id: UUID) -> bool:
        """Whether a stream belongs here: as `owns` says of its id as text."""
        return (stream_id.int & HASHED_BITS) % self.count == self.number


WHOLE = Partition(0, 1)
"""The one partition of a projection that has not been divided."""


def partition_of(key: str, count: int) -> int:
    """Number of the partition, of `count`, that a document's key falls on: the same on all machines, for ever.

    A UUID's text falls where its last four digits say, so that Postgres can tell for a stream's id as well
    (read_feed_in_partition.sql).
    """
    if len(key) == UUID_LENGTH and key[8] == "-":
        try:
            return int(key[-HASHED_DIGITS:], 16) % count
        except ValueError:
            pass
    return zlib.crc32(key.encode()) % count
