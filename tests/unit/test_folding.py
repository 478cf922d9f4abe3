"""Folding: what blocks of events make of documents, however the log is cut up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit import Projection, RecordedEvent, on
from cqrskit.errors import UnknownEventType
from cqrskit.folding import Folded, Folding, event_key
from cqrskit.partition import Partition
from cqrskit.read_store import Stored
from tests.unit.folding_bank import (
    POISON,
    STREAMS,
    Balances,
    Latest,
    Row,
    Store,
    Streams,
    Transfer,
    folded_whole,
    log_of,
    partitions,
    registry,
)

NAMES = ["ann", "ben", "cid"]
amounts = st.sampled_from([1, 2, 3, 5, POISON, -POISON])
targets = st.sampled_from([*NAMES, "", "x" * 513])
posted = st.builds(
    Transfer.Posted,
    source=st.sampled_from(NAMES),
    target=targets,
    amount=amounts,
    others=st.lists(st.sampled_from(NAMES), max_size=3).map(tuple),
)
closed = st.builds(Transfer.Closed, name=st.sampled_from(NAMES))
logs = st.lists(st.one_of(posted, posted, posted, closed, st.just(b'{"source": 1}')), max_size=30)
skips = st.lists(st.tuples(st.sampled_from([*NAMES, *map(str, STREAMS)]), st.integers(1, 30)), max_size=5)


@given(
    projection=st.sampled_from([Balances(), Streams(), Latest()]),
    events=logs,
    cuts=st.lists(st.integers(0, 30), max_size=8),
    steps_back=st.lists(st.integers(0, 12), min_size=9, max_size=9),
    count=st.integers(1, 4),
    skipped=skips,
    skipped_events=st.lists(st.integers(1, 30), max_size=2),
)
def test_any_blocks_any_redelivery_and_any_partitions_give_what_one_fold_of_the_whole_gives(
    projection: Projection,
    events: list[Any],
    cuts: list[int],
    steps_back: list[int],
    count: int,
    skipped: list[tuple[str, int]],
    skipped_events: list[int],
) -> None:
    log = log_of(*events)
    skipped = skipped + [(event_key(position), position) for position in skipped_events]
    whole = folded_whole(projection, log, skipped)
    store = Store()
    ends = [*sorted(min(cut, len(log)) for cut in cuts), len(log)]
    for folding in partitions(projection, count, skipped):
        begin = 0
        for end, back in zip(ends, steps_back, strict=False):
            store.project(folding, log[max(begin - back, 0) : end])
            begin = end
    assert store.as_plain() == whole


@given(events=logs, count=st.integers(2, 5))
def test_every_event_of_a_projection_by_stream_is_in_the_partition_of_its_stream(events: list[Any], count: int) -> None:
    log = log_of(*events)
    for projection in (Streams(), Latest()):
        store = Store()
        for folding in partitions(projection, count):
            part = folding.feed_partition
            assert part == folding.partition
            store.project(folding, [each for each in log if part.owns_stream(each.stream_id)])
        assert store.as_plain() == folded_whole(projection, log)
    assert Folding(Balances(), registry, Partition(0, count)).feed_partition is None


def test_two_folds_of_one_event_change_the_same_document_one_after_the_other() -> None:
    documents, _ = folded_whole(Balances(), log_of(Transfer.Posted(source="ann", target="ann", amount=3)))
    assert documents == {"ann": (1, Row(0, ("-1", "+1")))}


def test_an_event_whose_second_fold_fails_leaves_nothing_in_the_document() -> None:
    log = log_of(
        Transfer.Posted(source="ann", target="ben", amount=3),
        Transfer.Posted(source="ann", target="ann", amount=POISON),
        Transfer.Posted(source="ann", target="ben", amount=4),
    )
    documents, parked = folded_whole(Balances(), log)
    assert documents == {"ann": (1, Row(-3, ("-1",))), "ben": (3, Row(7, ("+1", "+3")))}
    assert parked == {"ann": 2}


def test_a_document_that_has_an_event_gets_neither_of_its_folds_again() -> None:
    folding = Folding(Balances(), registry)
    log = log_of(*[Transfer.Posted(source="ann", target="ann", amount=3)] * 3)
    store = Store()
    store.documents["ann"] = Stored("ann", 2, Row(0, ("as", "stored")))
    store.project(folding, log[1:])
    assert store.documents["ann"] == Stored("ann", 3, Row(0, ("as", "stored", "-3", "+3")))


def test_a_key_that_is_named_twice_counts_once_and_is_told_to_the_fold() -> None:
    documents, _ = folded_whole(
        Balances(), log_of(Transfer.Posted(source="ann", target="", amount=1, others=("ben", "cid", "ben")))
    )
    assert documents["ben"] == (1, Row(0, ("ben?1",)))
    assert documents["cid"] == (1, Row(0, ("cid?1",)))


def test_a_deleted_document_keeps_its_version_and_may_come_back() -> None:
    give, close = Transfer.Posted(source="", target="ann", amount=1), Transfer.Closed(name="ann")
    log = log_of(give, close, close, give, streams=STREAMS[:1])
    key = str(STREAMS[0])
    assert folded_whole(Streams(), log[:2])[0][key] == (2, None)
    assert folded_whole(Streams(), log[:3])[0][key] == (2, None)
    assert folded_whole(Streams(), log)[0][key] == (4, Row(1, ("4",)))


@pytest.mark.parametrize("key", ["", "x" * 513, "a\0b", "\ud800", 7, ["ben", None]])
def test_an_event_whose_key_no_store_takes_is_parked_by_itself_and_is_in_no_document(key: Any) -> None:
    def odd(event: Transfer.Posted, _: RecordedEvent) -> Any:
        return key if event.amount == 2 else "ben"

    class Odd(Balances):
        @on(Transfer.Posted, key=odd)
        def to_odd(self, row: Row | None, event: Transfer.Posted, at: RecordedEvent) -> Row | None:
            return row

    amounts = [1, 2, 3]
    log = log_of(*[Transfer.Posted(source="ann", target="cid", amount=amount) for amount in amounts])
    grouped = Folding(Odd(), registry).group(log)
    assert {name: [item[2].position for item in items] for name, items in grouped.groups.items()} == {
        "ann": [1, 3],
        "ben": [1, 3],
        "cid": [1, 3],
    }
    ((name, failure),) = grouped.failures.items()
    assert (name, failure.position) == ("event:2", 2)
    assert "the key of Transfer.Posted cannot be told" in failure.reason


def test_an_event_that_cannot_be_decoded_is_parked_under_its_stream_or_by_itself() -> None:
    log = log_of(
        Transfer.Posted(source="a", target="b", amount=1),
        b"{}",
        Transfer.Posted(source="a", target="b", amount=1),
        streams=STREAMS[:1],
    )
    grouped = Folding(Streams(), registry).group(log)
    key = str(STREAMS[0])
    assert {name: failure.position for name, failure in grouped.failures.items()} == {key: 2}
    assert [item[2].position for item in grouped.groups[key]] == [1]
    grouped = Folding(Balances(), registry).group(log)
    assert {name: failure.position for name, failure in grouped.failures.items()} == {"event:2": 2}
    assert [item[2].position for item in grouped.groups["a"]] == [1, 3]


def test_an_event_that_newer_code_has_written_stops_the_projection() -> None:
    (recorded,) = log_of(Transfer.Posted(source="a", target="b", amount=1))
    newer = type(recorded)(1, STREAMS[0], 1, "Transfer.Posted@7", b"{}", b"{}", recorded.recorded_at)
    for projection in (Streams(), Balances()):
        with pytest.raises(UnknownEventType, match="newer code"):
            Folding(projection, registry).group([newer])


def test_an_event_that_begins_a_document_cannot_be_folded_to_none() -> None:
    class Nothing(Projection):
        document = Row

        @on(Transfer.Posted, creates=True)
        def posted(self, row: None, event: Transfer.Posted, at: RecordedEvent) -> None:
            return None

    folding = Folding(Nothing(), registry)
    (items,) = folding.group(log_of(Transfer.Posted(source="a", target="b", amount=1))).groups.values()
    failure = folding.fold(Folded(0, None), items)
    assert failure is not None
    assert "creates=True" in failure.reason
