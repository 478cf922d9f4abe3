"""Steps that real executors decide many at a time, in the order in which the model decides them one by one."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any, ClassVar, Literal
from uuid import uuid4

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from cqrskit import CommandResult, CqrskitError, Rejected
from tests.ledger_model.at_work import LedgerAtWork
from tests.ledger_model.books import Outcome
from tests.ledger_model.comparing import assert_documents
from tests.ledger_model.invariants import check_invariants
from tests.ledger_model.machine import Remembering
from tests.ledger_model.model import LedgerModel, own_key
from tests.ledger_model.steps import Step
from tests.ledger_model.words import BEGIN, Words

__all__ = ["HeldToTheModel", "assert_details"]

How = Literal["together", "side by side", "one by one"]


class Given(msgspec.Struct, frozen=True):
    """A step that the model has decided, and what it is answered."""

    step: Step
    key: str | None
    expected: Outcome

    @property
    def same_for_everybody(self) -> bool:
        """Whether it may be given to two executors at once: nothing else than the first outcome is ever due."""
        return self.expected.lasting or self.expected.replayed or (self.key is None and own_key(self.step) is None)


class HeldToTheModel(Remembering):
    """A machine on real servers; `at_work` is set by the test."""

    at_work: ClassVar[LedgerAtWork]
    steps_given: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Given] = []
        self.run = self.at_work.run
        self.run(self.at_work.end_holds())
        self.at_work.now = BEGIN
        self.words = Words(uuid4().int & (2**40 - 1))
        self.checked = self.run(self.at_work.head())
        self.model = LedgerModel(remembering=True, head=self.checked)

    def give(self, step: Step, key: str | None) -> None:
        """Decided by the model now, by an executor later."""
        type(self).steps_given += 1
        self.waiting.append(Given(step, key, self.model.decide(step, key)))
        check_invariants(self.model)

    @precondition(lambda self: self.waiting)
    @rule(
        place=st.integers(0, 2),
        other=st.sampled_from([None, None, 0, 1, 2]),
        how=st.sampled_from(["together", "together", "side by side", "one by one"]),
        looking=st.sampled_from([None, None, 0, 1, 2]),
    )
    def send(self, place: int, other: int | None, how: How, looking: int | None) -> None:
        """Give what waits to an executor; what may come twice to two of them at once, to each in this order."""
        waiting, self.waiting = self.waiting, []
        for twice, some in groupby(waiting, lambda each: other not in (None, place) and each.same_for_everybody):
            if twice:
                assert other is not None
                self.run(self._send_to_both((place, other), list(some)))
            else:
                self.run(self._send(place, list(some), how))
        self.check_counters(looking)

    async def _send(self, place: int, given: Sequence[Given], how: How) -> None:
        commands, keys = self._commands(given)
        if how == "together":
            results = await self.at_work.together(place, commands, keys)
        elif how == "side by side":
            results = await self.at_work.side_by_side(place, commands, keys)
        else:
            results = []
            for command, key in zip(commands, keys, strict=True):
                results += await self.at_work.together(place, [command], [key])
        for each, result in zip(given, results, strict=True):
            self.assert_answer(each, result, again=each.expected.replayed)

    async def _send_to_both(self, places: tuple[int, int], given: Sequence[Given]) -> None:
        """Each has its effect once: one of the two executors tells that it was there before."""
        commands, keys = self._commands(given)
        fresh = uuid4().hex
        keys = [key or f"{fresh} {number}" for number, key in enumerate(keys)]
        one, other = await asyncio.gather(*(self.at_work.together(place, commands, keys) for place in places))
        for each, *results in zip(given, one, other, strict=True):
            again = [bool(result.replayed) for result in results]  # type: ignore[union-attr]
            assert sum(again) == (2 if each.expected.replayed else 1), (each, results)
            for result, replayed in zip(results, again, strict=True):
                self.assert_answer(each, result, again=replayed)

    def _commands(self, given: Sequence[Given]) -> tuple[list[Any], list[str | None]]:
        return [self.words.command(each.step) for each in given], [self.words.key(each.key) for each in given]

    def assert_answer(self, given: Given, result: CommandResult | CqrskitError, *, again: bool) -> None:
        """The ledger answers what the model answers."""
        expected = given.expected
        if expected.code is not None:
            assert isinstance(result, Rejected), (given, result)
            assert (result.code, result.replayed) == (expected.code, again), (given, result)
            assert_details(given.step, expected, result.details, self.words)
            return
        assert isinstance(result, CommandResult), (given, result)
        assert self.words.reply(result.reply) == expected.reply, (given, result)
        appended = expected.appended and not again
        assert (result.appended, result.replayed) == (appended, again), (given, result)
        assert expected.position in (None, result.position), (given, result)
        assert result.position <= self.model.head

    def check_counters(self, looking: int | None) -> None:
        """The log ends where the model's does; what was stored, and what executors have, is what the model has."""
        assert self.run(self.at_work.head()) == self.model.head
        stored = self.run(self.at_work.counters_after(self.checked))
        self.checked = self.model.head
        for account_id, counters in stored.items():
            assert counters == self.model.accounts[self.words.number(account_id)].counters
        if looking is None:
            return
        numbers = list(self.model.accounts)
        seen = self.run(self.at_work.looks(looking, [self.words.account_id(number) for number in numbers]))
        for number, each in zip(numbers, seen, strict=True):
            account = self.model.accounts[number]
            assert each.counters == account.counters, number
            assert (each.status, each.overdraft_limit) == (account.status, account.limit), number
            assert each.metadata == self.words.metadata(account.words), number

    def pass_time(self, seconds: int, *, expiring: bool) -> None:
        self.send_rest()
        self.model.pass_time(seconds, expiring=expiring)
        self.at_work.now += timedelta(seconds=seconds)
        if expiring:
            self.run(self.at_work.run_due())
        self.check_counters(None)

    def send_rest(self) -> None:
        """Let nothing wait."""
        if self.waiting:
            self.send(2, None, "together", 2)

    def teardown(self) -> None:
        """Once everything is level, documents and due commands are what the model has."""
        self.send_rest()
        self.check_due()
        account_ids = [self.words.account_id(number) for number in self.model.accounts]
        currencies = [self.words.currency(name) for name in ("EUR", "USD")]
        if account_ids:
            found = self.run(self.at_work.documents(account_ids, currencies, self.model.head))
            assert_documents(self.model, self.words, found)

    def check_due(self) -> None:
        """Each hold that will be over is to end by itself; that of one whom somebody has expired may be left."""
        due = self.run(self.at_work.due())
        moments = {
            state: {
                f"hold:{self.words.transfer_id(number)}": self.words.moment(each.expires_at)
                for number, each in self.model.transfers.items()
                if each.state == state and each.expires_at is not None
            }
            for state in ("held", "expired")
        }
        assert moments["held"].items() <= due.items() <= {**moments["held"], **moments["expired"]}.items(), (
            due,
            moments,
        )


def assert_details(step: Step, expected: Outcome, details: Any, words: Words) -> None:
    """What the documentation promises of a refusal is there; of several fields that differ it names one."""
    for name, value in expected.about.items():
        if name == "field":
            assert words.field(step, str(details[name])) in value, (step, details, value)
        else:
            assert details[name] == value, (step, details, expected)
