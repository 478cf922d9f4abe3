"""Any batching and any interleaving of the same commands gives the log, and the replies, of running them one by one."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from cqrskit import Executor, Settings
from cqrskit.testing import PostgresServer
from example_ledger.transfers import PostTransfer
from tests.faults.batching import BOOKS_OF_SPENDING, Names, Step, commands_of, log_of, outcome_of, spending
from tests.faults.checking import assert_books_in_order, head_of, read_log, replayed
from tests.faults.told import Answer, Attempt, Told, submitting_to

BATCH_SIZES = (1, 2, 5, 1_000)
EXAMPLES = 150

accounts = some.tuples(some.integers(0, 2), some.integers(0, 2))
keys = some.none() | some.none() | some.sampled_from(["a", "b"])
transfers = some.builds(
    Step,
    kind=some.just("transfer"),
    accounts=accounts,
    amount=some.integers(0, 6),
    transfer=some.integers(0, 5),
    key=keys,
)
steps = some.one_of(
    transfers,
    transfers,
    some.builds(
        Step, kind=some.just("open"), accounts=accounts, limit=some.sampled_from([None, 0, 5]), key=some.none()
    ),
    some.builds(Step, kind=some.just("look"), accounts=accounts, key=keys),
    some.builds(Step, kind=some.just("spend"), accounts=accounts, amount=some.integers(1, 4), key=keys),
    some.builds(
        Step, kind=some.just("batch"), parts=some.lists(transfers, min_size=1, max_size=3).map(tuple), key=keys
    ),
)
plans = some.lists(
    some.tuples(some.sampled_from([1, 2, 3, 8]), some.integers(0, len(BATCH_SIZES) - 1)), min_size=2, max_size=6
)
"""How many commands are given together, and to which executor; begun again when it is at its end."""
BEGIN = [Step("open", (0, 1), limit=None), Step("open", (1, 0), limit=5), Step("transfer", (0, 1), 6, transfer=99)]


@some.composite
def sequences(draw: some.DrawFn) -> list[Step]:
    """Commands in order; some of them come again later, as they were."""
    found = list(BEGIN)
    for step in draw(some.lists(steps | some.integers(0, 100), min_size=1, max_size=24)):
        found.append(found[step % len(found)] if isinstance(step, int) else step)
    return found


class Workshop:
    """Executors with batches of different sizes on one database, at work in an event loop of their own."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.reference: Executor
        self.executors: list[Executor] = []

    async def open(self) -> None:
        """Open them all."""
        self.reference = await self._executor(1)
        self.executors = [await self._executor(size) for size in BATCH_SIZES]

    async def _executor(self, batch_size_max: int) -> Executor:
        settings = Settings(database_url=self.dsn, batch_size_max=batch_size_max, connections_max=2)
        return (await self.stack.enter_async_context(spending.open(settings))).executor

    async def run(self, given: list[Step], plan: list[tuple[Executor, int]]) -> tuple[list[Any], list[Any]]:
        """Give an executor so many commands, then the next one; the log and the replies, in names."""
        names = Names()
        begin = head_of(self.dsn)
        commands = commands_of(given, names)
        wanted = [names.key(step) for step in given]
        replies: list[Any] = []
        turns = itertools.cycle(plan)
        while len(replies) < len(commands):
            executor, count = next(turns)
            appender = executor._appender
            appender.locked_batches = appender.cautious_batches = 0  # examples before are no reason to be careful now
            part = slice(len(replies), len(replies) + count)
            results = await executor.execute_many(commands[part], keys=wanted[part])
            replies += [outcome_of(result, names, begin) for result in results]
        return log_of(read_log(self.dsn, begin), names), replies


@pytest.fixture(scope="module")
def workshop(postgres_server: PostgresServer) -> Iterator[Workshop]:
    """The workshop, for all examples."""
    dsn = postgres_server.create_database()
    workshop = Workshop(dsn)
    with workshop.runner:
        workshop.runner.run(workshop.open())
        yield workshop
        workshop.runner.run(workshop.stack.aclose())
        workshop.runner.run(assert_books_in_order(dsn, but_for=BOOKS_OF_SPENDING))
    postgres_server.drop_database(dsn)


examples: Callable[..., Any] = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@examples
@given(given_steps=sequences(), plan=plans)
@example(given_steps=[*BEGIN, Step("look", (0, 0)), Step("look", (1, 0))], plan=[(2, 3), (1, 2)])
def test_any_batching_on_executors_that_take_turns_gives_what_one_by_one_gives(
    workshop: Workshop, given_steps: list[Step], plan: list[tuple[int, int]]
) -> None:
    async def both() -> None:
        expected_log, expected = await workshop.run(given_steps, [(workshop.reference, 1)])
        turns = [(workshop.executors[number], count) for count, number in plan]
        found_log, found = await workshop.run(given_steps, turns)
        for number, step in enumerate(given_steps):
            assert _agree(found[number], expected[number], len(found_log)), (number, step, found, expected)
        assert found_log == expected_log

    workshop.runner.run(both())


def _agree(found: Any, expected: Any, last: int) -> bool:
    """Whether two outcomes are one; the position of what changed nothing may be a later one."""
    if expected[0] != "done" or expected[3]:
        return bool(found == expected)
    return bool(found[:2] == expected[:2] and found[3:] == expected[3:] and expected[2] <= found[2] <= last)


@examples
@given(
    given_steps=some.lists(transfers, min_size=2, max_size=40),
    submitters=some.integers(2, 8),
    pair=some.tuples(some.integers(0, 3), some.integers(0, 3)),
)
def test_any_interleaving_gives_a_log_and_replies_that_running_it_in_its_order_gives(
    workshop: Workshop, given_steps: list[Step], submitters: int, pair: tuple[int, int]
) -> None:
    executors = [workshop.executors[number] for number in pair]
    workshop.runner.run(_interleaved(workshop.dsn, executors, given_steps, submitters))


async def _interleaved(dsn: str, executors: list[Executor], given_steps: list[Step], submitters: int) -> None:
    """Let several submitters send every command, each from its own place on, so that all commands are sent again."""
    names = Names()
    begin = head_of(dsn)
    commands = commands_of(
        [Step("transfer", step.accounts, step.amount, transfer=number) for number, step in enumerate(given_steps)],
        names,
    )
    for command in commands_of(BEGIN, names):
        await executors[0].execute(command)
    told = [Told(command, attempts=[]) for command in commands if isinstance(command, PostTransfer)]

    async def submit(number: int) -> None:
        send = submitting_to(executors[number % 2])
        for place in range(len(told)):
            each = told[(place + number * len(told) // submitters) % len(told)]
            attempt = Attempt(time.monotonic())
            each.attempts.append(attempt)
            attempt.answer = await send(each.command)

    await asyncio.gather(*(submit(number) for number in range(submitters)))
    rows = read_log(dsn, begin)
    last = commands_of(BEGIN, names)[-1]
    assert isinstance(last, PostTransfer)
    books = replayed(rows, {each.transfer_id: each for each in (last, *(each.command for each in told))})
    for each in told:
        (answer,) = {_first_reply(attempt.answer) for attempt in each.attempts}
        first_ones = [attempt for attempt in each.attempts if attempt.answer and not attempt.answer.replayed]
        if answer[0] == "acknowledged":
            assert len(first_ones) == 1, each
            assert books.transfers[each.command.transfer_id] == answer[1]
        else:
            assert each.command.transfer_id not in books.transfers
            said = {
                refusal and (refusal.code, refusal.available)
                for refusal in books.refusals_between(each.command, 0, 1e18)
            }
            assert (answer[2], answer[3]) in said, (each, said)


def _first_reply(answer: Answer | None) -> tuple[str, int, str, int]:
    assert answer is not None
    return answer.kind, answer.position, answer.code, answer.details.get("available", 0)
