"""The checker of the books finds what is wrong with a log, and nothing in one that commands have written."""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest

from cqrskit import RecordedEvent
from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.testing import Scenario
from example_ledger.accounts import Account
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from example_ledger.findings import CASES_KEPT_MAX, KINDS
from example_ledger.transfers import Transfer
from tests.unit.damaged_logs import DAMAGES, STORIES, Damage, Log, renumbered
from tests.unit.test_ledger_holds import NOW, SHOP, opened, transfer

NOT_IN_THE_LOG = {"document_differs", "hold_overdue", "refused_and_posted", "reply_without_events"}
"""Kinds that show beside the log; tests/integration/test_ledger_check.py has them."""


def counts_of(log: Log, *, held_max: int = 1_000) -> dict[str, int]:
    """What is wrong with a log, by kind."""
    with LogChecker(held_max=held_max) as checker:
        for recorded in log:
            try:
                event = ledger.registry.decode(recorded)
            except (UnknownEventType, EventDecodeError) as error:
                checker.take_unreadable(recorded, str(error))
            else:
                checker.take(recorded, event)
        checker.finish()
        assert {each.kind for each in checker.violations} == checker.findings.counts.keys()
        return checker.findings.counts


@pytest.mark.parametrize("story", STORIES)
def test_what_the_ledger_does_is_in_order(story: Callable[[], Scenario]) -> None:
    assert counts_of(story().log) == counts_of(story().log, held_max=1) == {}


@pytest.mark.parametrize("damage", DAMAGES, ids=[each.kind for each in DAMAGES])
def test_the_checker_finds_what_was_damaged(damage: Damage) -> None:
    log = damage.story().log
    damaged = damage.damage(log)
    assert damaged != log
    counts = counts_of(damaged)
    assert {damage.kind, *damage.also} <= counts.keys()
    assert counts_of(damaged, held_max=1) == counts, "it depends on what is held in memory"


def test_every_kind_of_violation_in_a_log_is_damaged_here() -> None:
    assert {each.kind for each in DAMAGES} == KINDS.keys() - NOT_IN_THE_LOG


def test_many_violations_of_a_kind_are_counted_and_the_first_ones_kept() -> None:
    story = opened()
    for number in range(30):
        story.when(transfer(1, transfer_id=UUID(int=1_000 + number)))
    log = [each for each in story.log if each.stream_id != SHOP or each.type != "Account.Opened"]
    with LogChecker() as checker:
        for recorded in renumbered(log):
            checker.take(recorded, ledger.registry.decode(recorded))
        assert checker.findings.counts["account_unknown"] == 30
        kept = [each for each in checker.violations if each.kind == "account_unknown"]
        assert len(kept) == CASES_KEPT_MAX
        assert [each.position for each in kept] == sorted(each.position for each in kept)


def log_of(transfers: int, accounts: int = 20) -> Iterator[RecordedEvent]:
    """Accounts are opened, and pay each other in turn, one minor unit at a time."""
    versions, counters = [1] * accounts, [[0, 0] for _ in range(accounts)]
    ids = [UUID(int=number, version=4) for number in range(1, accounts + 1)]
    for place, account_id in enumerate(ids, start=1):
        opened = Account.Opened(name="a", type="asset", currency="EUR", overdraft_limit=None, metadata={})
        yield recorded(place, account_id, 1, opened)
    for number in range(transfers):
        transfer_id, position = UUID(int=1_000 + number, version=4), accounts + 3 * number
        sides = [number % accounts, (number + 1) % accounts]
        for side, (place, kind) in enumerate(zip(sides, (Account.Debited, Account.Credited), strict=True)):
            versions[place] += 1
            counters[place][side] += 1
            moved = kind(
                transfer_id=transfer_id,
                amount=1,
                currency="EUR",
                account_type="asset",
                counterparty_account_id=ids[sides[1 - side]],
                effective_at=NOW,
                debits_posted=counters[place][0],
                credits_posted=counters[place][1],
                debits_pending=0,
                credits_pending=0,
            )
            yield recorded(position + side + 1, ids[place], versions[place], moved)
        posted = Transfer.Posted(
            debit_account_id=ids[sides[0]],
            credit_account_id=ids[sides[1]],
            amount=1,
            currency="EUR",
            effective_at=NOW,
            description=None,
            reference=None,
            metadata={},
        )
        yield recorded(position + 3, transfer_id, 1, posted)


def recorded(position: int, stream_id: UUID, version: int, event: Any) -> RecordedEvent:
    """The event as the log has it."""
    data = msgspec.json.encode(event)
    return RecordedEvent(position, stream_id, version, event.stored_name, data, b"{}", NOW)


def peak_bytes(transfers: int) -> int:
    """The most memory that checking so many transfers and their receipts takes."""
    tracemalloc.start()
    with LogChecker(held_max=100) as checker:
        for number in range(transfers):
            command = b'{"PostTransfer":{"transfer_id":"%s"}}' % str(UUID(int=1_000 + number, version=4)).encode()
            checker.receipts.note(command, b'{"reply":{}}', 20 + 3 * (number + 1), NOW)
        checker.receipts.begin()
        for at in log_of(transfers):
            event = ledger.registry.decode(at)
            checker.take(at, event)
            checker.receipts.take(at.position - 1, at.position, [(at, event)])
        checker.finish()
        checker.receipts.finish(checker.position)
        assert (checker.violations, len(checker.transfers)) == ([], transfers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_log() -> None:
    peak_bytes(10)  # what is loaded once
    small = peak_bytes(500)
    assert peak_bytes(2_500) < 1.2 * small + 20_000
