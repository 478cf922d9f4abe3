"""The ledger beside a model of it: every reply is the model's, and the books are in order after every step."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cqrskit import Command, Projection
from cqrskit.projection import folds_of
from cqrskit.testing import Scenario
from example_ledger.account_commands import (
    CloseAccount,
    FreezeAccount,
    SetAccountMetadata,
    SetOverdraftLimit,
    UnfreezeAccount,
)
from example_ledger.accounts import OpenAccount
from example_ledger.application import ledger
from example_ledger.checking import COUNTERS, LogChecker
from example_ledger.entries import EntryLeg, PostEntry
from example_ledger.holds import CaptureHold, ExpireHold, PlaceHold, VoidHold
from example_ledger.money import AccountType, Direction
from example_ledger.read_models import Accounts, StatementLines, TrialBalances
from example_ledger.reversals import ReverseTransfer
from example_ledger.transfer_documents import Transfers
from example_ledger.transfers import PostTransfer
from tests.unit.ledger_model import AMOUNT_MAX, LedgerModel, ModelTransfer, Reply

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNTS: list[tuple[AccountType, str, int | None]] = [
    ("asset", "EUR", 0),
    ("liability", "EUR", 0),
    ("expense", "EUR", 50),
    ("income", "EUR", None),
    ("asset", "EUR", None),
    ("equity", "USD", None),
]
NOBODY = 9

account_numbers = st.sampled_from([*[0, 1, 2, 3, 4] * 4, 5, NOBODY])
good_amounts = st.sampled_from([1, 20, 21, 50, 51, 100])
bad_amounts = st.sampled_from([-1, 0, AMOUNT_MAX - 20, AMOUNT_MAX, AMOUNT_MAX + 1])
amounts = st.sampled_from(range(8)).flatmap(lambda each: bad_amounts if each == 7 else good_amounts)
currencies = st.sampled_from([*["EUR"] * 9, "USD"])
texts = st.sampled_from([None, None, None, "x"])
picks = st.integers(0, 99)
sides: st.SearchStrategy[Direction] = st.sampled_from(["debit", "credit"])


def account_id(number: int) -> UUID:
    return UUID(int=1_000 + number)


def transfer_id(number: int) -> UUID:
    return UUID(int=number)


@st.composite
def legs_of_entries(draw: st.DrawFn) -> list[tuple[int, Direction, int]]:
    """Mostly balanced, and mostly with each account on one side: what a side lacks is added to it as a leg more."""
    legs: list[tuple[int, Direction, int]] = []
    own: dict[Direction, list[int]] = {"debit": [0, 2, 4], "credit": [1, 3]}
    for _ in range(draw(st.integers(1, 5))):
        side = draw(sides)
        legs.append((draw(st.sampled_from([*own[side] * 9, 1, 2, 5, NOBODY])), side, draw(amounts)))
    excess = sum(amount if side == "debit" else -amount for _, side, amount in legs)
    if excess or len(legs) < 2:
        side = "credit" if excess > 0 else "debit"
        legs.append((draw(st.sampled_from(own[side])), side, abs(excess) + draw(st.sampled_from([*[0] * 9, 1]))))
    return legs


class LedgerMachine(RuleBasedStateMachine):
    """Gives each command to the ledger and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Scenario(ledger, now=BEGIN)
        self.model = LedgerModel()
        self.decided: list[tuple[Command, Callable[[], Reply]]] = []

    def decide(self, command: Command, model_decides: Callable[[], Reply]) -> None:
        """The ledger answers what the model answers, and a refusal changes nothing."""
        self.decided.append((command, model_decides))
        expected = model_decides()
        self.story.when(command)
        if isinstance(expected, str):
            self.story.then_refused(expected)
            assert self.story.events == []
        else:
            assert self.story.refusal is None, f"refused: {self.story.refusal}, {expected} is due"
            assert self.plain(self.story.reply) == expected

    def plain(self, reply: msgspec.Struct) -> dict[str, Any]:
        """A reply in the model's words."""
        values = msgspec.structs.asdict(reply)
        for name, value in values.items():
            if isinstance(value, UUID):
                values[name] = value.int - (1_000 if name == "account_id" else 0)
            elif isinstance(value, datetime):
                values[name] = int((value - BEGIN).total_seconds())
        return values

    @initialize()
    def open_accounts(self) -> None:
        for number, (kind, currency, limit) in enumerate(ACCOUNTS):
            self.open(number, kind, currency, limit)
        self.post(99, 0, 3, 200, "EUR", None)
        self.post(98, 4, 1, 200, "EUR", None)

    def new_or_known(self, pick: int) -> int:
        """Mostly a number that no transfer has yet, now and then one that does."""
        known = sorted(self.model.transfers)
        return known[pick % len(known)] if pick < 20 else len(known) + 1

    def known(self, pick: int, kind: str) -> int:
        """Mostly a transfer that began in this way, now and then any, or one that is not there."""
        numbers = [number for number, each in self.model.transfers.items() if each.content[0] == kind]
        every = [*self.model.transfers, 77]
        return every[pick % len(every)] if pick < 10 or not numbers else numbers[pick % len(numbers)]

    def some_hold(self, pick: int) -> int:
        """Mostly a hold that is not resolved yet."""
        held = [number for number, each in self.model.transfers.items() if each.state == "held"]
        return held[pick % len(held)] if pick >= 40 and held else self.known(pick, "hold")

    def has_holds(self) -> bool:
        """Whether there is a hold that anything could be done with."""
        return any(each.content[0] == "hold" for each in self.model.transfers.values())

    @rule(number=st.integers(0, 5), kind=st.sampled_from(["asset", "income"]), currency=currencies, limit=st.just(0))
    def open(self, number: int, kind: AccountType, currency: str, limit: int | None) -> None:
        command = OpenAccount(
            account_id=account_id(number), name="a", type=kind, currency=currency, overdraft_limit=limit
        )
        self.decide(command, lambda: self.model.open(number, kind, currency, limit))

    @rule(
        pick=picks,
        debit=account_numbers,
        credit=account_numbers,
        amount=amounts,
        currency=currencies,
        text=texts,
    )
    def post_some(self, pick: int, debit: int, credit: int, amount: int, currency: str, text: str | None) -> None:
        self.post(self.new_or_known(pick), debit, credit, amount, currency, text)

    def post(self, number: int, debit: int, credit: int, amount: int, currency: str, text: str | None) -> None:
        command = PostTransfer(
            transfer_id=transfer_id(number),
            debit_account_id=account_id(debit),
            credit_account_id=account_id(credit),
            amount=amount,
            currency=currency,
            description=text,
        )
        self.decide(command, lambda: self.model.post(number, debit, credit, amount, currency, text))

    @rule(pick=picks, legs=legs_of_entries(), currency=currencies, text=texts)
    def enter(self, pick: int, legs: list[tuple[int, Direction, int]], currency: str, text: str | None) -> None:
        number = self.new_or_known(pick)
        command = PostEntry(
            entry_id=transfer_id(number),
            legs=tuple(EntryLeg(account_id(account), side, amount) for account, side, amount in legs),
            currency=currency,
            description=text,
        )
        self.decide(command, lambda: self.model.enter(number, [*legs], currency, text))

    @rule(
        pick=picks,
        debit=account_numbers,
        credit=account_numbers,
        amount=amounts,
        currency=currencies,
        seconds=st.sampled_from([None, 1, 60]),
    )
    def hold(self, pick: int, debit: int, credit: int, amount: int, currency: str, seconds: int | None) -> None:
        number = self.new_or_known(pick)
        command = PlaceHold(
            hold_id=transfer_id(number),
            debit_account_id=account_id(debit),
            credit_account_id=account_id(credit),
            amount=amount,
            currency=currency,
            expires_in_seconds=seconds,
        )
        self.decide(command, lambda: self.model.hold(number, debit, credit, amount, currency, seconds))

    @precondition(has_holds)
    @rule(pick=picks, amount=st.one_of(st.none(), amounts))
    def capture(self, pick: int, amount: int | None) -> None:
        number = self.some_hold(pick)
        self.decide(CaptureHold(hold_id=transfer_id(number), amount=amount), lambda: self.model.capture(number, amount))

    @precondition(has_holds)
    @rule(pick=picks)
    def void(self, pick: int) -> None:
        number = self.some_hold(pick)
        self.decide(VoidHold(hold_id=transfer_id(number)), lambda: self.model.void(number))

    @precondition(has_holds)
    @rule(pick=picks, seconds=st.sampled_from([0, 1, 60]))
    def expire(self, pick: int, seconds: int) -> None:
        """Some time later."""
        self.wait(seconds)
        number = self.some_hold(pick)
        self.decide(ExpireHold(hold_id=transfer_id(number)), lambda: self.model.expire(number))

    @rule(
        pick=picks,
        original_pick=picks,
        kind=st.sampled_from(["post", "enter", "hold", "reverse"]),
        amount=st.one_of(st.none(), amounts),
        text=texts,
    )
    def reverse(self, pick: int, original_pick: int, kind: str, amount: int | None, text: str | None) -> None:
        number, original = self.new_or_known(pick), self.known(original_pick, kind)
        command = ReverseTransfer(
            transfer_id=transfer_id(original), reversal_id=transfer_id(number), amount=amount, description=text
        )
        self.decide(command, lambda: self.model.reverse(number, original, amount, text))

    @rule(number=account_numbers, how=st.sampled_from(["freeze", "unfreeze", "unfreeze", "close"]))
    def change_status(self, number: int, how: Literal["freeze", "unfreeze", "close"]) -> None:
        commands = {"freeze": FreezeAccount, "unfreeze": UnfreezeAccount, "close": CloseAccount}
        self.decide(commands[how](account_id=account_id(number)), lambda: getattr(self.model, how)(number))

    @rule(number=account_numbers, limit=st.sampled_from([None, 0, 50, 1_000]))
    def set_limit(self, number: int, limit: int | None) -> None:
        command = SetOverdraftLimit(account_id=account_id(number), overdraft_limit=limit)
        self.decide(command, lambda: self.model.set_limit(number, limit))

    @rule(number=account_numbers, words=st.sampled_from(["", "red", "blue"]))
    def describe(self, number: int, words: str) -> None:
        command = SetAccountMetadata(account_id=account_id(number), metadata={"words": words} if words else {})
        self.decide(command, lambda: self.model.describe(number, words))

    @rule(back=st.integers(1, 5))
    def repeat(self, back: int) -> None:
        """A retry, of a command that may have been refused before."""
        if len(self.decided) >= back:
            command, decide = self.decided[-back]
            self.decide(command, decide)

    @rule(seconds=st.sampled_from([1, 30, 60]))
    def wait(self, seconds: int) -> None:
        self.story.now += timedelta(seconds=seconds)
        self.model.now += seconds

    @invariant()
    def the_books_are_in_order(self) -> None:
        """The checker finds nothing, and each account has the model's counters."""
        checker = LogChecker()
        for recorded in self.story.log:
            checker.take(recorded, ledger.registry.decode(recorded))
        checker.finish()
        assert checker.violations == []
        found = {each.int - 1_000: account.counters for each, account in checker.accounts.items()}
        assert found == {number: self.counters_of(number) for number in self.model.accounts}
        assert len(checker.transfers) == len(self.model.transfers)

    def counters_of(self, number: int) -> dict[str, int]:
        """The model's four counters in the ledger's names."""
        account = self.model.accounts[number]
        values = (
            (account.posted, "debit"),
            (account.posted, "credit"),
            (account.pending, "debit"),
            (
                account.pending,
                "credit",
            ),
        )
        return {name: of[side] for name, (of, side) in zip(COUNTERS, values, strict=True)}

    def documents(self, projection: Projection) -> dict[str, Any]:
        """A read model of the whole log."""
        documents: dict[str, Any] = {}
        folds = folds_of(projection)
        for recorded in self.story.log:
            for fold in folds.get(recorded.type, ()):
                key = str(fold.key(ledger.registry.decode(recorded), recorded))
                documents[key] = fold.apply(documents.get(key), ledger.registry.decode(recorded), recorded)
        return documents

    def teardown(self) -> None:
        """The read models show what the model has."""
        for account in self.documents(Accounts()).values():
            number = account.account_id.int - 1_000
            expected = self.model.accounts[number]
            assert {name: getattr(account, name) for name in COUNTERS} == self.counters_of(number)
            assert account.available == expected.available
            assert (account.status, account.overdraft_limit) == (expected.status, expected.limit)
            assert account.metadata == ({"words": expected.words} if expected.words else {})
        shown = {
            each.transfer_id.int: (
                each.status,
                each.amount,
                each.reversed_amount,
                sorted((leg.account_id.int - 1_000, leg.direction, leg.amount) for leg in each.legs),
            )
            for each in self.documents(Transfers()).values()
        }
        assert shown == {
            number: (each.shown_state, each.moved or each.amount, each.reversed, sorted(legs_shown(each)))
            for number, each in self.model.transfers.items()
        }
        for trial in self.documents(TrialBalances()).values():
            assert trial.totals.debits == trial.totals.credits
        lines = self.documents(StatementLines()).values()
        assert len(lines) == sum(len(each.legs) for each in self.model.transfers.values() if each.moved)


def legs_shown(transfer: ModelTransfer) -> list[tuple[int, str, int]]:
    """What has moved, where something has; else what is held."""
    if len(transfer.legs) > 2 or not transfer.moved:
        return transfer.legs
    return [(account, side, transfer.moved) for account, side, _ in transfer.legs]


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerBesideItsModel = LedgerMachine.TestCase
