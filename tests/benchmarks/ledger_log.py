"""Logs of the ledger, written straight into the table: a million events in some ten seconds.

They are what commands would have written: `check_books` finds nothing wrong with them, which a test holds.
"""

import itertools
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from cqrskit.events import NewEvent
from example_ledger.accounts import Account
from example_ledger.transfers import Transfer
from tests.benchmarks.peers.raw_copy import COLUMNS, copy_bytes

__all__ = ["EVENTS_PER_TRANSFER", "fill_with_one_account", "fill_with_transfers"]

EVENTS_PER_TRANSFER = 3
COPY = f"COPY events {COLUMNS} FROM STDIN (FORMAT BINARY)"
CHUNK = 20_000
METADATA = b'{"command":"PostTransfer"}'
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PACE = timedelta(milliseconds=3)
_encode = msgspec.json.Encoder().encode


class _Counters(msgspec.Struct):
    """An account while its events are made."""

    id: UUID
    version: int = 1
    debits: int = 0
    credits: int = 0


def fill_with_transfers(url: str, *, accounts: int, events: int, zipf: float = 1.0) -> list[UUID]:
    """Fill an empty log with at least so many events: accounts, then transfers among them. The accounts' ids.

    Account number n takes part as often as 1 / n**zipf says; with 0 all do alike.
    """
    randomness = random.Random(1)
    books = [_Counters(UUID(int=randomness.getrandbits(128), version=4)) for _ in range(accounts)]
    count = -(-max(events - accounts, 0) // EVENTS_PER_TRANSFER)
    _copy(url, itertools.chain(map(_opened, books), _transfers(books, count, zipf, randomness)))
    return [each.id for each in books]


def fill_with_one_account(url: str, *, events: int) -> UUID:
    """Fill an empty log with the events of a single account that takes part in every transfer."""
    randomness = random.Random(1)
    account = _Counters(UUID(int=1, version=4))
    other = _Counters(UUID(int=2, version=4))
    credits_ = (
        _moved(Account.Credited, account, other, _id(randomness), 1_250, BEGIN + number * PACE)
        for number in range(events - 1)
    )
    _copy(url, itertools.chain([_opened(account)], credits_))
    return account.id


def _opened(account: _Counters) -> NewEvent:
    opened = Account.Opened(name="an account", type="liability", currency="EUR", overdraft_limit=None, metadata={})
    return _event(account.id, 1, opened, BEGIN)


def _transfers(books: list[_Counters], count: int, zipf: float, randomness: random.Random) -> Iterator[NewEvent]:
    weights = list(itertools.accumulate(1 / rank**zipf for rank in range(1, len(books) + 1)))
    for number in range(count):
        debited, credited = randomness.choices(books, cum_weights=weights, k=2)
        while credited is debited:
            credited = randomness.choices(books, cum_weights=weights)[0]
        transfer_id, amount, moment = _id(randomness), randomness.randint(1, 100_000), BEGIN + number * PACE
        yield _moved(Account.Debited, debited, credited, transfer_id, amount, moment)
        yield _moved(Account.Credited, credited, debited, transfer_id, amount, moment)
        posted = Transfer.Posted(
            debit_account_id=debited.id,
            credit_account_id=credited.id,
            amount=amount,
            currency="EUR",
            effective_at=moment,
            description=_description(amount),
            reference=None,
            metadata={},
        )
        yield _event(transfer_id, 1, posted, moment)


def _moved(
    kind: type[Account.Debited] | type[Account.Credited],
    account: _Counters,
    other: _Counters,
    transfer_id: UUID,
    amount: int,
    moment: datetime,
) -> NewEvent:
    account.version += 1
    if kind is Account.Debited:
        account.debits += amount
    else:
        account.credits += amount
    moved = kind(
        transfer_id=transfer_id,
        amount=amount,
        currency="EUR",
        account_type="liability",
        counterparty_account_id=other.id,
        effective_at=moment,
        debits_posted=account.debits,
        credits_posted=account.credits,
        debits_pending=0,
        credits_pending=0,
        description=_description(amount),
    )
    return _event(account.id, account.version, moved, moment)


def _description(amount: int) -> str:
    return f"invoice {amount}"


def _id(randomness: random.Random) -> UUID:
    return UUID(int=randomness.getrandbits(128), version=4)


def _event(stream_id: UUID, version: int, event: Any, moment: datetime) -> NewEvent:
    return NewEvent(stream_id, version, event.stored_name, _encode(event), METADATA, moment)


def _copy(url: str, events: Iterable[NewEvent]) -> None:
    position = 0
    with psycopg.connect(url, autocommit=True) as connection:
        source = iter(events)
        while part := list(itertools.islice(source, CHUNK)):
            with connection.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.write(copy_bytes(part, position + 1))
            position += len(part)
        connection.execute("UPDATE log_head SET position = %s", (position,))
        connection.execute("VACUUM (ANALYZE) events")
        connection.execute("CHECKPOINT")
