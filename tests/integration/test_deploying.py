"""Old and new code side by side on one log: nobody does, moves past or sets aside what is another's."""

from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

import cqrskit.due_commands
from cqrskit import Application, Runtime, Settings
from cqrskit.testing import eventually
from tests.integration.counting import Counter, Grow, Label, Require, grow, require
from tests.integration.reminding import GrowLater, reminding
from tests.integration.upgrading import (
    GROWN,
    LABELLED,
    Place,
    echo_of,
    new_echoing,
    old_echoing,
    ordering,
)


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn, lease_seconds=0.3)


def rows(settings: Settings, statement: LiteralString) -> list[tuple[object, ...]]:
    with psycopg.connect(str(settings.database_url)) as connection:
        return connection.execute(statement).fetchall()


def shipped(settings: Settings) -> int:
    ((count,),) = rows(settings, "SELECT count(*) FROM events WHERE type = 'Order.Shipped'")
    assert isinstance(count, int)
    return count


async def echo(runtime: Runtime, counter_id: UUID) -> int:
    """How much came of a counter's events."""
    found = await runtime.executor.execute_many([Require(counter_id=echo_of(counter_id), at_least=0)])
    return getattr(found[0], "reply", 0)


async def echoed(runtime: Runtime, counter_id: UUID, value: int) -> None:
    """Wait until so much has come of them, and nothing is under way."""

    async def there() -> bool:
        waiting = (await runtime.due_commands.status()).waiting
        return await echo(runtime, counter_id) >= value and waiting == 0

    await eventually(there, timeout_seconds=30)
    assert await echo(runtime, counter_id) == value


async def test_a_reaction_misses_nothing_that_an_older_process_does_not_look_at(settings: Settings) -> None:
    counter_id = uuid4()
    async with new_echoing.open(settings) as newer:
        await newer.executor.execute(Grow(counter_id=counter_id))
        await echoed(newer, counter_id, GROWN)
    async with old_echoing.open(settings) as older:
        await older.executor.execute(Label(counter_id=counter_id, text="passed by"))
        await older.executor.execute(Grow(counter_id=counter_id))
        await echoed(older, counter_id, 2 * GROWN)
    async with new_echoing.open(settings) as newer:
        await echoed(newer, counter_id, 2 * GROWN + LABELLED)


async def test_a_type_that_is_new_to_a_reaction_begins_where_the_reaction_is(settings: Settings) -> None:
    counter_id = uuid4()
    async with old_echoing.open(settings) as older:
        await older.executor.execute(Grow(counter_id=counter_id))
        await older.executor.execute(Label(counter_id=counter_id, text="past"))
        await older.executor.execute(Grow(counter_id=counter_id))
        await echoed(older, counter_id, 2 * GROWN)
        async with new_echoing.open(settings) as newer:
            await newer.executor.execute(Label(counter_id=counter_id, text="from now on"))
            await echoed(newer, counter_id, 2 * GROWN + LABELLED)


async def test_each_event_has_its_effect_once_while_old_and_new_processes_compete(settings: Settings) -> None:
    counter_id = uuid4()
    async with new_echoing.open(settings) as newer, old_echoing.open(settings) as older:
        for runtime in (older, newer) * 5:
            await runtime.executor.execute_many([Grow(counter_id=counter_id) for _ in range(10)])
            await runtime.executor.execute_many([Label(counter_id=counter_id, text="a") for _ in range(10)])
        await echoed(newer, counter_id, 100 * GROWN + 100 * LABELLED)


async def test_a_reaction_stops_at_an_event_of_a_newer_version_and_newer_code_goes_on(settings: Settings) -> None:
    for version in (1, 2, 1):
        async with ordering(version, reacts=False).open(settings) as writer:
            await writer.executor.execute(Place(order_id=uuid4()))
    with capture_logs() as lines:
        async with ordering(1, reacts=True).open(settings):
            await eventually(lambda: any(line["event"] == "reaction.waits_for_newer_code" for line in lines))
            await eventually(lambda: shipped(settings) == 1)
    assert "Order.Placed@2" in next(
        line["reason"] for line in lines if line["event"] == "reaction.waits_for_newer_code"
    )
    assert rows(settings, "SELECT count(*) FROM due_commands") == [(0,)]
    async with ordering(2, reacts=True).open(settings):
        await eventually(lambda: shipped(settings) == 3)


async def test_a_due_command_waits_for_code_that_can_read_the_events_which_it_needs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cqrskit.due_commands, "NEWER_CODE_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(cqrskit.due_commands, "FIRST_PAUSE_SECONDS", 0.01)
    async with ordering(2, reacts=False).open(settings) as writer:
        await writer._due_runner.stop()
        await writer.executor.execute(Place(order_id=uuid4(), ship=True))
    with capture_logs() as lines:
        async with ordering(1, reacts=False).open(settings):
            await eventually(
                lambda: (
                    [line["event"] for line in lines].count("due_command.waits_for_newer_code")
                    > cqrskit.due_commands.ATTEMPTS_MAX
                )
            )
    assert rows(settings, "SELECT count(*) FROM due_commands WHERE parked_at IS NULL") == [(1,)]
    async with ordering(2, reacts=False).open(settings):
        await eventually(lambda: shipped(settings) == 1)


async def test_a_process_leaves_due_commands_alone_that_its_code_does_not_know(settings: Settings) -> None:
    """They are of newer code, or of another application in the same database."""
    counter_id = uuid4()
    async with reminding.open(settings) as runtime:
        await runtime._due_runner.stop()
        await runtime.executor.execute(GrowLater(counter_id=counter_id, name="a"))
    other = Application("other", aggregates=[Counter], handlers=[grow, require])
    async with other.open(settings) as runtime, ordering(1, reacts=True).open(settings) as ordered:
        await ordered.executor.execute(Place(order_id=uuid4(), ship=True))
        await eventually(lambda: shipped(settings) == 1)
        assert await runtime.due_commands.next_run_at(["Grow", "Require"]) is None, "nothing to hurry for"
        await eventually(lambda: rows(settings, "SELECT count(*) FROM due_commands") == [(1,)])
    untouched = "SELECT key, attempts, error, leased_until, parked_at FROM due_commands"
    assert rows(settings, untouched) == [("a", 0, None, None, None)]
    async with reminding.open(settings) as runtime:
        await eventually(lambda: rows(settings, "SELECT count(*) FROM due_commands") == [(0,)])
        assert (await runtime.executor.execute(Require(counter_id=counter_id, at_least=11))).reply == 11
