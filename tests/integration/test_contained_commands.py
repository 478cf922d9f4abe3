"""Commands within a command, on a real Postgres: each has one outcome, alone or contained, whoever asks at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from cqrskit import (
    Application,
    Command,
    CommandFailed,
    CommandResult,
    IdempotencyConflict,
    InvalidIdempotencyKey,
    Rejected,
    Repository,
    Runtime,
    Settings,
    handles,
)
from tests.integration.counting import Counter, TooSmall, grow


class Add(Command):
    """Add to a counter, once under its name; at most 10 together."""

    name: str
    counter_id: UUID
    by: int

    def idempotency_key(self) -> str:
        return f"add:{self.name}"


class AddAll(Command):
    """Add all; `despite` refusals, or passing over the last `skipped`, if the handler should be so wrong."""

    each: tuple[Add, ...]
    despite: bool = False
    skipped: int = 0
    unnamed: tuple[Add, ...] = ()

    def contained_commands(self) -> Sequence[Command]:
        return self.each


@handles(Add)
def add(command: Add, repository: Repository) -> int:
    counter = repository.find(Counter, command.counter_id) or repository.create(Counter, command.counter_id)
    if counter.value + command.by > 10:
        raise TooSmall(f"{counter.value} is too much for {command.by} more", by=command.by)
    counter.grow(by=command.by)
    return counter.value


@handles(AddAll)
def add_all(command: AddAll, repository: Repository) -> list[int]:
    replies = []
    for each in command.each[: len(command.each) - command.skipped] + command.unnamed:
        try:
            replies.append(repository.decide(each))
        except Rejected:
            if not command.despite:
                raise
    return replies


adding = Application("adding", aggregates=[Counter], handlers=[add, add_all, grow])


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    async with adding.open(settings, projections=[]) as runtime:
        yield runtime


def receipts(settings: Settings) -> list[str]:
    with psycopg.connect(str(settings.database_url)) as connection:
        found = connection.execute("SELECT key FROM command_receipts ORDER BY key").fetchall()
    return [key for (key,) in found]


async def test_what_is_contained_has_its_first_reply_alone_within_the_batch_and_after_a_restart(
    settings: Settings,
) -> None:
    counter_id = uuid4()
    one, two = Add(name="1", counter_id=counter_id, by=1), Add(name="2", counter_id=counter_id, by=2)
    async with opened(settings) as runtime:
        both = AddAll(each=(one, two))
        results = await runtime.executor.execute_many([both, one, both, two, AddAll(each=(two, two))])
        assert results[0] == CommandResult([1, 3], 3, True, False)
        assert results[1] == CommandResult(1, 3, False, True)
        assert results[3] == CommandResult(3, 3, False, True)
        for result, reply in ((results[2], [1, 3]), (results[4], [3, 3])):
            assert result == CommandResult(reply, 3, False, False)
    assert receipts(settings) == ["add:1", "add:2"]
    async with opened(settings) as runtime:
        grown = await runtime.executor.execute(Add(name="3", counter_id=counter_id, by=1))
        assert grown.position == 4
        assert await runtime.executor.execute(two) == CommandResult(3, 3, False, True)
        assert await runtime.executor.execute(both) == CommandResult([1, 3], 3, False, False)
        assert (
            await runtime.executor.execute(AddAll(each=(one, Add(name="4", counter_id=counter_id, by=1))))
        ).reply == [1, 5]


async def test_a_refusal_is_the_wholes_and_is_remembered_for_nothing_that_it_contains(settings: Settings) -> None:
    counter_id = uuid4()
    small, large = Add(name="s", counter_id=counter_id, by=1), Add(name="l", counter_id=counter_id, by=10)
    async with opened(settings) as runtime:
        with pytest.raises(TooSmall):
            await runtime.executor.execute(AddAll(each=(small, large)))
        assert receipts(settings) == []
        assert (await runtime.executor.execute(large)).reply == 10
        with pytest.raises(TooSmall) as refused:
            await runtime.executor.execute(small)
        other = Add(name="s", counter_id=uuid4(), by=1)
        with pytest.raises(IdempotencyConflict):
            await runtime.executor.execute(AddAll(each=(other,)))
        with pytest.raises(TooSmall, match=str(refused.value)):
            await runtime.executor.execute(AddAll(each=(Add(name="t", counter_id=uuid4(), by=1), small)))
        results = await runtime.executor.execute_many(
            [Add(name="u", counter_id=counter_id, by=1), AddAll(each=(Add(name="u", counter_id=counter_id, by=1),))]
        )
        assert [type(each) for each in results] == [TooSmall, TooSmall]
        assert await runtime.event_store.head() == 2


async def test_a_whole_under_a_key_of_its_own_has_one_outcome_too(settings: Settings) -> None:
    counter_id = uuid4()
    whole = AddAll(each=(Add(name="1", counter_id=counter_id, by=1),))
    async with opened(settings) as runtime:
        first = await runtime.executor.execute(whole, key="k")
        assert await runtime.executor.execute(whole, key="k") == CommandResult([1], first.position, False, True)
    assert receipts(settings) == ["add:1", "k"]


async def test_what_one_process_refuses_alone_another_does_not_accept_among_others(settings: Settings) -> None:
    """At the same time, or when there is room again: only its key can show that it was refused."""
    async with opened(settings) as one, opened(settings) as two:
        for number in range(40):
            counter_id = uuid4()
            await one.executor.execute(Add(name=f"filler {number}", counter_id=counter_id, by=6))
            item = Add(name=f"item {number}", counter_id=counter_id, by=6)
            room = Add(name=f"room {number}", counter_id=counter_id, by=-6)
            whole = AddAll(each=(Add(name=f"other {number}", counter_id=uuid4(), by=1), item))
            alone, at_once = await asyncio.gather(
                one.executor.execute_many([item, room]), two.executor.execute_many([whole])
            )
            (afterwards,) = await two.executor.execute_many([whole])
            for refused in (alone[0], *at_once, afterwards):
                assert isinstance(refused, TooSmall), f"number {number}: {refused}"
            assert isinstance(alone[1], CommandResult)
        assert await one.event_store.head() == 40 * 3


WRONG: dict[str, dict[str, Any]] = {"despite": {"despite": True}, "skipped": {"skipped": 1}, "unnamed": {}}


@pytest.mark.parametrize("at_once", [False, True], ids=["alone", "among others"])
@pytest.mark.parametrize("wrong", sorted(WRONG))
async def test_a_handler_that_would_break_all_or_nothing_fails_and_leaves_no_trace(
    settings: Settings, wrong: str, at_once: bool
) -> None:
    """Nor in what the next commands on the same stream see: they are given in the same batch, and afterwards."""
    counter_id = uuid4()
    small, large = Add(name="s", counter_id=counter_id, by=1), Add(name="l", counter_id=counter_id, by=10)
    each, unnamed = ((small,), (large,)) if wrong == "unnamed" else ((small, large), ())
    whole = AddAll(each=each, unnamed=unnamed, **WRONG[wrong])
    before, after, later = (Add(name=name, counter_id=counter_id, by=2) for name in ("before", "after", "later"))
    async with opened(settings) as runtime:
        first = await runtime.executor.execute(before)
        if at_once:
            failed, second = await runtime.executor.execute_many([whole, after])
        else:
            (failed,) = await runtime.executor.execute_many([whole])
            (second,) = await runtime.executor.execute_many([after])
        assert isinstance(failed, CommandFailed)
        assert "all or nothing" in str(failed) or "contained_commands" in str(failed)
        assert second == CommandResult(4, first.position + 1, True, False)
        assert (await runtime.executor.execute(small)).reply == 5
    async with opened(settings) as runtime:
        assert (await runtime.executor.execute(later)).reply == 7
    assert receipts(settings) == ["add:after", "add:before", "add:later", "add:s"]


async def test_a_key_of_the_whole_that_is_one_of_what_it_contains_is_told_before_anything_is_accepted(
    settings: Settings,
) -> None:
    whole = AddAll(each=(Add(name="1", counter_id=uuid4(), by=1),))
    other = Add(name="2", counter_id=uuid4(), by=1)
    async with opened(settings) as runtime:
        with pytest.raises(InvalidIdempotencyKey, match="add:1"):
            await runtime.executor.execute(whole, key="add:1")
        with pytest.raises(InvalidIdempotencyKey, match="add:1"):
            await runtime.executor.execute_many([other, whole], keys=["other", "add:1"])
        assert await runtime.event_store.head() == 0


async def test_a_key_of_something_contained_that_cannot_be_kept_is_told_before_anything_is_accepted(
    settings: Settings,
) -> None:
    whole = AddAll(each=(Add(name="a\nb", counter_id=uuid4(), by=1),))
    async with opened(settings) as runtime:
        with pytest.raises(InvalidIdempotencyKey):
            await runtime.executor.execute(whole)
        with pytest.raises(InvalidIdempotencyKey):
            await runtime.executor.execute_many([Add(name="1", counter_id=uuid4(), by=1), whole])
        assert await runtime.event_store.head() == 0


async def test_a_refused_whole_is_remembered_under_its_key_though_nothing_was_looked_up(
    settings: Settings,
) -> None:
    counter_id = uuid4()
    too_much = AddAll(each=(Add(name="1", counter_id=counter_id, by=11),))
    async with opened(settings) as runtime:
        for replayed in (False, True):
            with pytest.raises(TooSmall) as refusal, capture_logs() as logged:
                await runtime.executor.execute(too_much, key="all")
            assert refusal.value.replayed == replayed
            assert logged == [], "it did not settle what it took for an unknown commit"
    assert receipts(settings) == ["all"]


async def test_that_an_own_key_has_another_content_is_kept_under_no_other_key(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Add(name="1", counter_id=counter_id, by=1))
        for _ in range(2):
            with pytest.raises(IdempotencyConflict) as caught:
                await runtime.executor.execute(Add(name="1", counter_id=counter_id, by=2), key="k")
            assert (caught.value.field, caught.value.replayed) == ("by", False)
        assert (await runtime.executor.execute(Add(name="2", counter_id=counter_id, by=2), key="k")).reply == 3
    assert receipts(settings) == ["add:1", "add:2", "k"]
