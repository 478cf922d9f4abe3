"""The check of the books finds nothing in any log that commands have written, whatever they were and how they came."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4, uuid5

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from cqrskit import Command, CommandResult, Rejected, Runtime, Settings
from cqrskit.testing import PostgresServer
from example_ledger.account_commands import (
    CloseAccount,
    FreezeAccount,
    SetAccountMetadata,
    SetOverdraftLimit,
    UnfreezeAccount,
)
from example_ledger.accounts import OpenAccount
from example_ledger.application import ledger
from example_ledger.checking import check_books
from example_ledger.entries import EntryLeg, PostEntry
from example_ledger.holds import CaptureHold, ExpireHold, PlaceHold, VoidHold
from example_ledger.money import AMOUNT_MAX
from example_ledger.reversals import ReverseTransfer
from example_ledger.transfers import PostBatch, PostTransfer

EXAMPLES = 60
ACCOUNTS = 5

Step = tuple[str, int, int, int, int, str | None]
"""What is done; an account, and how far away the other one is; a transfer; an amount; a key, if the caller has one."""

KINDS = [
    *["post"] * 4,
    *["enter"] * 2,
    *["hold"] * 4,
    *["capture"] * 3,
    *["void"] * 2,
    *["reverse"] * 4,
    *["batch"] * 3,
]
KINDS += ["expire", "limit", "describe", "freeze", "unfreeze", "close"]
steps: some.SearchStrategy[Step] = some.tuples(
    some.sampled_from(KINDS),
    some.sampled_from([*range(ACCOUNTS)] * 3 + [ACCOUNTS]),
    some.sampled_from([*range(1, ACCOUNTS)] * 4 + [0]),
    some.integers(0, 25),
    some.sampled_from([1, 1, 2, 3, 5, 5, 10, 30, 0, 100, AMOUNT_MAX]),
    some.sampled_from([None] * 9 + ["a", "b", "c"]),
)
groups = some.lists(some.lists(steps, min_size=1, max_size=12), min_size=4, max_size=12)


class Bench:
    """The ledger on one database, at work in an event loop of its own, for all examples."""

    def __init__(self, dsn: str) -> None:
        self.settings = Settings(database_url=dsn, connections_max=2)
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.runtime: Runtime
        self.outcomes: Counter[str] = Counter()

    async def open(self) -> None:
        """Begin to take commands."""
        self.runtime = await self.stack.enter_async_context(ledger.open(self.settings))

    async def run(self, given_groups: list[list[Step]]) -> None:
        """Give each group's commands at once, and check all books since the first example."""
        names = uuid4()
        await self.runtime.executor.execute_many([_opening(names, number) for number in range(ACCOUNTS)])
        await self.runtime.executor.execute_many([_funding(names, number) for number in range(1, ACCOUNTS - 1)])
        for group in given_groups:
            commands = [_command(names, *step[:-1]) for step in group]
            keys = [None if step[-1] is None else f"{names}{step[-1]}" for step in group]
            results = await self.runtime.executor.execute_many(commands, keys=keys)
            for command, result in zip(commands, results, strict=True):
                assert isinstance(result, CommandResult | Rejected), (command, result)
                self.outcomes[type(command).__name__] += isinstance(result, CommandResult) and result.appended
        report = await check_books(self.runtime, documents=False)
        assert report.violations == [], msgspec.json.format(msgspec.json.encode(report.violations)).decode()


def _opening(names: UUID, number: int) -> OpenAccount:
    kind: Any = "asset" if number == 0 else "liability"
    limit = None if number == 0 else 20 * number
    account_id = _id(names, "account", number)
    return OpenAccount(account_id=account_id, name="a", type=kind, currency="EUR", overdraft_limit=limit)


def _funding(names: UUID, number: int) -> PostTransfer:
    return PostTransfer(
        transfer_id=_id(names, "funding", number),
        debit_account_id=_id(names, "account", 0),
        credit_account_id=_id(names, "account", number),
        amount=50,
        currency="EUR",
    )


def _id(names: UUID, what: str, number: int) -> UUID:
    return uuid5(names, f"{what} {number}")


def _command(names: UUID, kind: str, one: int, away: int, transfer: int, amount: int) -> Command:
    other = (one + away) % ACCOUNTS
    account_id, other_id = _id(names, "account", one), _id(names, "account", other)
    transfer_id, original_id = _id(names, "transfer", transfer), _id(names, "transfer", transfer // 2)
    hold_id = _id(names, "transfer", transfer // 5)
    sides: dict[str, Any] = {"debit_account_id": account_id, "credit_account_id": other_id, "currency": "EUR"}
    post = PostTransfer(transfer_id=transfer_id, amount=amount, **sides)
    match kind:
        case "post":
            return post
        case "enter":
            third = EntryLeg(_id(names, "account", (other + 1) % ACCOUNTS), "credit", amount)
            legs = (EntryLeg(account_id, "debit", 2 * amount), EntryLeg(other_id, "credit", amount), third)
            return PostEntry(entry_id=transfer_id, legs=legs, currency="EUR")
        case "hold":
            seconds = None if amount == 1 else 3_600
            return PlaceHold(hold_id=hold_id, amount=amount, expires_in_seconds=seconds, **sides)
        case "capture":
            return CaptureHold(hold_id=hold_id, amount=amount or None)
        case "void":
            return VoidHold(hold_id=hold_id)
        case "expire":
            return ExpireHold(hold_id=hold_id)
        case "reverse":
            return ReverseTransfer(transfer_id=original_id, reversal_id=transfer_id, amount=amount or None)
        case "batch":
            return PostBatch(transfers=(post, msgspec.structs.replace(post, transfer_id=original_id)))
        case "limit":
            return SetOverdraftLimit(account_id=account_id, overdraft_limit=amount)
        case "describe":
            return SetAccountMetadata(account_id=account_id, metadata={"amount": str(amount)})
    return {"freeze": FreezeAccount, "unfreeze": UnfreezeAccount, "close": CloseAccount}[kind](account_id=account_id)


@pytest.fixture(scope="module")
def bench(postgres_server: PostgresServer) -> Iterator[Bench]:
    """The ledger at work; in the end commands of nearly every kind have had an effect."""
    dsn = postgres_server.create_database()
    bench = Bench(dsn)
    with bench.runner:
        bench.runner.run(bench.open())
        yield bench
        bench.runner.run(bench.stack.aclose())
    postgres_server.drop_database(dsn)
    without_effect = {name for name, count in bench.outcomes.items() if count == 0}
    assert without_effect <= {"CloseAccount", "ExpireHold"}, bench.outcomes


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # what was found stays in the log, so nothing can be shrunk
)
@given(given_groups=groups)
def test_the_check_finds_nothing_in_what_commands_have_written(bench: Bench, given_groups: list[list[Step]]) -> None:
    bench.runner.run(bench.run(given_groups))
