"""What commands call new is not looked up; where it is not new, every answer is as if it had been."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import CommandResult, Runtime, Settings
from cqrskit.event_store import Found
from example_ledger.accounts import OpenAccount
from example_ledger.refusals import InsufficientFunds, TransferConflict
from example_ledger.transfers import PostBatch, PostTransfer
from tests.faults.batching import Spend, spending
from tests.integration.test_executor import assert_dense

RICH, POOR = uuid4(), uuid4()


@pytest.fixture
def settings(postgres_dsn: str) -> Settings:
    return Settings(database_url=postgres_dsn)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Runtime]:
    """A ledger with an account that may be overdrawn, and one that may not."""
    async with spending.open(settings) as runtime:
        for account_id, limit in ((RICH, None), (POOR, 0)):
            command = OpenAccount(
                account_id=account_id, name="name", type="liability", currency="EUR", overdraft_limit=limit
            )
            await runtime.executor.execute(command)
        yield runtime


@contextmanager
def counted_loads(runtime: Runtime) -> Iterator[list[int]]:
    """How many streams and keys each load asks for."""
    counts: list[int] = []
    load = runtime.event_store.load

    async def counted(streams: Mapping[UUID, int], keys: Sequence[str], shapes: Sequence[str]) -> Found:
        counts.append(len(streams) + len(keys))
        return await load(streams, keys, shapes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.event_store, "load", counted)
        yield counts


def paid(amount: int = 1, *, transfer_id: UUID | None = None, back: bool = False) -> PostTransfer:
    """Money for the poor, or back to the rich."""
    debit, credit = (POOR, RICH) if back else (RICH, POOR)
    return PostTransfer(
        transfer_id=transfer_id or uuid4(),
        debit_account_id=debit,
        credit_account_id=credit,
        amount=amount,
        currency="EUR",
    )


async def test_new_transfers_between_accounts_in_memory_need_no_query_but_the_append(settings: Settings) -> None:
    async with opened(settings) as runtime:
        with counted_loads(runtime) as counts:
            results = await runtime.executor.execute_many([paid() for _ in range(300)])
            await runtime.executor.execute(PostBatch(transfers=(paid(), paid())))
        assert all(isinstance(result, CommandResult) for result in results)
        assert counts == []
    assert_dense(str(settings.database_url))


async def test_a_refusal_costs_one_query_for_all_that_are_decided_together(settings: Settings) -> None:
    async with opened(settings) as runtime:
        with counted_loads(runtime) as counts:
            results = await runtime.executor.execute_many([paid(back=bool(number % 2)) for number in range(20)])
            refused = await runtime.executor.execute_many([paid(50, back=True) for _ in range(20)])
        assert [type(result) for result in results] == [CommandResult] * 20
        assert [type(result) for result in refused] == [InsufficientFunds] * 20
        assert counts == [40], "20 transfers and their keys, when the first was to be refused"


async def test_a_retry_is_found_out_by_the_append_and_makes_the_next_batches_look_first(settings: Settings) -> None:
    async with opened(settings) as first:
        command = paid(5)
        told = await first.executor.execute(command)
    async with spending.open(settings) as runtime:
        appender = runtime.executor._appender
        again = await runtime.executor.execute(command)
        assert (again.reply, again.position, again.replayed) == (told.reply, told.position, True)
        assert (appender.cautious_batches > 0, appender.locked_batches) == (True, 0)
        with counted_loads(runtime) as counts:
            assert (await runtime.executor.execute(command)).replayed
        assert len(counts) == 1, "it was not presumed to be new this time"
        for _ in range(appender.cautious_batches):
            await runtime.executor.execute(paid())
        with counted_loads(runtime) as counts:
            await runtime.executor.execute(paid())
        assert counts == []
    assert_dense(str(settings.database_url))


async def test_a_transfer_that_is_there_without_a_receipt_is_not_posted_again(settings: Settings) -> None:
    command = paid(5)
    async with opened(settings) as runtime:
        await runtime.executor.execute(PostBatch(transfers=(command,)))
    async with spending.open(settings) as runtime:
        again = await runtime.executor.execute(PostBatch(transfers=(paid(), command)))
        assert [each.transfer_id for each in again.reply][1] == command.transfer_id
        with pytest.raises(TransferConflict):
            await runtime.executor.execute(paid(6, transfer_id=command.transfer_id))
    with psycopg.connect(str(settings.database_url)) as connection:
        found = connection.execute("SELECT count(*) FROM events WHERE type = 'Transfer.Posted'").fetchall()
    assert found == [(2,)]
    assert_dense(str(settings.database_url))


async def test_a_command_that_would_fail_now_gets_the_reply_that_its_key_was_given(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await runtime.executor.execute(paid(3))
        spend = Spend(account_id=POOR, other_id=RICH, amount=1)
        first = await runtime.executor.execute(spend, key="once")
        await runtime.executor.execute(paid(1, back=True))
        again = await runtime.executor.execute(spend, key="once")
        assert (again.reply, again.replayed) == (first.reply, True)


async def test_an_account_that_is_opened_again_keeps_its_money(settings: Settings) -> None:
    async with opened(settings) as runtime:
        await runtime.executor.execute(paid(5))
    with psycopg.connect(str(settings.database_url)) as connection:
        connection.execute("DELETE FROM command_receipts")
    async with opened(settings) as runtime:
        assert isinstance(await runtime.executor.execute(paid(5, back=True)), CommandResult)
        with pytest.raises(InsufficientFunds):
            await runtime.executor.execute(paid(1, back=True))
    assert_dense(str(settings.database_url))
