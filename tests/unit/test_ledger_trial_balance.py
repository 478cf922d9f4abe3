"""The trial balance at every position of a log: balanced, unless the log itself is not."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent
from cqrskit.document_codec import codec_of
from cqrskit.projection import folds_of
from cqrskit.testing import Scenario
from example_ledger.accounts import Account, OpenAccount
from example_ledger.application import ledger
from example_ledger.entries import EntryLeg, PostEntry
from example_ledger.holds import CaptureHold, PlaceHold
from example_ledger.money import AccountType, Direction
from example_ledger.read_models import SideTotals, TrialBalance, TrialBalances
from example_ledger.reversals import ReverseTransfer
from example_ledger.transfers import PostBatch, PostTransfer

BANK, ANN, SHOP, TAX, DOLLARS, OTHER_DOLLARS = (UUID(int=number) for number in range(1, 7))
KINDS: dict[UUID, tuple[AccountType, str]] = {
    BANK: ("asset", "EUR"),
    ANN: ("liability", "EUR"),
    SHOP: ("income", "EUR"),
    TAX: ("liability", "EUR"),
    DOLLARS: ("asset", "USD"),
    OTHER_DOLLARS: ("liability", "USD"),
}


def posting(number: int, debit: UUID, credit: UUID, amount: int, currency: str = "EUR") -> PostTransfer:
    return PostTransfer(
        transfer_id=UUID(int=number),
        debit_account_id=debit,
        credit_account_id=credit,
        amount=amount,
        currency=currency,
    )


def a_busy_day() -> Scenario:
    """Everything that moves money, in two currencies."""
    story = Scenario(ledger)
    for account_id, (kind, currency) in KINDS.items():
        story.when(OpenAccount(account_id=account_id, name="a", type=kind, currency=currency, overdraft_limit=None))
    legs: list[tuple[UUID, Direction, int]] = [
        (ANN, "debit", 100),
        (SHOP, "credit", 60),
        (SHOP, "credit", 25),
        (TAX, "credit", 15),
    ]
    entry = PostEntry(entry_id=UUID(int=101), legs=tuple(EntryLeg(*leg) for leg in legs), currency="EUR")
    hold = PlaceHold(hold_id=UUID(int=103), debit_account_id=ANN, credit_account_id=SHOP, amount=9, currency="EUR")
    batch = (posting(105, BANK, ANN, 1), posting(106, DOLLARS, OTHER_DOLLARS, 2, "USD"), posting(107, TAX, BANK, 3))
    for command in (
        posting(100, BANK, ANN, 1_000),
        entry,
        ReverseTransfer(transfer_id=UUID(int=101), reversal_id=UUID(int=102)),
        hold,
        CaptureHold(hold_id=UUID(int=103), amount=4),
        ReverseTransfer(transfer_id=UUID(int=103), reversal_id=UUID(int=104), amount=1),
        PostBatch(transfers=batch),
    ):
        story.now += timedelta(seconds=1)
        story.when(command)
        assert story.refusal is None
    return story


def trials(log: list[RecordedEvent]) -> list[dict[str, TrialBalance]]:
    """The documents after each event, each taken through the form in which it is stored."""
    codec, folds = codec_of(TrialBalance), folds_of(TrialBalances())
    found: list[dict[str, TrialBalance]] = []
    now: dict[str, TrialBalance] = {}
    for recorded in log:
        for fold in folds.get(recorded.type, ()):
            event = ledger.registry.decode(recorded)
            key = str(fold.key(event, recorded))
            (stored,) = codec.encode_all([fold.apply(now.get(key), event, recorded)])
            assert isinstance(stored, bytes)
            now[key] = codec.decode(stored)
        found.append(dict(now))
    return found


def shown_at_the_end(log: list[RecordedEvent]) -> dict[str, tuple[int, int]]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for recorded in log:
        event: Any = ledger.registry.decode(recorded)
        if isinstance(event, Account.Debited | Account.Credited):
            sums[event.currency][isinstance(event, Account.Credited)] += event.amount
    return {currency: (debits, credits_) for currency, (debits, credits_) in sums.items()}


def test_it_is_balanced_after_each_event_also_between_the_sides_of_a_transfer() -> None:
    log = a_busy_day().log
    found = trials(log)
    seen_moving = 0
    for documents in found:
        for document in documents.values():
            assert document.totals.debits == document.totals.credits
            assert sum(each.debits for each in document.by_type.values()) == document.totals.debits
            assert sum(each.credits for each in document.by_type.values()) == document.totals.credits
            seen_moving += document.moving is not None
    assert seen_moving > 5
    last = found[-1]
    assert {name: (each.totals.debits, each.totals.credits) for name, each in last.items()} == shown_at_the_end(log)
    assert all(each.moving is None for each in last.values())
    assert last["USD"].by_type == {"asset": SideTotals(2, 0), "liability": SideTotals(0, 2)}


def test_a_side_that_never_comes_is_shown_once_the_next_transfer_begins() -> None:
    story = a_busy_day()
    torn = next(each for each in reversed(story.log) if each.type == "Account.Debited")
    without = [each for each in story.log if each is not torn]
    event: Any = ledger.registry.decode(torn)
    last = trials(without)[-1]["EUR"]
    assert last.moving is not None
    assert last.moving.transfer_id == event.transfer_id
    story.now = datetime(2026, 2, 1, tzinfo=UTC)
    story.log = [msgspec.structs.replace(each, position=place) for place, each in enumerate(without, start=1)]
    story.when(posting(200, BANK, ANN, 1))
    shown = trials(story.log)[-1]["EUR"].totals
    assert shown.credits - shown.debits == event.amount
