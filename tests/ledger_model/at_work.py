"""The ledger on real servers: executors side by side on one log, and projections of it."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from structlog.testing import capture_logs

from cqrskit import (
    Command,
    CommandResult,
    CqrskitError,
    Executor,
    Query,
    Repository,
    Runtime,
    Settings,
    Term,
    Terms,
    handles,
)
from cqrskit.commands import HandlerRegistry
from cqrskit.due_commands import DueCommandRunner
from example_ledger.accounts import Account
from example_ledger.application import ledger
from example_ledger.checking import CheckReport, check_books
from tests.ledger_model.words import BEGIN

__all__ = ["LedgerAtWork", "Look", "Loop", "Seen"]

T = TypeVar("T")
BATCH_SIZES = (1, 4, 1_000)
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")


class Look(Command):
    """Tell what an account has, and change nothing."""

    account_id: UUID


class Seen(msgspec.Struct, frozen=True):
    """What an aggregate in memory has."""

    counters: dict[str, int]
    status: str
    overdraft_limit: int | None
    metadata: dict[str, str]


@handles(Look)
def look(command: Look, repository: Repository) -> Seen:
    """Look."""
    account = repository.get(Account, command.account_id)
    counters = {name: getattr(account, name) for name in COUNTERS}
    return Seen(counters, account.status, account.overdraft_limit, account.metadata)


class Loop:
    """An event loop that stands still between two calls."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it, and what else goes on in the loop; nothing of that may fail meanwhile."""
        with capture_logs() as logged:
            result = self.runner.run(work)
        assert [each for each in logged if each["log_level"] not in ("debug", "info")] == []
        return result


class LedgerAtWork(Loop):
    """Executors that take batches of different sizes, as those of several servers; and one worker with all projections.

    `now` is the time that all of them know.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.now: datetime = BEGIN
        self.executors: list[Executor] = []
        self._stack = AsyncExitStack()
        self._runtime: Runtime
        self._due: DueCommandRunner
        own = [ledger.handlers._handlers[each] for each in ledger.handlers.command_classes]
        self._handlers = HandlerRegistry([look, *own])

    async def open(self) -> None:
        """Begin."""
        names = [each.name for each in ledger.projections]
        self._runtime = await self._stack.enter_async_context(
            ledger.open(self.settings, executor=False, projections=names)
        )
        for size in BATCH_SIZES:
            self.executors.append(await self._executor(size))
        self._due = DueCommandRunner(
            self._runtime.due_commands, self.executors[1], self._handlers, self.settings, clock=lambda: self.now
        )

    async def close(self) -> None:
        """End."""
        await self._stack.aclose()

    async def _executor(self, batch_size_max: int) -> Executor:
        settings = msgspec.structs.replace(
            self.settings, batch_size_max=batch_size_max, connections_max=2, snapshot_every_events=20
        )
        runtime = await self._stack.enter_async_context(ledger.open(settings, executor=False))
        executor = Executor(
            runtime.event_store,
            ledger.registry,
            self._handlers,
            settings,
            snapshots=ledger.snapshots,
            clock=lambda: self.now,
        )
        await executor.start()
        self._stack.push_async_callback(executor.stop)
        return executor

    async def together(
        self, place: int, commands: Sequence[Command], keys: Sequence[str | None]
    ) -> list[CommandResult | CqrskitError]:
        """Give all of them to one executor at once."""
        return await self.executors[place].execute_many(commands, keys=keys)

    async def side_by_side(
        self, place: int, commands: Sequence[Command], keys: Sequence[str | None]
    ) -> list[CommandResult | CqrskitError]:
        """Give each to one executor without waiting for those before."""

        async def give(command: Command, key: str | None) -> CommandResult | CqrskitError:
            try:
                return await self.executors[place].execute(command, key=key)
            except CqrskitError as error:
                return error

        return await asyncio.gather(*map(give, commands, keys))

    async def end_holds(self) -> None:
        """So much later all holds that will be over are."""
        self.now += timedelta(days=10_000)
        await self.run_due()

    async def run_due(self) -> None:
        """Run all commands whose time has come."""
        while await self._due.run_due():
            pass

    async def due(self) -> dict[str, datetime]:
        """The commands that wait for their time, by their keys."""
        rows = await self._runtime.due_commands.list_all(only_parked=False, count_max=10_000)
        return {each.key: each.due_at for each in rows}

    async def head(self) -> int:
        """The position of the last event."""
        return await self._runtime.event_store.head()

    async def counters_after(self, position: int) -> dict[UUID, dict[str, int]]:
        """The last counters of each account that has an event after a position, as they are stored."""
        found: dict[UUID, dict[str, int]] = {}
        head = await self.head()
        while position < head:
            block = await self._runtime.event_store.read(position, 1_000)
            for event in block.events:
                position += 1
                assert event.position == position
                data = json.loads(event.data)
                if "debits_posted" in data:
                    found[event.stream_id] = {name: data[name] for name in COUNTERS}
            assert block.until == position
        return found

    async def looks(self, place: int, account_ids: Sequence[UUID]) -> list[Seen]:
        """What accounts have in an executor's memory."""
        results = await self.executors[place].execute_many([Look(account_id=each) for each in account_ids])
        for result in results:
            assert isinstance(result, CommandResult), result
        return [result.reply for result in results if isinstance(result, CommandResult)]

    async def documents(
        self, account_ids: Sequence[UUID], currencies: Sequence[str], position: int
    ) -> dict[str, list[Any]]:
        """All documents of these accounts and currencies, once they show everything up to a position."""
        of_accounts, of_currencies = Terms("account_id", account_ids), Terms("currency", currencies)
        found = {}
        for projection in ledger.projections:
            by_account = projection.name in ("statement_lines", "daily_totals")
            found[projection.name] = await self._all(projection, of_accounts if by_account else of_currencies, position)
        return found

    async def _all(self, projection: Any, where: Term | Terms, position: int) -> list[Any]:
        rows: list[Any] = []
        cursor = None
        while True:
            query = Query(where=where, limit=1_000, cursor=cursor)
            answer = await self._runtime.reader.search(projection, query, min_position=position)
            assert not answer.stale
            rows += [each.document for each in answer.value.items]
            cursor = answer.value.next
            if cursor is None:
                return rows

    async def check(self) -> CheckReport:
        """What ``ledger check`` says."""
        head = await self.head()
        for projection in ledger.projections:
            await self._runtime.reader.search(projection, Query(limit=1), min_position=head)
        return await check_books(self._runtime)
