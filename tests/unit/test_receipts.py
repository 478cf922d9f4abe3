"""Receipts: what shows a retry to be one, and what it gets."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cqrskit import Command, DefinitionError, Rejected, Repository, handles
from cqrskit.commands import HandlerRegistry
from cqrskit.receipts import Receipt, ReceiptCodec


class Reply(msgspec.Struct, frozen=True):
    number: int
    at: datetime


class Pay(Command):
    payment_id: UUID
    amount: int
    at: datetime | None = None
    note: str | None = None
    lines: tuple[str, ...] = ()


class Refund(Command):
    payment_id: UUID
    amount: int


class NoMoney(Rejected):
    code = "no_money"


@handles(Pay)
def pay(command: Pay, repository: Repository) -> Reply:
    raise NotImplementedError


@handles(Refund)
def refund(command: Refund, repository: Repository) -> None:
    raise NotImplementedError


CODEC = ReceiptCodec(HandlerRegistry([pay, refund]))
ID = UUID(int=1)
moments = st.datetimes(timezones=st.just(UTC))
pays = st.builds(
    Pay,
    payment_id=st.sampled_from([ID, UUID(int=2)]),
    amount=st.integers(0, 3),
    at=st.none() | moments,
    note=st.none() | st.text(max_size=5),
    lines=st.lists(st.text(max_size=300), max_size=6).map(tuple),
)


def receipt(command: bytes, outcome: bytes = b"") -> Receipt:
    return Receipt("key", command, outcome, 1)


@given(pays, pays)
def test_commands_differ_by_their_receipts_exactly_when_they_differ(one: Pay, other: Pay) -> None:
    field = CODEC.differing_field(CODEC.content_of(one), other, CODEC.content_of(other))
    first = next((name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)), None)
    assert (field is None) == (first is None)
    assert field is None or getattr(one, field) != getattr(other, field)


def test_one_moment_written_in_two_ways_is_one_content() -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    one = Pay(payment_id=ID, amount=1, at=moment)
    other = Pay(payment_id=ID, amount=1, at=moment.astimezone(timezone(timedelta(hours=5))))
    assert CODEC.content_of(one) != CODEC.content_of(other)
    assert CODEC.differing_field(CODEC.content_of(one), other, CODEC.content_of(other)) is None


def test_a_field_that_is_added_later_with_a_default_makes_no_difference() -> None:
    kept = b'{"Pay":{"payment_id":"00000000-0000-0000-0000-000000000001","amount":1}}'
    assert CODEC.content_of(Pay(payment_id=ID, amount=1)) == kept
    now = Pay(payment_id=ID, amount=1, note="new")
    assert CODEC.differing_field(kept, now, CODEC.content_of(now)) == "note"


def test_another_command_differs_in_being_another_command() -> None:
    now = Refund(payment_id=ID, amount=1)
    assert (
        CODEC.differing_field(CODEC.content_of(Pay(payment_id=ID, amount=1)), now, CODEC.content_of(now)) == "command"
    )


def test_long_contents_are_kept_short_and_still_name_the_field() -> None:
    lines = tuple(f"line {number}" for number in range(100_000))
    one = Pay(payment_id=ID, amount=1, lines=lines)
    other = Pay(payment_id=ID, amount=1, lines=(*lines[:-1], "other"))
    assert len(CODEC.content_of(one)) < 500
    assert CODEC.differing_field(CODEC.content_of(one), other, CODEC.content_of(other)) == "lines"
    assert CODEC.differing_field(CODEC.content_of(one), one, CODEC.content_of(one)) is None


def test_long_contents_too_compare_moments_as_moments_and_name_the_field_that_differs() -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    one = Pay(payment_id=ID, amount=1, at=moment, note="x" * 2_000)
    again = Pay(payment_id=ID, amount=1, at=moment.astimezone(timezone(timedelta(hours=5))), note="x" * 2_000)
    other = Pay(payment_id=ID, amount=2, at=moment, note="x" * 2_000)
    kept = CODEC.content_of(one)
    assert b"xxx" not in kept
    assert CODEC.differing_field(kept, again, CODEC.content_of(again)) is None
    assert CODEC.differing_field(kept, other, CODEC.content_of(other)) == "amount"
    assert b"lines" not in kept, "what has its default is left out, so that a field added later makes no difference"


@given(st.integers(-(2**63), 2**63 - 1), moments)
def test_a_reply_comes_back_as_the_handler_says_it_is(number: int, at: datetime) -> None:
    reply = Reply(number, at)
    assert CODEC.outcome(receipt(b"", CODEC.outcome_of_reply(reply)), Pay) == reply


def test_a_refusal_comes_back_as_the_class_that_has_its_code() -> None:
    refusal = NoMoney("there is no money", available=5, account=ID)
    again = CODEC.outcome(receipt(b"", CODEC.outcome_of_refusal(refusal)), Pay)
    assert (type(again), str(again), again.code) == (NoMoney, "there is no money", "no_money")
    assert again.details == {"available": 5, "account": str(ID)}


def test_a_refusal_whose_class_is_gone_keeps_its_code() -> None:
    kept = b'{"refused":{"code":"long_gone","message":"no","details":{}}}'
    again = CODEC.outcome(receipt(b"", kept), Pay)
    assert (type(again), again.code, Rejected.code) == (Rejected, "long_gone", "rejected")


def test_a_reply_that_json_cannot_hold_is_told_at_start_up() -> None:
    class Ask(Command):
        pass

    @handles(Ask)
    def ask(command: Ask, repository: Repository) -> Any: ...

    HandlerRegistry([ask])
    ask.__annotations__["return"] = type(uuid4)
    with pytest.raises(DefinitionError, match=r"ask must say what it returns in a type that JSON can hold"):
        HandlerRegistry([ask])
