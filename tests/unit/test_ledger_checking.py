"""The checker of the books finds what is wrong with holds, entries and reversals."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from cqrskit import RecordedEvent
from cqrskit.testing import Scenario
from example_ledger.holds import CaptureHold, ExpireHold, VoidHold
from example_ledger.reversals import ReverseTransfer
from tests.unit.test_ledger_holds import ANN, ID, OTHER_ID, SHOP, TAX, checked, entry, hold, opened, transfer

Log = list[RecordedEvent]


def changed(recorded: RecordedEvent, **fields: Any) -> RecordedEvent:
    """The event with other stored fields."""
    data = msgspec.json.decode(recorded.data)
    assert fields.keys() <= data.keys()
    return with_values(recorded, data=msgspec.json.encode({**data, **fields}))


def with_values(recorded: RecordedEvent, **values: Any) -> RecordedEvent:
    """The recorded event otherwise."""
    names = ("position", "stream_id", "stream_version", "type", "data", "metadata", "recorded_at")
    return RecordedEvent(**{**{name: getattr(recorded, name) for name in names}, **values})


def again(log: Log, count: int) -> Log:
    """The last events happen a second time."""
    last = log[-1]
    more = [
        with_values(each, position=last.position + place, stream_version=each.stream_version + 1)
        for place, each in enumerate(log[-count:], start=1)
    ]
    return [*log, *more]


def captured() -> Scenario:
    """A hold that was captured in part."""
    return opened().when(hold(60, expires_in_seconds=10)).when(CaptureHold(hold_id=ID, amount=45))


def reversed_() -> Scenario:
    """A transfer that was reversed in part."""
    return opened().when(transfer(60)).when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID, amount=25))


def expired() -> Scenario:
    """A hold that has expired."""
    story = opened().when(hold(60, expires_in_seconds=10))
    story.now += timedelta(seconds=10)
    return story.when(ExpireHold(hold_id=ID))


def entered() -> Scenario:
    """An entry that was reversed."""
    story = opened().when(entry((ANN, "debit", 60), (SHOP, "credit", 50), (TAX, "credit", 10)))
    return story.when(ReverseTransfer(transfer_id=ID, reversal_id=OTHER_ID))


def held() -> Scenario:
    """A hold, not resolved."""
    return opened().when(hold(60))


def voided() -> Scenario:
    """A hold that was voided."""
    return held().when(VoidHold(hold_id=ID))


@pytest.mark.parametrize("story", [captured, reversed_, expired, entered, held, voided])
def test_what_the_ledger_does_is_in_order(story: Callable[[], Scenario]) -> None:
    assert checked(story().log).violations == []


@pytest.mark.parametrize(
    ("story", "tamper", "invariant"),
    [
        (held, lambda log: [*log[:-3], changed(log[-3], amount=61), *log[-2:]], 1),
        (held, lambda log: [*log[:-3], changed(log[-3], debits_pending=61), *log[-2:]], 3),
        (held, lambda log: [*log[:-1], changed(log[-1], amount=61)], 1),
        (held, lambda log: log[:-1], 2),
        (held, lambda log: again(log, 3), 6),
        (voided, lambda log: again(log, 3), 5),
        (voided, lambda log: [*log[:-1], with_values(log[-1], type="Transfer.Expired")], 5),
        (voided, lambda log: [*log[:-3], *log[-1:]], 1),
        (expired, lambda log: [*log[:-1], with_values(log[-1], type="Transfer.Voided")], 5),
        (captured, lambda log: [*log[:-1], changed(log[-1], amount=46)], 1),
        (captured, lambda log: [*log[:-5], *more_than_held(log[-5:])], 5),
        (captured, lambda log: again(log, 5), 5),
        (captured, lambda log: [*log[:-1], later(log[-1])], 5),
        (captured, lambda log: [each for each in log if each.type != "Account.HoldReleased"], 1),
        (reversed_, lambda log: [*log[:-2], changed(log[-2], amount=61), log[-1]], 7),
        (reversed_, lambda log: [*log[:-2], changed(log[-2], amount=24), log[-1]], 7),
        (reversed_, lambda log: [*log[:-2], log[-1]], 7),
        (reversed_, lambda log: log[:-1], 7),
        (reversed_, lambda log: [*log[:-1], changed(log[-1], reverses=str(UUID(int=99)))], 7),
        (entered, lambda log: [*log[:-1], turned(log[-1])], 7),
    ],
)
def test_the_checker_finds_what_is_tampered_with(
    story: Callable[[], Scenario], tamper: Callable[[Log], Log], invariant: int
) -> None:
    assert invariant in {violation.invariant for violation in checked(tamper(story().log)).violations}


def more_than_held(capture: Log) -> Log:
    """A capture of 61 of 60, in each of its events."""
    debited, credited, own = capture[2:]
    return [
        *capture[:2],
        changed(debited, amount=61, debits_posted=61),
        changed(credited, amount=61, credits_posted=61),
        changed(own, amount=61),
    ]


def later(capture: RecordedEvent) -> RecordedEvent:
    """The same after the hold's end."""
    return with_values(capture, recorded_at=capture.recorded_at + timedelta(seconds=10))


def turned(posted: RecordedEvent) -> RecordedEvent:
    """An entry with the account of one leg in place of another."""
    legs = msgspec.json.decode(posted.data)["legs"]
    legs[0]["account_id"], legs[1]["account_id"] = legs[1]["account_id"], legs[0]["account_id"]
    return changed(posted, legs=legs)
