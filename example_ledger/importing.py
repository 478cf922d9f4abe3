"""Importing a file of transfers: the good rows are posted once, the bad ones are named."""

import asyncio
import csv
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from cqrskit import AggregateExists, CommandResult, CqrskitError, Executor, Rejected
from example_ledger.account_commands import FindMissingAccounts
from example_ledger.accounts import OpenAccount
from example_ledger.files import BadRow, Row, RowReader, type_named_by
from example_ledger.refusals import AccountNotFound

__all__ = ["ImportReport", "import_file", "rejected_file_of"]

CHUNK_SIZE = 1_000
CHUNKS_IN_FLIGHT = 3

Result = CommandResult | CqrskitError


class ImportReport(msgspec.Struct):
    """What an import has done so far. `position` is the log's last position that it rests on."""

    rows: int = 0
    posted: int = 0
    replayed: int = 0
    rejected: int = 0
    accounts_opened: int = 0
    accounts_missing: int = 0
    position: int = 0
    seconds: float = 0.0
    rejected_file: str | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows decided in each second."""
        return self.rows / self.seconds if self.seconds else 0.0


class _Chunk(msgspec.Struct):
    """Rows under way: the accounts to open before them, and the future results of both."""

    rows: Sequence[Row | BadRow]
    openings: "asyncio.Future[list[Result]] | None"
    transfers: "asyncio.Future[list[Result]]"


def rejected_file_of(path: Path) -> Path:
    """Where the rejected rows of a file are named: ``FILE.rejected.csv`` beside it."""
    return path.with_name(f"{path.name}.rejected.csv")


async def import_file(
    reader: RowReader,
    executor: Executor,
    *,
    open_accounts: bool,
    on_progress: Callable[[ImportReport], None] = lambda _: None,
) -> ImportReport:
    """Post the rows in order, some thousand under way at once. Raises CqrskitError when the work cannot go on.

    With `open_accounts`, accounts are opened when a row first names them, without overdraft limit, with the type that
    their name begins with. Without it, a row that names an account which does not exist is not given to the executor:
    so its id stays free, and it is posted by a later import, once its accounts are there. What was posted before an
    error stays posted; the next import of the file passes it over.
    """
    work = _Import(reader, executor, open_accounts, on_progress)
    return await work.run()


def _accounts_of(row: Row) -> tuple[tuple[UUID, str], tuple[UUID, str]]:
    """Both accounts, each with the name that the row gives it: one id may be spelt in several ways."""
    transfer = row.transfer
    return (transfer.debit_account_id, row.debit_account), (transfer.credit_account_id, row.credit_account)


class _Import:
    def __init__(
        self,
        reader: RowReader,
        executor: Executor,
        open_accounts: bool,
        on_progress: Callable[[ImportReport], None],
    ) -> None:
        self._reader = reader
        self._executor = executor
        self._open_accounts = open_accounts
        self._on_progress = on_progress
        self._report = ImportReport()
        self._named: set[UUID] = set()
        self._missing: set[UUID] = set()
        self._rejected: list[BadRow] = []
        self._begun = time.monotonic()

    async def run(self) -> ImportReport:
        under_way: deque[_Chunk] = deque()
        rows = iter(self._reader)
        try:
            while chunk := list(itertools.islice(rows, CHUNK_SIZE)):
                if not self._open_accounts:
                    chunk = await self._without_missing_accounts(chunk)
                under_way.append(self._submit(chunk))
                await asyncio.sleep(0)
                if len(under_way) > CHUNKS_IN_FLIGHT:
                    await self._finish(under_way.popleft())
            while under_way:
                await self._finish(under_way.popleft())
        finally:
            for waiting in under_way:
                waiting.transfers.cancel()
                if waiting.openings is not None:
                    waiting.openings.cancel()
            self._write_rejected()
        return self._report

    async def _without_missing_accounts(self, rows: Sequence[Row | BadRow]) -> list[Row | BadRow]:
        """Take out the rows that would be refused for their accounts, which would be remembered for good."""
        named = {account_id for row in rows if isinstance(row, Row) for account_id, _ in _accounts_of(row)}
        new = named - self._named
        if new:
            result = await self._executor.execute(FindMissingAccounts(account_ids=tuple(new)))
            self._missing.update(result.reply)
            self._named |= new
            self._report.accounts_missing = len(self._missing)
        return [self._checked(row) for row in rows] if self._missing else list(rows)

    def _checked(self, row: Row | BadRow) -> Row | BadRow:
        if isinstance(row, Row):
            for account_id, name in _accounts_of(row):
                if account_id in self._missing:
                    return BadRow(row.line, AccountNotFound.code, f"there is no account {name!r}: open it first")
        return row

    def _submit(self, rows: Sequence[Row | BadRow]) -> _Chunk:
        """Hand a chunk to the executor, which decides in the order in which it is given commands."""
        good = [row for row in rows if isinstance(row, Row)]
        openings = None
        if self._open_accounts:
            commands = list(self._openings(good))
            if commands:
                openings = asyncio.ensure_future(self._executor.execute_many(commands))
        transfers = asyncio.ensure_future(self._executor.execute_many([row.transfer for row in good]))
        return _Chunk(rows, openings, transfers)

    def _openings(self, rows: Iterable[Row]) -> Iterable[OpenAccount]:
        for row in rows:
            for account_id, name in _accounts_of(row):
                if account_id not in self._named:
                    self._named.add(account_id)
                    yield OpenAccount(
                        account_id=account_id,
                        name=name[:200],
                        type=type_named_by(name),
                        currency=row.transfer.currency,
                        overdraft_limit=None,
                    )

    async def _finish(self, chunk: _Chunk) -> None:
        if chunk.openings is not None:
            for result in await chunk.openings:
                self._note_opening(result)
        results = iter(await chunk.transfers)
        for row in chunk.rows:
            self._report.rows += 1
            if isinstance(row, BadRow):
                self._reject(row)
            else:
                self._note_transfer(row, next(results))
        self._report.seconds = time.monotonic() - self._begun
        self._on_progress(self._report)

    def _note_opening(self, result: Result) -> None:
        if isinstance(result, CommandResult):
            self._report.accounts_opened += result.appended
            self._report.position = max(self._report.position, result.position)
        elif not isinstance(result, AggregateExists):  # opened otherwise before: then its transfers tell what fits
            raise result

    def _note_transfer(self, row: Row, result: Result) -> None:
        if isinstance(result, Rejected):
            self._reject(BadRow(row.line, result.code, str(result)))
        elif isinstance(result, CqrskitError):
            raise result
        else:
            self._report.replayed += not result.appended
            self._report.posted += result.appended
            self._report.position = max(self._report.position, result.position)

    def _reject(self, row: BadRow) -> None:
        self._report.rejected += 1
        self._rejected.append(row)

    def _write_rejected(self) -> None:
        """Name the rejected rows in a file of their own; remove that of an earlier import where there are none."""
        path = rejected_file_of(self._reader.path)
        if not self._rejected:
            path.unlink(missing_ok=True)
            return
        beside = path.with_name(path.name + ".part")
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("line", "code", "message"))
            writer.writerows(
                (row.line, row.code, row.message.encode("utf-8", "replace").decode()) for row in self._rejected
            )
        beside.replace(path)
        self._report.rejected_file = str(path)
