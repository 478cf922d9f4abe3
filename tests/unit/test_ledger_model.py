"""The ledger's handlers and folds beside a model of them, in memory.

Every reply is the model's, the books are in order after every step, and in the end documents are what the model has.
"""

from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis.stateful import invariant

from cqrskit import Projection
from cqrskit.projection import folds_of
from cqrskit.testing import Scenario
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from tests.ledger_model.comparing import assert_documents
from tests.ledger_model.invariants import check_invariants
from tests.ledger_model.machine import AccountsAndTransfers
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.steps import Expire, Step
from tests.ledger_model.words import BEGIN, Words


class LedgerInMemory(AccountsAndTransfers):
    """Gives each step to the handlers and to the model, one by one. It keeps no outcomes for retries."""

    def __init__(self) -> None:
        super().__init__()
        self.words = Words(1)
        self.model = LedgerModel(remembering=False)
        self.story = Scenario(ledger, now=BEGIN)
        self.checker = LogChecker()

    def give(self, step: Step, key: str | None) -> None:
        """The handler answers what the model answers, and a refusal changes nothing."""
        expected = self.model.decide(step)
        self.story.when(self.words.command(step))
        if expected.code is not None:
            self.story.then_refused(expected.code)
            assert self.story.events == []
        else:
            assert self.story.refusal is None, f"refused: {self.story.refusal}, {expected.reply} is due"
            assert self.words.reply(self.story.reply) == expected.reply
        assert len(self.story.log) == self.model.head

    def pass_time(self, seconds: int, *, expiring: bool) -> None:
        self.story.now += timedelta(seconds=seconds)
        held = [number for number, each in self.model.transfers.items() if each.state == "held"]
        self.model.pass_time(seconds, expiring=expiring)
        for number in held if expiring else ():
            self.story.when(self.words.command(Expire(number)))

    @invariant()
    def the_books_are_in_order(self) -> None:
        """The checker finds nothing, and each account has the model's counters."""
        check_invariants(self.model)
        for recorded in self.story.log[self.checker.position :]:
            self.checker.take(recorded, ledger.registry.decode(recorded))
        assert self.checker.violations == []
        found = {self.words.number(each): account.counters for each, account in self.checker.accounts.items()}
        assert found == {number: each.counters for number, each in self.model.accounts.items()}
        assert len(self.checker.transfers) == len(self.model.transfers)

    def teardown(self) -> None:
        self.checker.finish()
        assert self.checker.violations == []
        found = {each.name: list(self.documents(each()).values()) for each in ledger.projections}
        assert_documents(self.model, self.words, found)

    def documents(self, projection: Projection) -> dict[str, Any]:
        """A read model of the whole log."""
        documents: dict[str, Any] = {}
        folds = folds_of(projection)
        for recorded in self.story.log:
            for fold in folds.get(recorded.type, ()):
                event = ledger.registry.decode(recorded)
                key = str(fold.key(event, recorded))
                documents[key] = fold.apply(documents.get(key), event, recorded)
        return documents


LedgerInMemory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerBesideItsModel = LedgerInMemory.TestCase
