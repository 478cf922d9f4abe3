"""A batch ends where it has enough events or bytes, however few commands those are of; order stays, nobody starves."""

import itertools

import pytest

from cqrskit import Command, CommandResult, Settings
from tests.integration.counting import Grow, GrowNumbered, Label, counter_numbered, opened
from tests.integration.reminding import GrowLater, reminding
from tests.integration.test_executor import assert_dense, rows

LIMIT = 50
LARGE = 120
"""Events of a command that is beyond the limit by itself."""
COMMANDS: list[Command] = [
    *itertools.islice(itertools.cycle([GrowNumbered(count=10), Grow(counter_id=counter_numbered(3))]), 60),
    GrowNumbered(count=LARGE),
    *itertools.repeat(Grow(counter_id=counter_numbered(4)), 60),
    *itertools.repeat(GrowNumbered(count=LARGE), 3),
    Grow(counter_id=counter_numbered(5)),
]


def sizes(dsn: str, after: int) -> list[int]:
    """Events of each transaction, in their order."""
    found = rows(dsn, "SELECT position, xmin::text FROM events ORDER BY position")[after:]
    return [len(list(group)) for _, group in itertools.groupby(row[1] for row in found)]


@pytest.mark.parametrize("locked", [False, True])
async def test_a_transaction_ends_with_the_command_that_reaches_the_limit_of_events(
    postgres_dsn: str, locked: bool
) -> None:
    async with opened(Settings(database_url=postgres_dsn, batch_events_max=LIMIT)) as runtime:
        await runtime.executor.execute_many([Grow(counter_id=counter_numbered(each)) for each in range(LARGE)])
        begin = await runtime.event_store.head()
        runtime.executor._appender.locked_batches = 1_000 if locked else 0
        results = await runtime.executor.execute_many(COMMANDS)
        end = await runtime.event_store.head()
    positions = [result.position for result in results if isinstance(result, CommandResult)]
    counts = [command.count if isinstance(command, GrowNumbered) else 1 for command in COMMANDS]
    assert positions == [begin + place for place in itertools.accumulate(counts)], "in the order in which they came"
    found = sizes(postgres_dsn, begin)
    assert sum(found) == end - begin == sum(counts)
    ends = set(itertools.accumulate(counts))
    last_of = dict(zip(itertools.accumulate(counts), counts, strict=True))
    for until, size in zip(itertools.accumulate(found), found, strict=True):
        assert until in ends, "no command is in two transactions"
        assert size - last_of[until] < LIMIT, "it took no command more once it had enough"
    assert len(found) < len(COMMANDS) / 3, "small ones still share transactions"
    assert_dense(postgres_dsn)


async def test_a_transaction_ends_with_the_command_that_reaches_the_limit_of_bytes(postgres_dsn: str) -> None:
    async with opened(Settings(database_url=postgres_dsn, batch_max_bytes=10_000)) as runtime:
        commands = [Label(counter_id=counter_numbered(1), text="x" * 3_000) for _ in range(30)]
        results = await runtime.executor.execute_many(commands)
        assert all(isinstance(result, CommandResult) for result in results)
    assert max(sizes(postgres_dsn, 1)) == 4
    assert_dense(postgres_dsn)


async def test_the_bytes_of_due_commands_count_too(postgres_dsn: str) -> None:
    async with reminding.open(Settings(database_url=postgres_dsn, batch_max_bytes=10_000)) as runtime:
        commands = [GrowLater(counter_id=counter_numbered(1), name=str(n), seconds=3_600) for n in range(1_000)]
        results = await runtime.executor.execute_many(commands)
        assert all(isinstance(result, CommandResult) for result in results)
    found = rows(postgres_dsn, "SELECT sum(length(content) + length(metadata)) FROM due_commands GROUP BY xmin::text")
    assert max(int(str(size)) for (size,) in found) < 10_000


async def test_what_names_more_streams_than_are_loaded_at_once_is_decided_all_the_same(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cqrskit.decisions.STREAMS_MAX", 3)
    async with opened(Settings(database_url=postgres_dsn)) as runtime:
        commands = [Grow(counter_id=counter_numbered(each % 7)) for each in range(50)]
        results = await runtime.executor.execute_many(commands)
        assert [getattr(result, "reply", result) for result in results] == [1 + each // 7 for each in range(50)]
    assert_dense(postgres_dsn)
