"""Idempotency keys on a real Postgres: one effect, one reply, for ever."""

import asyncio
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest

from cqrskit import CommandFailed, CommandResult, IdempotencyConflict, InvalidIdempotencyKey, Settings
from tests.integration.counting import Grow, Require, TooSmall, opened


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


def rows(settings: Settings, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(str(settings.database_url)) as connection:
        return connection.execute(statement).fetchall()


async def test_a_retry_gets_the_first_reply_and_changes_nothing(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        first = await runtime.executor.execute(Grow(counter_id=counter_id, by=5), key="k")
        await runtime.executor.execute(Grow(counter_id=counter_id, by=1))
        again = await runtime.executor.execute(Grow(counter_id=counter_id, by=5), key="k")
        assert first == CommandResult(5, 2, True, False)
        assert again == CommandResult(5, 2, False, True)
    async with opened(settings) as another:
        assert await another.executor.execute(Grow(counter_id=counter_id, by=5), key="k") == again
    assert rows(settings, "SELECT count(*) FROM events") == [(3,)]


async def test_a_refusal_is_remembered_though_the_state_has_changed_since(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5))
        require = Require(counter_id=counter_id, at_least=6)
        with pytest.raises(TooSmall, match="5 is less than 6") as first:
            await runtime.executor.execute(require, key="k")
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5))
        with pytest.raises(TooSmall, match="5 is less than 6") as again:
            await runtime.executor.execute(require, key="k")
        assert (again.value.code, again.value.details) == (first.value.code, first.value.details)
        assert (await runtime.executor.execute(require)).reply == 10


async def test_a_reply_that_changed_nothing_is_remembered_with_its_position(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5))
        require = Require(counter_id=counter_id, at_least=1)
        assert await runtime.executor.execute(require, key="k") == CommandResult(5, 2, False, False)
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5))
        assert await runtime.executor.execute(require, key="k") == CommandResult(5, 2, False, True)


async def test_a_key_with_other_content_is_refused_and_names_the_field(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5), key="k")
        for other, field in (
            (Grow(counter_id=counter_id, by=6), "by"),
            (Grow(counter_id=uuid4(), by=5), "counter_id"),
            (Require(counter_id=counter_id, at_least=0), "command"),
        ):
            with pytest.raises(IdempotencyConflict) as refused:
                await runtime.executor.execute(other, key="k")
            assert (refused.value.field, refused.value.key) == (field, "k")
        assert (await runtime.executor.execute(Grow(counter_id=counter_id, by=5), key="k")).replayed
    assert rows(settings, "SELECT count(*) FROM events") == [(2,)]


async def test_duplicates_within_one_batch_and_in_the_batch_after_it_have_one_effect(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        grow, other = Grow(counter_id=counter_id, by=5), Grow(counter_id=counter_id, by=6)
        commands, keys = [grow, grow, other, grow], ["k", "k", "k", None]
        results = await runtime.executor.execute_many(commands, keys=keys)
        assert results[:2] == [CommandResult(5, 2, True, False), CommandResult(5, 2, False, True)]
        assert isinstance(results[2], IdempotencyConflict)
        assert results[3] == CommandResult(10, 3, True, False)
        many = await asyncio.gather(*(runtime.executor.execute(grow, key=f"m{number % 7}") for number in range(500)))
        assert sum(result.appended for result in many) == 7
        assert len({result.reply for result in many}) == 7
    assert rows(settings, "SELECT count(*), max(position) FROM events") == [(10, 10)]


async def test_one_key_used_in_two_processes_at_once_has_one_effect(settings: Settings) -> None:
    async with opened(settings) as one, opened(settings) as two:
        for number in range(40):
            grow = Grow(counter_id=uuid4(), by=number)
            results = await asyncio.gather(
                *(each.executor.execute(grow, key=f"k{number}") for each in (one, two, one, two))
            )
            assert sum(result.appended for result in results) == 1
            assert {(result.reply, result.position) for result in results} == {(number, 2 * number + 2)}
    assert rows(settings, "SELECT count(*) FROM events") == [(80,)]
    assert rows(settings, "SELECT count(*) FROM command_receipts") == [(40,)]


async def test_an_unexpected_failure_is_not_remembered(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        with pytest.raises(CommandFailed):
            await runtime.executor.execute(Grow(counter_id=counter_id, end="broken"), key="k")
        assert (await runtime.executor.execute(Grow(counter_id=counter_id), key="k")).appended


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "a\nb", "\ud800"])
async def test_a_key_that_cannot_be_kept_is_told_before_anything_is_accepted(settings: Settings, key: str) -> None:
    async with opened(settings) as runtime:
        with pytest.raises(InvalidIdempotencyKey):
            await runtime.executor.execute_many([Grow(counter_id=uuid4())] * 2, keys=[None, key])
        assert await runtime.event_store.head() == 0


async def test_a_receipt_shows_people_what_was_asked_and_answered(settings: Settings) -> None:
    counter_id = uuid4()
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=5), key="k")
    assert rows(settings, "SELECT key, command, outcome, position FROM command_receipts_json") == [
        ("k", {"Grow": {"counter_id": str(counter_id), "by": 5}}, {"reply": 5}, 2)
    ]
