"""Days and their sums: whatever moves when, a balance as of a date is the plain sum over the events."""

from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from cqrskit.projection import folds_of
from cqrskit.testing import Scenario
from example_ledger.accounts import MoneyMoved, OpenAccount
from example_ledger.application import ledger
from example_ledger.daily_totals import DailyTotal, DailyTotals
from example_ledger.money import AccountType, balance_of
from example_ledger.transfers import PostTransfer

ACCOUNTS: dict[UUID, AccountType] = {UUID(int=1): "asset", UUID(int=2): "liability", UUID(int=3): "income"}
FIRST = date(2026, 2, 27)
DAYS = [FIRST + timedelta(days=number) for number in range(-1, 6)]

moments = st.builds(
    lambda day, microseconds, hours: (
        datetime.combine(day, datetime.min.time(), UTC).astimezone(timezone(timedelta(hours=hours)))
        + timedelta(microseconds=microseconds)
    ),
    st.sampled_from(DAYS[1:-1]),
    st.one_of(st.sampled_from([0, 1, 86_400 * 10**6 - 1]), st.integers(0, 86_400 * 10**6 - 1)),
    st.integers(-12, 14),
)
transfers = st.lists(
    st.tuples(st.permutations(list(ACCOUNTS)), st.integers(1, 2**40), moments), min_size=1, max_size=12
)


def told(moves: list[tuple[list[UUID], int, datetime]]) -> Scenario:
    """Accounts without limit, and these transfers, in the order in which they are recorded."""
    story = Scenario(ledger)
    for account_id, kind in ACCOUNTS.items():
        story.when(OpenAccount(account_id=account_id, name="a", type=kind, currency="EUR", overdraft_limit=None))
    for number, ((debit, credit, _), amount, moment) in enumerate(moves, start=100):
        command = PostTransfer(
            transfer_id=UUID(int=number),
            debit_account_id=debit,
            credit_account_id=credit,
            amount=amount,
            currency="EUR",
            effective_at=moment,
        )
        story.when(command)
        assert story.refusal is None, story.refusal
    return story


def folded(story: Scenario) -> tuple[dict[str, DailyTotal], list[int]]:
    """The documents of a story, and how many of them each movement of money has touched."""
    folds = folds_of(DailyTotals())
    documents: dict[str, DailyTotal] = {}
    touched: list[int] = []
    for at in story.log:
        event = ledger.registry.decode(at)
        before = dict(documents)
        for fold in folds.get(at.type, ()):
            key = fold.key(event, at)
            assert isinstance(key, str)
            documents[key] = fold.apply(documents.get(key), event, at)
        if isinstance(event, MoneyMoved):
            touched.append(sum(documents[key] != before.get(key) for key in documents))
    return documents, touched


@settings(max_examples=100, deadline=None)
@given(transfers)
def test_the_days_up_to_a_date_sum_up_to_the_balance_of_all_that_is_effective_by_its_end(
    moves: list[tuple[list[UUID], int, datetime]],
) -> None:
    documents, touched = folded(told(moves))
    assert touched == [1] * (2 * len(moves))
    for account_id, kind in ACCOUNTS.items():
        for day in DAYS:
            days = [each for each in documents.values() if each.account_id == account_id and each.day <= day]
            found = balance_of(kind, sum(each.debits for each in days), sum(each.credits for each in days))
            end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
            expected = 0
            for (debit, credit, _), amount, moment in moves:
                if moment < end and account_id in (debit, credit):
                    expected += amount if (account_id == debit) == (kind == "asset") else -amount
            assert found == expected
            assert sum(each.count for each in days) == sum(
                moment < end and account_id in sides[:2] for sides, _, moment in moves
            )
