"""Entries, holds and reversals: the events that they are, and what they are refused for."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from cqrskit import RecordedEvent
from cqrskit.testing import Scenario
from example_ledger.accounts import Account, OpenAccount
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from example_ledger.entries import LEGS_MAX, EntryLeg, EntryPosting, PostEntry
from example_ledger.holds import EXPIRES_IN_SECONDS_MAX, CaptureHold, ExpireHold, HoldState, PlaceHold, VoidHold
from example_ledger.money import AMOUNT_MAX, AccountType, Direction, Leg
from example_ledger.reversals import Reversal, ReverseTransfer
from example_ledger.transfers import PostTransfer, Transfer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BANK, ANN, SHOP, TAX, DOLLARS = (UUID(int=number) for number in range(1, 6))
ID, OTHER_ID = UUID(int=100), UUID(int=101)


def opened(*, limit: int | None = 0) -> Scenario:
    """A bank that can give any amount, Ann with 100 and an overdraft `limit`, a shop, and a tax office."""
    story = Scenario(ledger, now=NOW)
    accounts: list[tuple[UUID, AccountType, str, int | None]] = [
        (BANK, "asset", "EUR", None),
        (ANN, "liability", "EUR", limit),
        (SHOP, "liability", "EUR", 0),
        (TAX, "liability", "EUR", 0),
        (DOLLARS, "liability", "USD", 0),
    ]
    for account_id, kind, currency, its_limit in accounts:
        command = OpenAccount(account_id=account_id, name="a", type=kind, currency=currency, overdraft_limit=its_limit)
        story.when(command)
    return story.when(
        PostTransfer(transfer_id=UUID(int=99), debit_account_id=BANK, credit_account_id=ANN, amount=100, currency="EUR")
    )


def hold(amount: int = 60, **fields: Any) -> PlaceHold:
    """Ann's money for the shop."""
    content = {"hold_id": ID, "debit_account_id": ANN, "credit_account_id": SHOP, "currency": "EUR", **fields}
    return PlaceHold(amount=amount, **content)


def transfer(amount: int, **fields: Any) -> PostTransfer:
    """Ann pays the shop."""
    content = {"transfer_id": ID, "debit_account_id": ANN, "credit_account_id": SHOP, "currency": "EUR", **fields}
    return PostTransfer(amount=amount, **content)


def entry(*legs: tuple[UUID, Direction, int], **fields: Any) -> PostEntry:
    """An entry in EUR."""
    content = {"entry_id": ID, "currency": "EUR", **fields}
    return PostEntry(legs=tuple(EntryLeg(*leg) for leg in legs), **content)


def counters(debits: int, credits_: int, debits_pending: int, credits_pending: int) -> dict[str, int]:
    """An account's counters in an event."""
    return {
        "debits_posted": debits,
        "credits_posted": credits_,
        "debits_pending": debits_pending,
        "credits_pending": credits_pending,
    }


def checked(log: list[RecordedEvent]) -> LogChecker:
    """The checker after a whole log."""
    checker = LogChecker()
    for recorded in log:
        checker.take(recorded, ledger.registry.decode(recorded))
    checker.finish()
    return checker


def test_a_hold_sets_money_aside_on_one_side_and_expects_it_on_the_other() -> None:
    story = opened().when(hold(60, expires_in_seconds=3_600, description="table for two"))
    story.then_reply(HoldState(ID, "held", 60, NOW + timedelta(hours=1)))
    assert story.events == [
        (ANN, Account.DebitHeld(transfer_id=ID, amount=60, **counters(0, 100, 60, 0))),
        (SHOP, Account.CreditHeld(transfer_id=ID, amount=60, **counters(0, 0, 0, 60))),
        (
            ID,
            Transfer.Held(
                debit_account_id=ANN,
                credit_account_id=SHOP,
                amount=60,
                currency="EUR",
                effective_at=NOW,
                description="table for two",
                reference=None,
                metadata={},
                expires_at=NOW + timedelta(hours=1),
            ),
        ),
    ]


def test_what_is_held_cannot_be_spent_and_what_is_expected_cannot_either() -> None:
    story = opened().when(hold(60))
    story.when(transfer(41, transfer_id=OTHER_ID)).then_refused("insufficient_funds")
    story.when(hold(41, hold_id=OTHER_ID)).then_refused("insufficient_funds")
    from_shop = {"debit_account_id": SHOP, "credit_account_id": TAX}
    story.when(transfer(1, transfer_id=OTHER_ID, **from_shop)).then_refused("insufficient_funds")
    story.when(hold(1, hold_id=OTHER_ID, **from_shop)).then_refused("insufficient_funds")
    story.when(transfer(40, transfer_id=OTHER_ID))
    assert story.refusal is None


def test_a_capture_of_a_part_moves_it_and_frees_the_rest() -> None:
    story = opened().when(hold(60))
    story.now += timedelta(days=1)
    story.when(CaptureHold(hold_id=ID, amount=45)).then_reply(HoldState(ID, "captured", 45, None))
    kinds = [(stream_id, type(event)) for stream_id, event in story.events]
    assert kinds == [
        (ANN, Account.HoldReleased),
        (SHOP, Account.HoldReleased),
        (ANN, Account.Debited),
        (SHOP, Account.Credited),
        (ID, Transfer.Captured),
    ]
    story.then(ID, Transfer.Captured(amount=45, effective_at=story.now))
    released = Account.HoldReleased(transfer_id=ID, amount=60, direction="debit", **counters(0, 100, 0, 0))
    assert story.events[0] == (ANN, released)
    debited: Any = story.events[2][1]
    assert (debited.amount, debited.debits_posted, debited.debits_pending) == (45, 45, 0)
    assert (debited.counterparty_account_id, debited.effective_at) == (SHOP, story.now)
    story.when(transfer(55, transfer_id=OTHER_ID))
    assert story.refusal is None


def test_a_hold_is_resolved_once() -> None:
    for first, state in (
        (CaptureHold(hold_id=ID, amount=1), "hold_already_captured"),
        (VoidHold(hold_id=ID), "hold_already_voided"),
    ):
        story = opened().when(hold(60, expires_in_seconds=10)).when(first)
        assert story.refusal is None
        story.now += timedelta(days=1)
        story.when(CaptureHold(hold_id=ID)).then_refused(state)
        story.when(VoidHold(hold_id=ID)).then_refused(state)
        story.when(ExpireHold(hold_id=ID)).then_nothing()


def test_a_hold_ends_at_its_moment_whether_or_not_anybody_has_expired_it() -> None:
    story = opened().when(hold(60, expires_in_seconds=10))
    story.now += timedelta(seconds=10) - timedelta(microseconds=1)
    story.when(ExpireHold(hold_id=ID)).then_nothing().then_reply(HoldState(ID, "held", 60, NOW + timedelta(seconds=10)))
    story.now += timedelta(microseconds=1)
    for _ in range(2):
        story.when(CaptureHold(hold_id=ID)).then_refused("hold_expired")
        story.when(VoidHold(hold_id=ID)).then_refused("hold_expired")
        story.when(ExpireHold(hold_id=ID))
        assert isinstance(story.reply, HoldState)
        assert (story.reply.status, story.reply.amount) == ("expired", 0)
    assert story.events == []
    story.when(transfer(100, transfer_id=OTHER_ID))
    assert story.refusal is None


def test_a_capture_is_refused_for_the_first_reason_in_the_order() -> None:
    story = opened().when(hold(60, expires_in_seconds=10)).when(transfer(1, transfer_id=OTHER_ID))
    for amount in (0, -1, AMOUNT_MAX + 1):
        story.when(CaptureHold(hold_id=UUID(int=7), amount=amount)).then_refused("invalid_amount")
    for stranger in (UUID(int=7), OTHER_ID, ANN):
        story.when(CaptureHold(hold_id=stranger, amount=5)).then_refused("hold_not_found")
        story.when(VoidHold(hold_id=stranger)).then_refused("hold_not_found")
        story.when(ExpireHold(hold_id=stranger)).then_refused("hold_not_found")
    story.when(CaptureHold(hold_id=ID, amount=61)).then_refused("exceeds_held_amount")
    story.now += timedelta(seconds=10)
    story.when(CaptureHold(hold_id=ID, amount=61)).then_refused("hold_expired")


def test_one_id_has_one_content_for_ever_whatever_it_was_made_by() -> None:
    begun = {
        "hold": hold(10, expires_in_seconds=10),
        "transfer": transfer(10),
        "entry": entry((ANN, "debit", 10), (SHOP, "credit", 10)),
        "reversal": ReverseTransfer(transfer_id=UUID(int=99), reversal_id=ID, amount=10),
    }
    for first, command in begun.items():
        story = opened().when(command)
        reply = story.reply
        story.now += timedelta(seconds=5)
        story.when(command).then_nothing().then_reply(reply)
        for second, other in begun.items():
            if second != first:
                story.when(other).then_refused("transfer_conflict")
                assert story.refusal is not None
                assert story.refusal.details["field"] == "command"


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (hold(10), hold(11), "amount"),
        (hold(10), hold(10, expires_in_seconds=5), "expires_in_seconds"),
        (hold(10), hold(10, debit_account_id=BANK), "debit_account_id"),
        (entry((ANN, "debit", 10), (SHOP, "credit", 10)), entry((ANN, "debit", 9), (SHOP, "credit", 9)), "legs"),
        (
            ReverseTransfer(transfer_id=UUID(int=99), reversal_id=ID, amount=10),
            ReverseTransfer(transfer_id=UUID(int=99), reversal_id=ID, amount=11),
            "amount",
        ),
    ],
)
def test_a_conflict_names_the_field(first: Any, second: Any, field: str) -> None:
    story = opened().when(first).when(second).then_refused("transfer_conflict")
    assert story.refusal is not None
    assert story.refusal.details["field"] == field


def test_a_hold_needs_room_for_its_capture() -> None:
    story = opened(limit=None)
    story.when(hold(AMOUNT_MAX))
    assert story.refusal is None
    for sides in ({"credit_account_id": TAX}, {"debit_account_id": BANK}):
        story.when(transfer(1, transfer_id=OTHER_ID, **sides)).then_refused("amount_overflow")
    story.when(CaptureHold(hold_id=ID)).then_reply(HoldState(ID, "captured", AMOUNT_MAX, None))
    assert checked(story.log).violations == []


def test_a_sale_with_its_tax_is_one_entry() -> None:
    story = opened().when(entry((ANN, "debit", 60), (SHOP, "credit", 50), (TAX, "credit", 10), description="sale"))
    story.then_reply(EntryPosting(ID))
    story.then(
        ID,
        Transfer.Posted(
            legs=(Leg(ANN, "debit", 60), Leg(SHOP, "credit", 50), Leg(TAX, "credit", 10)),
            amount=60,
            currency="EUR",
            effective_at=NOW,
            description="sale",
            reference=None,
            metadata={},
        ),
    )
    moved: list[Any] = [event for _, event in story.events[:-1]]
    assert [each.counterparty_account_id for each in moved] == [None, ANN, ANN]
    assert [each.amount for each in moved] == [60, 50, 10]


def test_the_event_of_a_simple_transfer_says_nothing_of_legs_and_reversals() -> None:
    story = opened().when(transfer(5))
    assert set(msgspec.json.decode(story.log[-1].data)) == {
        "debit_account_id",
        "credit_account_id",
        "amount",
        "currency",
        "effective_at",
        "description",
        "reference",
        "metadata",
    }


def test_an_account_may_have_several_legs_of_an_entry_and_is_asked_for_their_sum() -> None:
    story = opened().when(entry((SHOP, "credit", 100), (ANN, "debit", 60), (ANN, "debit", 40)))
    story.then_reply(EntryPosting(ID))
    assert [getattr(event, "debits_posted", None) for _, event in story.events] == [0, 60, 100, None]
    too_much = entry((SHOP, "credit", 101), (ANN, "debit", 60), (ANN, "debit", 41))
    opened().when(too_much).then_refused("insufficient_funds")


def test_an_entry_is_refused_for_the_first_reason_in_the_order() -> None:
    nobody = UUID(int=8)
    story = opened().when(transfer(1, transfer_id=OTHER_ID))
    refused: list[tuple[PostEntry, str]] = [
        (entry((ANN, "debit", 0), (ANN, "credit", 5)), "invalid_amount"),
        (entry((BANK, "debit", AMOUNT_MAX), (BANK, "debit", 1), (ANN, "credit", 5)), "unbalanced_entry"),
        (
            entry(*[(BANK, side, AMOUNT_MAX) for side in ("debit", "debit", "credit", "credit")]),
            "invalid_amount",
        ),
        (entry((nobody, "debit", 5), (nobody, "credit", 6)), "unbalanced_entry"),
        (entry((nobody, "debit", 5), (nobody, "credit", 5)), "same_account"),
        (entry((DOLLARS, "debit", 5), (nobody, "credit", 5)), "account_not_found"),
        (entry((DOLLARS, "debit", 500), (ANN, "credit", 500), entry_id=OTHER_ID), "currency_mismatch"),
        (entry((ANN, "debit", 500), (SHOP, "credit", 500), entry_id=OTHER_ID), "transfer_conflict"),
        (entry((ANN, "debit", 500), (SHOP, "credit", 500)), "insufficient_funds"),
        (entry((BANK, "debit", AMOUNT_MAX), (SHOP, "credit", AMOUNT_MAX)), "amount_overflow"),
    ]
    for command, code in refused:
        story.when(command).then_refused(code)


@pytest.mark.parametrize("count", [1, LEGS_MAX + 1])
def test_an_entry_has_2_to_100_legs(count: int) -> None:
    legs = [{"account_id": str(ANN), "direction": "debit", "amount": 1}] * count
    with pytest.raises(msgspec.ValidationError, match="legs"):
        msgspec.convert({"legs": legs, "currency": "EUR"}, PostEntry)


def test_a_hold_lasts_one_second_to_ten_years() -> None:
    body = {"debit_account_id": str(ANN), "credit_account_id": str(SHOP), "amount": 1, "currency": "EUR"}
    for seconds in (0, -1, EXPIRES_IN_SECONDS_MAX + 1):
        with pytest.raises(msgspec.ValidationError, match="expires_in_seconds"):
            msgspec.convert({**body, "expires_in_seconds": seconds}, PlaceHold)
    command = msgspec.convert({**body, "expires_in_seconds": EXPIRES_IN_SECONDS_MAX}, PlaceHold)
    assert opened().when(command).refusal is None


def test_a_reversal_is_a_transfer_back_with_its_own_moment() -> None:
    moment = datetime(2025, 12, 24, tzinfo=UTC)
    story = opened().when(transfer(60))
    story.when(
        ReverseTransfer(
            transfer_id=ID, reversal_id=OTHER_ID, amount=25, effective_at=moment, description="returned goods"
        )
    ).then_reply(Reversal(OTHER_ID, 25))
    assert [(stream_id, type(event)) for stream_id, event in story.events] == [
        (SHOP, Account.Debited),
        (ANN, Account.Credited),
        (ID, Transfer.Reversed),
        (OTHER_ID, Transfer.Posted),
    ]
    story.then(ID, Transfer.Reversed(reversal_id=OTHER_ID, amount=25))
    story.then(
        OTHER_ID,
        Transfer.Posted(
            debit_account_id=SHOP,
            credit_account_id=ANN,
            amount=25,
            currency="EUR",
            effective_at=moment,
            description="returned goods",
            reference=None,
            metadata={},
            reverses=ID,
        ),
    )


def test_reversals_never_exceed_what_has_moved() -> None:
    story = opened().when(transfer(60))
    story.when(ReverseTransfer(transfer_id=ID, amount=61)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=ID, amount=25))
    story.when(ReverseTransfer(transfer_id=ID, amount=36)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID)).then_reply(Reversal(OTHER_ID, 35))
    story.when(ReverseTransfer(transfer_id=ID)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=OTHER_ID, amount=35))
    assert story.refusal is None


def test_of_a_hold_only_what_was_captured_can_be_reversed() -> None:
    story = opened().when(hold(60))
    story.when(ReverseTransfer(transfer_id=ID)).then_refused("exceeds_original")
    story.when(CaptureHold(hold_id=ID, amount=45))
    story.when(ReverseTransfer(transfer_id=ID, amount=46)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID)).then_reply(Reversal(OTHER_ID, 45))


def test_an_entry_of_many_legs_is_reversed_as_a_whole() -> None:
    story = opened().when(entry((ANN, "debit", 60), (SHOP, "credit", 50), (TAX, "credit", 10)))
    story.when(ReverseTransfer(transfer_id=ID, amount=59)).then_refused("indivisible_entry")
    story.when(ReverseTransfer(transfer_id=ID, amount=61)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID, amount=60)).then_reply(Reversal(OTHER_ID, 60))
    posted: Any = story.events[-1][1]
    assert posted.legs == (Leg(TAX, "debit", 10), Leg(SHOP, "debit", 50), Leg(ANN, "credit", 60))


def test_a_reversal_is_refused_for_the_first_reason_in_the_order() -> None:
    story = (
        opened()
        .when(transfer(60))
        .when(transfer(50, transfer_id=OTHER_ID, debit_account_id=SHOP, credit_account_id=TAX))
    )
    nothing = UUID(int=7)
    story.when(ReverseTransfer(transfer_id=nothing, reversal_id=ID, amount=0)).then_refused("invalid_amount")
    story.when(ReverseTransfer(transfer_id=nothing, reversal_id=ID)).then_refused("transfer_conflict")
    story.when(ReverseTransfer(transfer_id=nothing)).then_refused("transfer_not_found")
    story.when(ReverseTransfer(transfer_id=ID, amount=61)).then_refused("exceeds_original")
    story.when(ReverseTransfer(transfer_id=ID)).then_refused("insufficient_funds")
