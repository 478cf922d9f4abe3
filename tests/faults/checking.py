"""One check for all fault tests: the log tells what the callers were told."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from cqrskit import Runtime, Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger
from example_ledger.checking import CheckReport, check_books
from example_ledger.transfers import PostTransfer
from tests.faults.books import Books
from tests.faults.told import Answer, Attempt, Told

__all__ = [
    "Row",
    "assert_books_and_documents_in_order",
    "assert_books_in_order",
    "assert_log_tells_what_callers_were_told",
    "head_of",
    "read_log",
    "replayed",
]

WAIT_SECONDS = 60.0


class Row(msgspec.Struct, frozen=True):
    """One event as the database has it."""

    position: int
    stream_id: UUID
    stream_version: int
    type: str
    data: dict[str, Any]


def head_of(dsn: str) -> int:
    """The log's head, read past cqrskit."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT position FROM log_head").fetchone()
    assert row is not None
    return int(row[0])


def read_log(dsn: str, after: int = 0) -> list[Row]:
    """The log after a position, read past cqrskit. Streams must have begun after it."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT position, stream_id, stream_version, type, data FROM events WHERE position > %s ORDER BY position",
            (after,),
        ).fetchall()
    rows = [
        Row(position, stream_id, version, kind, json.loads(data)) for position, stream_id, version, kind, data in found
    ]
    assert [row.position for row in rows] == list(range(after + 1, after + len(rows) + 1)), "positions have gaps"
    head = head_of(dsn)
    assert head == after + len(rows), f"the head is {head}, the log has {len(rows)} events after {after}"
    versions: dict[UUID, int] = {}
    for row in rows:
        assert row.stream_version == versions.get(row.stream_id, 0) + 1, f"a gap in a stream: {row}"
        versions[row.stream_id] = row.stream_version
    return rows


async def assert_log_tells_what_callers_were_told(dsn: str, told: Sequence[Told]) -> None:
    """Acknowledged: once in the log, where the reply says. Refused: no trace. Unknown: once or not at all.

    Besides: the log is what a single-threaded model accepts in this order, every refusal is what that model said
    at some moment while its caller waited, what was acknowledged comes after all that was acknowledged before it
    was sent, answers to one key agree, and the ledger's own check finds its books in order.
    """
    books = replayed(read_log(dsn), {each.command.transfer_id: each.command for each in told})
    order = _Order(told)
    for each in told:
        _check_answers_agree(each)
        _check_against_log(each, books, order)
    await assert_books_in_order(dsn)


async def assert_books_in_order(dsn: str, *, but_for: Collection[str] = ()) -> None:
    """The ledger's own check of log and receipts finds nothing `but_for` kinds that a test's own commands cause."""
    async with ledger.open(Settings(database_url=dsn), executor=False) as runtime:
        report = await check_books(runtime, documents=False)
    assert report.events > 0, "there are no books"
    assert report.counts.keys() <= {*but_for}, report.violations


async def assert_books_and_documents_in_order(runtime: Runtime) -> CheckReport:
    """The ledger's own check finds nothing, in the read models neither once they have caught up; what it looked at."""
    head = await runtime.event_store.head()

    async def level() -> bool:
        return all(status.visible_position >= head for status in await runtime.status(count_documents=False))

    await eventually(level, timeout_seconds=WAIT_SECONDS)
    report = await check_books(runtime)
    assert report.violations == []
    return report


def replayed(rows: Iterable[Row], commands: dict[UUID, PostTransfer]) -> Books:
    """The model after it has taken the log in order and refused none of it."""
    books = Books()
    for row in rows:
        if row.type == "Account.Opened":
            books.open(
                row.stream_id,
                row.position,
                debit_normal=row.data["type"] == "asset",
                limit=row.data["overdraft_limit"],
            )
        elif row.type == "Transfer.Posted":
            assert row.stream_id in commands, f"nobody sent transfer {row.stream_id} at {row.position}"
            command = commands[row.stream_id]
            content = (row.data["debit_account_id"], row.data["credit_account_id"], row.data["amount"])
            assert content == (str(command.debit_account_id), str(command.credit_account_id), command.amount)
            refusal = books.refusal(command)
            assert refusal is None, f"the log has {command} at {row.position}, which the model refuses: {refusal}"
            books.post(command, row.position)
    return books


def _check_answers_agree(told: Told) -> None:
    final: Answer | None = None
    may_be_in_log = False
    for attempt in told.attempts:
        answer = attempt.answer
        if answer is not None and answer.is_final:
            if final is None:
                assert not answer.replayed or may_be_in_log, f"a first reply is called a replay: {told}"
                final = answer
            else:
                assert answer == msgspec.structs.replace(final, replayed=final.kind == "acknowledged"), told
        may_be_in_log |= attempt.may_have_taken_effect


def _check_against_log(told: Told, books: Books, order: "_Order") -> None:
    position = books.transfers.get(told.command.transfer_id)
    final = told.final
    if position is not None:
        cause = next((each for each in told.attempts if each.may_have_taken_effect), None)
        assert cause is not None, f"it changed nothing, its callers were told, but it is at {position}: {told}"
        assert position > order.last_before(cause), f"position {position} is older than what came before: {told}"
    if final is None:
        return
    if final.kind == "acknowledged":
        assert position == final.position, f"told {final.position}, the log has {position}: {told}"
        return
    assert position is None, f"it was refused, but the log has it at {position}: {told}"
    window = order.last_before(told.attempts[0]), order.first_after(told)
    found = books.refusals_between(told.command, *window)
    expected = {None if refusal is None else (refusal.code, refusal.available) for refusal in found}
    assert (final.code, final.details.get("available", 0)) in expected, f"{told} {window} the model: {expected}"


class _Order:
    """What was acknowledged before what was sent, by the clock of the callers."""

    def __init__(self, told: Iterable[Told]) -> None:
        ends: list[tuple[float, int]] = []
        begins: list[tuple[float, int]] = []
        for each in told:
            final = each.final
            if final is None or final.kind != "acknowledged":
                continue
            end = next(attempt.ended for attempt in each.attempts if attempt.answer == final)
            assert end is not None
            ends.append((end, final.position))
            cause = next(attempt for attempt in each.attempts if attempt.may_have_taken_effect)
            begins.append((cause.begun, final.position))
        ends.sort()
        begins.sort()
        self._ended, self._begun = [time for time, _ in ends], [time for time, _ in begins]
        self._highest: list[int] = []
        for _, position in ends:
            self._highest.append(max(position, self._highest[-1] if self._highest else 0))
        self._lowest: list[float] = []
        for _, position in reversed(begins):
            self._lowest.append(min(position, self._lowest[-1] if self._lowest else float("inf")))
        self._lowest.reverse()

    def last_before(self, attempt: Attempt) -> int:
        """The highest position that was acknowledged to anybody before this attempt began."""
        place = bisect_left(self._ended, attempt.begun)
        return self._highest[place - 1] if place else 0

    def first_after(self, told: Told) -> float:
        """The lowest position of what was sent only after this command was settled; infinite if there is none."""
        settled = next(each.ended for each in told.attempts if each.answer == told.final)
        assert settled is not None
        place = bisect_right(self._begun, settled)
        return self._lowest[place] if place < len(self._lowest) else float("inf")
