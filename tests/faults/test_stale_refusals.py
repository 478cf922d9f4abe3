"""A refusal that rested on a stale aggregate is never told, whatever else its batch, or the next one, did to it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit import CommandFailed, CommandResult, Executor, Settings
from example_ledger.accounts import OpenAccount
from example_ledger.transfers import PostTransfer
from tests.faults.batching import BOOKS_OF_SPENDING, Look, Spend, spending
from tests.faults.checking import assert_books_in_order

FUNDS = 10


class Stage(msgspec.Struct):
    """Two executors; the account `rich` has funds, but the first executor still believes that it has none."""

    believing: Executor
    bank: UUID
    rich: UUID
    other: UUID

    def transfer(self, debit: UUID, credit: UUID, amount: int) -> PostTransfer:
        """A transfer."""
        return PostTransfer(debit_account_id=debit, credit_account_id=credit, amount=amount, currency="EUR")

    def failing_while_poor(self) -> Spend:
        """It gives and takes the same, and breaks then if the account is empty."""
        return Spend(account_id=self.rich, other_id=self.rich, amount=1)


@pytest.fixture(params=[1, 1_000])
async def stage(request: pytest.FixtureRequest, postgres_dsn: str) -> AsyncIterator[Stage]:
    """The stage, with each command in a batch of its own, or all in one."""
    settings = Settings(database_url=postgres_dsn, batch_size_max=request.param)
    async with spending.open(settings) as one, spending.open(settings) as two:
        stage = Stage(one.executor, uuid4(), uuid4(), uuid4())
        kinds: Any = {stage.bank: ("asset", None), stage.rich: ("liability", 0), stage.other: ("liability", 0)}
        for account, (kind, limit) in kinds.items():
            opening = OpenAccount(account_id=account, name="x", type=kind, currency="EUR", overdraft_limit=limit)
            await one.executor.execute(opening)
        await two.executor.execute(stage.transfer(stage.bank, stage.rich, FUNDS))
        yield stage
    await assert_books_in_order(postgres_dsn, but_for=BOOKS_OF_SPENDING)


async def test_a_transfer_that_other_processes_have_paid_for_is_posted(stage: Stage) -> None:
    (result,) = await stage.believing.execute_many([stage.transfer(stage.rich, stage.other, FUNDS)])
    assert isinstance(result, CommandResult), result


async def test_a_command_that_failed_after_it_changed_a_stale_account_is_decided_again(stage: Stage) -> None:
    result, seen = await stage.believing.execute_many([stage.failing_while_poor(), Look(account_id=stage.rich)])
    assert isinstance(seen, CommandResult)
    assert isinstance(result, CommandResult), result


async def test_a_refusal_is_decided_again_though_the_next_command_changes_the_stale_account(stage: Stage) -> None:
    first = stage.transfer(stage.rich, stage.other, FUNDS)
    result, changed = await stage.believing.execute_many([first, stage.transfer(stage.bank, stage.rich, 1)])
    assert isinstance(changed, CommandResult)
    assert isinstance(result, CommandResult), result


async def test_what_was_looked_at_is_looked_at_again_though_the_next_command_fails_on_it(stage: Stage) -> None:
    look = Look(account_id=stage.rich)
    seen, _, again = await stage.believing.execute_many([look, stage.failing_while_poor(), look])
    assert isinstance(seen, CommandResult)
    assert isinstance(again, CommandResult)
    assert (seen.reply, again.reply) == (FUNDS, FUNDS)


async def test_a_failure_is_not_the_answer_to_the_next_command_with_its_key(stage: Stage) -> None:
    failing = Spend(account_id=stage.other, other_id=stage.other, amount=1)
    paying = stage.transfer(stage.bank, stage.other, 5)
    failed, _, again = await stage.believing.execute_many([failing, paying, failing], keys=["key", None, "key"])
    assert isinstance(failed, CommandFailed)
    assert isinstance(again, CommandResult), again
    assert (again.reply, again.replayed) == (20, False)
