"""What is done with accounts that exist: events, refusals, and what it means for money."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from cqrskit import Command, RecordedEvent
from cqrskit.testing import Scenario
from example_ledger.account_commands import (
    CloseAccount,
    FreezeAccount,
    SetAccountMetadata,
    SetOverdraftLimit,
    UnfreezeAccount,
)
from example_ledger.accounts import Account, OpenAccount, Opening
from example_ledger.application import ledger
from example_ledger.checking import LogChecker
from example_ledger.holds import CaptureHold, PlaceHold, VoidHold
from example_ledger.money import Currency
from example_ledger.transfers import PostTransfer

BANK, ANN, SHOP, NOBODY = (UUID(int=number) for number in range(1, 5))
ID = UUID(int=100)


def opened(*, funds: int = 0) -> Scenario:
    """A bank that can give any amount, Ann with some funds, and a shop."""
    story = Scenario(ledger, now=datetime(2026, 1, 1, tzinfo=UTC))
    for account_id, kind, limit in ((BANK, "asset", None), (ANN, "liability", 0), (SHOP, "liability", 0)):
        story.when(OpenAccount(account_id=account_id, name="a", type=kind, currency="EUR", overdraft_limit=limit))  # type: ignore[arg-type]
    return story.when(transfer(BANK, ANN, funds, UUID(int=99))) if funds else story


def transfer(debit: UUID, credit: UUID, amount: int, transfer_id: UUID = ID) -> PostTransfer:
    content = {"transfer_id": transfer_id, "debit_account_id": debit, "credit_account_id": credit, "currency": "EUR"}
    return PostTransfer(amount=amount, **content)  # type: ignore[arg-type]


def hold(amount: int) -> PlaceHold:
    return PlaceHold(hold_id=ID, debit_account_id=ANN, credit_account_id=SHOP, amount=amount, currency="EUR")


def violations(story: Scenario) -> list[int]:
    checker = LogChecker()
    for recorded in story.log:
        checker.take(recorded, ledger.registry.decode(recorded))
    checker.finish()
    return [each.invariant for each in checker.violations]


def test_a_frozen_account_takes_no_movement_until_it_is_unfrozen() -> None:
    story = opened(funds=100).when(FreezeAccount(account_id=ANN))
    assert [type(each) for _, each in story.events] == [Account.Frozen]
    story.when(transfer(BANK, ANN, 1)).then_refused("account_frozen")
    story.when(transfer(ANN, SHOP, 1)).then_refused("account_frozen")
    story.when(hold(1)).then_refused("account_frozen")
    story.when(UnfreezeAccount(account_id=ANN)).when(transfer(ANN, SHOP, 1))
    assert story.refusal is None
    assert violations(story) == []


def test_a_hold_on_a_frozen_account_can_be_voided_and_not_captured() -> None:
    story = opened(funds=100).when(hold(60)).when(FreezeAccount(account_id=ANN))
    story.when(CaptureHold(hold_id=ID)).then_refused("account_frozen")
    story.when(VoidHold(hold_id=ID))
    assert story.refusal is None
    assert violations(story) == []


@pytest.mark.parametrize("command", [FreezeAccount, UnfreezeAccount, CloseAccount])
def test_what_is_so_already_is_no_error_and_no_event(command: type[Command]) -> None:
    story = opened()
    for _ in range(2):
        story.when(command(account_id=ANN))
    assert story.refusal is None
    assert story.events == []


def test_only_an_empty_account_is_closed_and_then_for_good() -> None:
    story = opened(funds=100)
    story.when(CloseAccount(account_id=ANN)).then_refused("account_not_empty")
    story.when(hold(60)).when(CloseAccount(account_id=SHOP)).then_refused("account_not_empty")
    story.when(VoidHold(hold_id=ID)).when(transfer(ANN, BANK, 100, UUID(int=101))).when(CloseAccount(account_id=ANN))
    assert [type(each) for _, each in story.events] == [Account.Closed]
    for command in (FreezeAccount, UnfreezeAccount):
        story.when(command(account_id=ANN)).then_refused("account_closed")
    story.when(SetOverdraftLimit(account_id=ANN, overdraft_limit=5)).then_refused("account_closed")
    story.when(transfer(BANK, ANN, 1, UUID(int=102))).then_refused("account_closed")
    assert violations(story) == []


def test_of_two_accounts_a_closed_one_is_named_before_a_frozen_one() -> None:
    story = opened().when(FreezeAccount(account_id=BANK)).when(CloseAccount(account_id=ANN))
    story.when(transfer(BANK, ANN, 1)).then_refused("account_closed")


def test_a_limit_counts_from_then_on_and_is_not_set_below_what_is_used() -> None:
    story = opened(funds=10)
    story.when(transfer(ANN, SHOP, 30)).then_refused("insufficient_funds")
    story.when(SetOverdraftLimit(account_id=ANN, overdraft_limit=20)).when(transfer(ANN, SHOP, 30, UUID(int=101)))
    assert story.refusal is None
    story.when(SetOverdraftLimit(account_id=ANN, overdraft_limit=19)).then_refused("limit_below_use")
    story.when(SetOverdraftLimit(account_id=ANN, overdraft_limit=None)).when(transfer(ANN, SHOP, 10**6, UUID(int=102)))
    assert story.refusal is None
    assert violations(story) == []


def test_metadata_are_replaced_as_a_whole() -> None:
    story = opened().when(SetAccountMetadata(account_id=ANN, metadata={"team": "red"}))
    story.when(SetAccountMetadata(account_id=ANN, metadata={"floor": "2"}))
    ((_, event),) = story.events
    assert isinstance(event, Account.MetadataSet)
    assert event.metadata == {"floor": "2"}
    story.when(SetAccountMetadata(account_id=ANN, metadata={"floor": "2"}))
    assert story.events == []


@pytest.mark.parametrize(
    "command",
    [
        FreezeAccount(account_id=NOBODY),
        UnfreezeAccount(account_id=NOBODY),
        CloseAccount(account_id=NOBODY),
        SetOverdraftLimit(account_id=NOBODY, overdraft_limit=0),
        SetAccountMetadata(account_id=NOBODY, metadata={}),
    ],
)
def test_an_account_that_is_not_there_is_refused(command: Command) -> None:
    opened().when(command).then_refused("account_not_found")


def test_an_opening_that_is_sent_again_is_recognised_whatever_was_set_since_then() -> None:
    """Without a receipt it is known by what the account was opened with, not by what it has become."""
    opening = OpenAccount(account_id=NOBODY, name="a", type="liability", currency="EUR", metadata={"team": "red"})
    story = opened().when(opening)
    story.when(SetOverdraftLimit(account_id=NOBODY, overdraft_limit=5))
    story.when(SetAccountMetadata(account_id=NOBODY, metadata={"team": "blue"}))
    story.when(opening).then_nothing().then_reply(Opening(NOBODY))
    as_it_is_now = OpenAccount(
        account_id=NOBODY, name="a", type="liability", currency="EUR", overdraft_limit=5, metadata={"team": "blue"}
    )
    story.when(as_it_is_now).then_refused("already_exists")


def tampered(story: Scenario, place: int, command: Command) -> list[int]:
    """What is wrong once the last decision of a story is put at another place of its log."""
    events = len(story.log)
    story.when(command)
    assert story.refusal is None, story.refusal
    log = [*story.log[:place], *story.log[events:], *story.log[place:events]]
    versions: dict[UUID, int] = {}
    checker = LogChecker()
    for position, recorded in enumerate(log, start=1):
        version = versions[recorded.stream_id] = versions.get(recorded.stream_id, 0) + 1
        names = ("stream_id", "type", "data", "metadata", "recorded_at")
        values = {name: getattr(recorded, name) for name in names}
        moved = RecordedEvent(position=position, stream_version=version, **values)
        checker.take(moved, ledger.registry.decode(moved))
    checker.finish()
    return [each.invariant for each in checker.violations]


OPENED = 3


def test_the_checker_finds_money_on_a_closed_account() -> None:
    story = opened(funds=10).when(transfer(ANN, BANK, 10))
    assert tampered(story, OPENED, CloseAccount(account_id=ANN)) == [8, 8]


def test_the_checker_finds_an_account_that_is_closed_with_money() -> None:
    story = opened(funds=10).when(transfer(ANN, BANK, 10))
    assert tampered(story, len(story.log) - 3, CloseAccount(account_id=ANN)) == [8, 8]


def test_the_checker_finds_a_hold_on_a_closed_account() -> None:
    story = opened(funds=10).when(hold(5)).when(VoidHold(hold_id=ID))
    assert set(tampered(story, OPENED + 3, CloseAccount(account_id=SHOP))) == {8}


def test_the_checker_finds_a_closed_account_that_is_frozen() -> None:
    story = opened().when(FreezeAccount(account_id=ANN)).when(UnfreezeAccount(account_id=ANN))
    assert tampered(story, OPENED, CloseAccount(account_id=ANN)) == [8, 8]


def test_the_checker_holds_an_account_to_the_limit_of_that_time() -> None:
    """A limit that is taken back too early is below what is used; one that is lowered after repayment is in order."""
    story = opened().when(SetOverdraftLimit(account_id=ANN, overdraft_limit=20)).when(transfer(ANN, SHOP, 20))
    story.when(transfer(BANK, ANN, 20, UUID(int=101)))
    lower = SetOverdraftLimit(account_id=ANN, overdraft_limit=0)
    assert violations(story) == []
    assert tampered(story, len(story.log) - 3, lower) == [4]
    assert violations(story) == []
    story = opened().when(SetOverdraftLimit(account_id=ANN, overdraft_limit=20)).when(transfer(ANN, SHOP, 20))
    story.when(transfer(BANK, ANN, 20, UUID(int=101)))
    assert tampered(story, OPENED + 1, lower) == [4]


def test_a_currency_ends_where_its_letters_end() -> None:
    for accepted in ("EUR", "GOLD9", "ABCDEFGHIJKL"):
        assert msgspec.convert(accepted, Currency) == accepted
    for refused in ("EUR\n", "eur", "EU", "ABCDEFGHIJKLM", "1EU", ""):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(refused, Currency)
