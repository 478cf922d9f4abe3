"""The checker of the books finds what is wrong with a log, and nothing in one that commands have written."""

from collections.abc import Callable
from uuid import UUID

import pytest

from cqrskit.errors import EventDecodeError, UnknownEventType
from cqrskit.testing import Scenario
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from example_ledger.findings import CASES_KEPT_MAX, KINDS
from tests.unit.damaged_logs import DAMAGES, STORIES, Damage, Log, renumbered
from tests.unit.test_ledger_holds import SHOP, opened, transfer

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
