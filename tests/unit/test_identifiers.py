"""Ids of new things: random, in the order of time, and the same again for a retried request."""

import time
from uuid import RFC_4122, UUID

from cqrskit import new_id
from cqrskit.identifiers import ids_made_from


def test_new_ids_are_of_version_7_and_all_different() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert {(each.version, each.variant) for each in ids} == {(7, RFC_4122)}


def test_new_ids_begin_with_the_time_so_that_later_ones_are_greater() -> None:
    before = time.time_ns() // 1_000_000
    first = new_id()
    while time.time_ns() // 1_000_000 <= (first.int >> 80):
        pass
    second = new_id()
    after = time.time_ns() // 1_000_000
    assert before <= first.int >> 80 < second.int >> 80 <= after
    assert first < second


def test_what_follows_the_time_is_random_in_every_bit() -> None:
    ids = [new_id().int for _ in range(500)]
    random_bits = [(each & (1 << 62) - 1) | (each >> 64 & 0xFFF) << 62 for each in ids]
    ones = [sum(bits >> place & 1 for bits in random_bits) for place in range(74)]
    assert all(150 < count < 350 for count in ones)


def test_a_retry_makes_the_same_ids_in_the_same_order() -> None:
    def made() -> list[UUID]:
        with ids_made_from("key"):
            return [new_id(), new_id()]

    first, second = made()
    assert made() == [first, second]
    assert first != second
    assert new_id() not in (first, second)
