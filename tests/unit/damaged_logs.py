"""Logs of the ledger that were damaged on purpose: for each kind of violation some that the check must find."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from cqrskit import RecordedEvent
from cqrskit.testing import Scenario
from example_ledger.account_commands import CloseAccount, FreezeAccount, SetOverdraftLimit, UnfreezeAccount
from example_ledger.holds import CaptureHold, ExpireHold, VoidHold
from example_ledger.reversals import ReverseTransfer
from tests.unit.test_ledger_holds import ANN, ID, OTHER_ID, SHOP, TAX, entry, hold, opened, transfer

__all__ = ["DAMAGES", "STORIES", "Damage", "Log", "renumbered", "with_values"]

Log = list[RecordedEvent]
NAMES = ("position", "stream_id", "stream_version", "type", "data", "metadata", "recorded_at")


def changed(recorded: RecordedEvent, **fields: Any) -> RecordedEvent:
    """The event with other stored fields."""
    data = msgspec.json.decode(recorded.data)
    assert fields.keys() <= data.keys()
    return with_values(recorded, data=msgspec.json.encode({**data, **fields}))


def moved_by(recorded: RecordedEvent, amount: int) -> RecordedEvent:
    """The account event with another amount, and with counters that follow from it."""
    data = msgspec.json.decode(recorded.data)
    side = "debits_" if "Debit" in recorded.type else "credits_"
    name = side + ("pending" if recorded.type.endswith("Held") else "posted")
    return changed(recorded, amount=amount, **{name: data[name] - data["amount"] + amount})


def with_values(recorded: RecordedEvent, **values: Any) -> RecordedEvent:
    """The recorded event otherwise."""
    return RecordedEvent(**{**{name: getattr(recorded, name) for name in NAMES}, **values})


def renumbered(log: Log) -> Log:
    """The same events at positions, and in versions, without a gap."""
    versions: dict[UUID, int] = {}
    found = []
    for position, recorded in enumerate(log, start=1):
        version = versions[recorded.stream_id] = versions.get(recorded.stream_id, 0) + 1
        found.append(with_values(recorded, position=position, stream_version=version))
    return found


def later(recorded: RecordedEvent) -> RecordedEvent:
    """The same ten seconds later."""
    return with_values(recorded, recorded_at=recorded.recorded_at + timedelta(seconds=10))


# --- stories


def posted() -> Scenario:
    """A transfer."""
    return opened().when(transfer(60))


def held() -> Scenario:
    """A hold, not resolved."""
    return opened().when(hold(60))


def captured() -> Scenario:
    """A hold that was captured in part."""
    return opened().when(hold(60, expires_in_seconds=10)).when(CaptureHold(hold_id=ID, amount=45))


def voided() -> Scenario:
    """A hold that was voided."""
    return held().when(VoidHold(hold_id=ID))


def expired() -> Scenario:
    """A hold that has expired."""
    story = opened().when(hold(60, expires_in_seconds=10))
    story.now += timedelta(seconds=10)
    return story.when(ExpireHold(hold_id=ID))


def entered() -> Scenario:
    """An entry that was reversed."""
    story = opened().when(entry((ANN, "debit", 60), (SHOP, "credit", 50), (TAX, "credit", 10)))
    return story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID))


def reversed_() -> Scenario:
    """A transfer that was reversed in part."""
    return opened().when(transfer(60)).when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID, amount=25))


def reversed_twice() -> Scenario:
    """Two transfers, each reversed."""
    story = opened().when(transfer(30)).when(transfer(20, transfer_id=UUID(int=102)))
    story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID))
    return story.when(ReverseTransfer(transfer_id=UUID(int=102), reversal_id=UUID(int=103)))


def frozen() -> Scenario:
    """An account that was frozen before its hold was voided, and then unfrozen."""
    story = held().when(FreezeAccount(account_id=ANN)).when(VoidHold(hold_id=ID))
    return story.when(UnfreezeAccount(account_id=ANN)).when(transfer(1, transfer_id=OTHER_ID))


def closed() -> Scenario:
    """An account that was emptied and closed."""
    return opened().when(transfer(100)).when(CloseAccount(account_id=ANN))


def limited() -> Scenario:
    """An account that was overdrawn as far as it may."""
    return opened().when(SetOverdraftLimit(account_id=ANN, overdraft_limit=50)).when(transfer(150))


STORIES = [posted, held, captured, voided, expired, entered, reversed_, reversed_twice, frozen, closed, limited]


# --- damages


class Damage(NamedTuple):
    """What was done to the log of a story, and the kind of violation that it is; `also` comes with it."""

    kind: str
    story: Callable[[], Scenario]
    damage: Callable[[Log], Log]
    also: tuple[str, ...] = ()


def every(log: Log, wanted: Callable[[RecordedEvent], bool], change: Callable[[RecordedEvent], RecordedEvent]) -> Log:
    """A change of each event that is wanted."""
    assert any(wanted(each) for each in log)
    return [change(each) if wanted(each) else each for each in log]


def _last(log: Log, **fields: Any) -> Log:
    return [*log[:-1], changed(log[-1], **fields)]


def _again(log: Log, count: int) -> Log:
    """The last events happen a second time."""
    return renumbered([*log, *log[-count:]])


def _moved(log: Log, amount: int) -> Log:
    """All three events of the last posting, or hold, with another amount."""
    debited, credited, own = log[-3:]
    return [*log[:-3], moved_by(debited, amount), moved_by(credited, amount), changed(own, amount=amount)]


def _before_its_capture(log: Log) -> Log:
    """More was captured than was held, in each event."""
    released, other, *capture = log[-5:]
    return [*log[:-5], released, other, *_moved(capture, 61)]


def _with_ann_on_both_sides(log: Log) -> Log:
    debited, credited, own = log[-3:]
    data = msgspec.json.decode(debited.data)
    both = with_values(credited, stream_id=ANN, stream_version=debited.stream_version + 1)
    counters = {"debits_posted": data["debits_posted"], "credits_posted": data["credits_posted"] + data["amount"]}
    both = changed(both, **counters)
    own = changed(own, credit_account_id=str(ANN))
    return [*log[:-3], changed(debited, counterparty_account_id=str(ANN)), both, own]


def _place(log: Log, type_name: str, place: int) -> Log:
    """The only event of a type is put somewhere else."""
    (event,) = [each for each in log if each.type == type_name]
    rest = [each for each in log if each is not event]
    return renumbered([*rest[:place], event, *rest[place:]])


def _announced_twice(log: Log) -> Log:
    """Both originals tell of the same reversal."""
    second = next(each for each in reversed(log) if each.type == "Transfer.Reversed")
    return every(log, lambda each: each is second, lambda each: changed(each, reversal_id=str(OTHER_ID)))


def _turned(log: Log) -> Log:
    """An entry with the account of one leg in place of another."""
    legs = msgspec.json.decode(log[-1].data)["legs"]
    legs[0]["account_id"], legs[1]["account_id"] = legs[1]["account_id"], legs[0]["account_id"]
    return _last(log, legs=legs)


def _is(*types: str) -> Callable[[RecordedEvent], bool]:
    return lambda each: each.type in types


_OPENED_FROM, _FUNDED_FROM = 5, 8
"""The first events: five accounts are opened, then Ann gets her money."""
OTHER_MOMENT = "2026-01-02T00:00:00Z"

DAMAGES = [
    Damage("invalid_amount", posted, lambda log: _moved(log, 0)),
    Damage("invalid_amount", posted, lambda log: _moved(log, -5), ("counter_falls",)),
    Damage("invalid_amount", held, lambda log: _moved(log, 0)),
    Damage("invalid_amount", reversed_, lambda log: [*log[:-2], changed(log[-2], amount=0), log[-1]]),
    Damage("invalid_amount", captured, lambda log: _moved(log, 0)),
    Damage("invalid_amount", posted, lambda log: [*log[:-3], moved_by(log[-3], 0), *log[-2:]], ("legs_differ",)),
    Damage("unbalanced", entered, lambda log: _last(log, amount=61)),
    Damage("same_account", posted, _with_ann_on_both_sides),
    Damage("legs_differ", held, lambda log: [*log[:-3], changed(log[-3], amount=61), *log[-2:]]),
    Damage("legs_differ", posted, lambda log: renumbered([*log[:-2], log[-1]]), ("books_unequal",)),
    Damage("legs_differ", posted, lambda log: renumbered([*log[:-1], log[-2], log[-1]]), ("counters_differ",)),
    Damage("legs_differ", voided, lambda log: renumbered([*log[:-3], *log[-1:]])),
    Damage("legs_differ", captured, lambda log: _last(log, amount=46)),
    Damage("legs_differ", captured, lambda log: [each for each in log if each.type != "Account.HoldReleased"]),
    Damage("details_differ", posted, lambda log: _last(log, effective_at=OTHER_MOMENT)),
    Damage("details_differ", posted, lambda log: _last(log, description="something else")),
    Damage("details_differ", captured, lambda log: _last(log, effective_at=OTHER_MOMENT)),
    Damage(
        "details_differ",
        posted,
        lambda log: [*log[:-3], changed(log[-3], counterparty_account_id=str(TAX)), *log[-2:]],
    ),
    Damage(
        "details_differ",
        entered,
        lambda log: every(log, _is("Account.Credited"), lambda each: changed(each, counterparty_account_id=str(TAX))),
    ),
    Damage("currency_differs", posted, lambda log: _last(log, currency="USD")),
    Damage("currency_differs", posted, lambda log: [*log[:-3], changed(log[-3], currency="USD"), *log[-2:]]),
    Damage("currency_differs", posted, lambda log: [*log[:-3], changed(log[-3], account_type="asset"), *log[-2:]]),
    Damage("books_unequal", posted, lambda log: [*log[:-3], moved_by(log[-3], 61), *log[-2:]], ("legs_differ",)),
    Damage("books_unequal", held, lambda log: [*log[:-3], moved_by(log[-3], 61), *log[-2:]], ("legs_differ",)),
    Damage("movements_without_transfer", held, lambda log: log[:-1]),
    Damage("movements_without_transfer", posted, lambda log: renumbered([*log[:7], *log[8:]])),
    Damage("counters_differ", held, lambda log: [*log[:-3], changed(log[-3], debits_pending=61), *log[-2:]]),
    Damage("counters_differ", posted, lambda log: [*log[:-2], changed(log[-2], credits_pending=1), log[-1]]),
    Damage("counter_falls", posted, lambda log: [*log[:-3], changed(log[-3], credits_posted=99), *log[-2:]]),
    Damage("counter_out_of_range", held, lambda log: [*log[:-3], changed(log[-3], debits_pending=-1), *log[-2:]]),
    Damage("counter_out_of_range", posted, lambda log: [*log[:-2], changed(log[-2], credits_posted=2**63), log[-1]]),
    Damage("below_limit", posted, lambda log: _moved(log, 101)),
    Damage("below_limit", held, lambda log: _moved(log, 101)),
    Damage("below_limit", limited, lambda log: _place(log, "Account.OverdraftLimitSet", len(log) - 1)),
    Damage("below_limit", limited, lambda log: renumbered([*log, changed(log[8], overdraft_limit=49)])),
    Damage("no_open_hold", voided, lambda log: _again(log, 3)),
    Damage("no_open_hold", captured, lambda log: _again(log, 5)),
    Damage("no_open_hold", expired, lambda log: _again(log, 3)),
    Damage("hold_exceeded", captured, _before_its_capture),
    Damage("hold_at_wrong_time", voided, lambda log: [*log[:-1], with_values(log[-1], type="Transfer.Expired")]),
    Damage("hold_at_wrong_time", expired, lambda log: [*log[:-1], with_values(log[-1], type="Transfer.Voided")]),
    Damage("hold_at_wrong_time", captured, lambda log: [*log[:-1], later(log[-1])]),
    Damage("transfer_begun_again", held, lambda log: _again(log, 3)),
    Damage("transfer_begun_again", posted, lambda log: _again(log, 3)),
    Damage("original_exceeded", reversed_, lambda log: [*log[:-2], changed(log[-2], amount=61), log[-1]]),
    Damage("original_exceeded", voided, lambda log: renumbered([*log, _reversal_of(log)])),
    Damage("reversal_not_posted", reversed_, lambda log: log[:-1]),
    Damage("reversal_not_posted", reversed_twice, _announced_twice, ("reversal_not_announced",)),
    Damage("reversal_not_announced", reversed_, lambda log: [*log[:-2], changed(log[-2], amount=24), log[-1]]),
    Damage("reversal_not_announced", reversed_, lambda log: renumbered([*log[:-2], log[-1]])),
    Damage("reversal_not_announced", reversed_, lambda log: _last(log, reverses=str(UUID(int=99)))),
    Damage("reversal_differs", entered, _turned),
    Damage("account_unknown", posted, lambda log: renumbered([*log[:1], *log[2:]])),
    Damage("account_unknown", frozen, lambda log: _place(log, "Account.Frozen", 0)),
    Damage("account_opened_again", posted, lambda log: renumbered([*log, log[1]])),
    Damage("account_not_open", frozen, lambda log: _place(log, "Account.Unfrozen", len(log) - 1)),
    Damage("account_not_open", frozen, lambda log: _place(log, "Account.Frozen", _FUNDED_FROM)),
    Damage("account_not_open", closed, lambda log: _place(log, "Account.Closed", _OPENED_FROM)),
    Damage("account_not_open", closed, lambda log: renumbered([*log, with_values(log[-1], type="Account.Frozen")])),
    Damage("account_closed_with_money", closed, lambda log: _place(log, "Account.Closed", _FUNDED_FROM)),
    Damage("position_gap", posted, lambda log: [*log[:4], *log[5:]]),
    Damage("version_gap", posted, lambda log: [*log[:-2], with_values(log[-2], stream_version=9), log[-1]]),
    Damage("version_gap", posted, lambda log: [*log[:-1], with_values(log[-1], stream_version=2)]),
    Damage("version_gap", voided, lambda log: [*log[:-1], with_values(log[-1], stream_version=3)]),
    Damage("unreadable_event", posted, lambda log: [*log[:-1], with_values(log[-1], data=b'{"amount":"much"}')]),
    Damage("unreadable_event", posted, lambda log: [*log[:-1], with_values(log[-1], type="Transfer.Vanished")]),
]


def _reversal_of(log: Log) -> RecordedEvent:
    """A hold that moved nothing is reversed."""
    data = msgspec.json.encode({"reversal_id": str(OTHER_ID), "amount": 1})
    return with_values(log[-1], type="Transfer.Reversed", data=data)
