"""The ledger on real servers beside its model: every reply, every counter, every document on either read store."""

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how_often
from hypothesis.stateful import run_state_machine_as_test

from cqrskit import Settings
from tests.ledger_model.at_work import LedgerAtWork
from tests.ledger_model.held_to_it import HeldToTheModel

RUNS, STEPS = 30, 60


@pytest.fixture
def at_work(settings: Settings) -> Iterator[LedgerAtWork]:
    """The ledger at work in an event loop of its own, which stands still between two steps."""
    at_work = LedgerAtWork(msgspec.structs.replace(settings, block_size_max=50, wait_timeout_seconds=60.0))
    with at_work.runner:
        at_work.run(at_work.open())
        yield at_work
        at_work.run(at_work.close())


def test_every_reply_and_every_document_is_the_models(at_work: LedgerAtWork) -> None:
    class Machine(HeldToTheModel):
        pass

    Machine.at_work = at_work
    how = how_often(
        max_examples=RUNS,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    run_state_machine_as_test(Machine, settings=how)
    report = at_work.run(at_work.check())
    assert report.violations == []
    print(f"{Machine.steps_given} steps, {report.events} events, {report.documents}")
