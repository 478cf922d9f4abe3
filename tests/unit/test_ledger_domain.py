"""The ledger's decisions against a plain model of them, and its invariants over whatever was decided."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqrskit import RecordedEvent
from cqrskit.testing import Scenario
from example_ledger.accounts import OpenAccount, Opening
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from example_ledger.money import AMOUNT_MAX, AccountType
from example_ledger.transfers import PostBatch, Posting, PostTransfer

ACCOUNTS: list[tuple[AccountType, str, int | None]] = [
    ("asset", "EUR", 0),
    ("liability", "EUR", 0),
    ("expense", "EUR", 50),
    ("income", "EUR", None),
    ("equity", "USD", None),
]
NOBODY = 9


def account_id(number: int) -> UUID:
    return UUID(int=1_000 + number)


def opened() -> Scenario:
    story = Scenario(ledger)
    for number, (kind, currency, limit) in enumerate(ACCOUNTS):
        story.when(
            OpenAccount(
                account_id=account_id(number), name=f"a{number}", type=kind, currency=currency, overdraft_limit=limit
            )
        ).then_reply(Opening(account_id(number)))
    return story


posts = st.builds(
    lambda number, debit, credit, amount, currency, description: PostTransfer(
        transfer_id=UUID(int=number),
        debit_account_id=account_id(debit),
        credit_account_id=account_id(credit),
        amount=amount,
        currency=currency,
        description=description,
    ),
    st.integers(1, 12),
    st.sampled_from([0, 1, 2, 3, 4, NOBODY]),
    st.sampled_from([0, 1, 2, 3, 4, NOBODY]),
    st.sampled_from([-1, 0, 1, 20, 50, 100, AMOUNT_MAX, AMOUNT_MAX + 1]),
    st.sampled_from(["EUR", "EUR", "EUR", "USD"]),
    st.sampled_from([None, None, "x"]),
)


class Model:
    """The rules in few words: counters per account, posted transfers, and the first reason to refuse."""

    def __init__(self) -> None:
        self.debits = [0] * len(ACCOUNTS)
        self.credits = [0] * len(ACCOUNTS)
        self.posted: dict[UUID, PostTransfer] = {}

    def available(self, number: int) -> int:
        net = self.debits[number] - self.credits[number]
        return net if ACCOUNTS[number][0] in ("asset", "expense") else -net

    def decide(self, post: PostTransfer) -> str:
        if self.posted.get(post.transfer_id) == post:
            return "replayed"
        debit, credit = (each.int - 1_000 for each in (post.debit_account_id, post.credit_account_id))
        if not 1 <= post.amount <= AMOUNT_MAX:
            return "invalid_amount"
        if debit == credit:
            return "same_account"
        if NOBODY in (debit, credit):
            return "account_not_found"
        if {ACCOUNTS[debit][1], ACCOUNTS[credit][1]} != {post.currency}:
            return "currency_mismatch"
        if post.transfer_id in self.posted:
            return "transfer_conflict"
        for number, reduces in ((debit, ("liability", "equity", "income")), (credit, ("asset", "expense"))):
            kind, _, limit = ACCOUNTS[number]
            if kind in reduces and limit is not None and self.available(number) - post.amount < -limit:
                return "insufficient_funds"
        if self.debits[debit] + post.amount > AMOUNT_MAX or self.credits[credit] + post.amount > AMOUNT_MAX:
            return "amount_overflow"
        self.debits[debit] += post.amount
        self.credits[credit] += post.amount
        self.posted[post.transfer_id] = post
        return "posted"


@settings(max_examples=150, deadline=None)
@given(st.lists(posts, max_size=25))
def test_every_decision_is_the_models_and_the_books_stay_in_order(commands: list[PostTransfer]) -> None:
    story, model = opened(), Model()
    for command in commands:
        expected = model.decide(command)
        story.when(command)
        if expected in ("posted", "replayed"):
            story.then_reply(Posting(command.transfer_id))
            assert len(story.events) == (3 if expected == "posted" else 0)
        else:
            story.then_refused(expected)
            assert story.events == []
    checker = check(story)
    assert checker.violations == []
    for number in range(len(ACCOUNTS)):
        counters = checker.accounts[account_id(number)].counters
        assert (counters["debits_posted"], counters["credits_posted"]) == (model.debits[number], model.credits[number])


def check(story: Scenario) -> LogChecker:
    checker = LogChecker()
    for recorded in story.log:
        checker.take(recorded, ledger.registry.decode(recorded))
    checker.finish()
    return checker


@settings(max_examples=50, deadline=None)
@given(st.lists(posts, min_size=1, max_size=8))
def test_an_atomic_batch_is_all_or_nothing(commands: list[PostTransfer]) -> None:
    story, model = opened(), Model()
    expected = [model.decide(command) for command in commands]
    story.when(PostBatch(transfers=tuple(commands)))
    first_refusal = next((code for code in expected if code not in ("posted", "replayed")), None)
    if first_refusal is None:
        assert len(story.events) == 3 * expected.count("posted")
    else:
        story.then_refused("batch_aborted")
        assert story.events == []
        assert story.refusal is not None
        assert story.refusal.details["code"] == first_refusal
    assert check(story).violations == []


def test_the_checker_finds_what_is_tampered_with() -> None:
    story = opened()
    post = PostTransfer(
        transfer_id=UUID(int=1),
        debit_account_id=account_id(0),
        credit_account_id=account_id(1),
        amount=5,
        currency="EUR",
    )
    story.when(post)
    good = list(story.log)
    debited, credited, posted = good[-3:]

    def changed(recorded: RecordedEvent, old: bytes, new: bytes) -> RecordedEvent:
        assert old in recorded.data
        names = ("position", "stream_id", "stream_version", "type", "data", "metadata", "recorded_at")
        values = {name: getattr(recorded, name) for name in names} | {"data": recorded.data.replace(old, new)}
        return RecordedEvent(**values)

    for tampered, invariant in (
        ([*good[:-3], changed(debited, b'"amount":5', b'"amount":6'), credited, posted], 1),
        ([*good[:-3], credited, posted], 9),
        ([*good[:-3], debited, changed(credited, b'"credits_posted":5', b'"credits_posted":7'), posted], 3),
        ([*good[:-1], changed(posted, b'"amount":5', b'"amount":6')], 1),
        ([*good, posted], 6),
        (good[:-1], 2),
    ):
        checker = LogChecker()
        for recorded in tampered:
            checker.take(recorded, ledger.registry.decode(recorded))
        checker.finish()
        assert invariant in {violation.invariant for violation in checker.violations}, invariant


@pytest.mark.parametrize("effective_at", [datetime(1969, 12, 31, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)])
def test_moments_that_cannot_be_searched_are_refused(effective_at: datetime) -> None:
    with pytest.raises(ValueError, match="1970"):
        PostTransfer(
            debit_account_id=account_id(0),
            credit_account_id=account_id(1),
            amount=1,
            currency="EUR",
            effective_at=effective_at,
        )


def test_a_retry_without_a_moment_is_one_though_time_has_passed() -> None:
    story = opened()
    post = PostTransfer(
        transfer_id=UUID(int=1),
        debit_account_id=account_id(0),
        credit_account_id=account_id(1),
        amount=5,
        currency="EUR",
    )
    story.when(post).then_reply(Posting(UUID(int=1)))
    story.now += timedelta(days=1)
    story.when(post).then_reply(Posting(UUID(int=1))).then_nothing()
