"""What is written while measuring: events of a log, and the ledger's accounts and transfers."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

from cqrskit import Executor
from cqrskit.events import NewEvent
from cqrskit.identifiers import new_id
from example_ledger.accounts import OpenAccount
from example_ledger.transfers import PostTransfer

__all__ = [
    "EVENTS_PER_STREAM",
    "METADATA",
    "PAYLOAD",
    "TYPE",
    "event_batches",
    "open_accounts",
    "payload_of",
    "transfers",
]

EVENTS_PER_STREAM = 10
TYPE = "Account.Credited"
METADATA = b'{"command":"PostTransfer"}'
PAYLOAD = b'{"transfer_id":"%s","amount":1250,"currency":"EUR","text":"'
PAYLOAD_BYTES = 200
FUNDS = 10**12
TOO_MUCH = 10**15
"""More than any account has: a transfer of so much is refused."""
CHUNK = 1_000


def payload_of(stream_id: UUID) -> bytes:
    """An event's data, 200 bytes of JSON."""
    begin = PAYLOAD % str(stream_id).encode()
    return begin + b"x" * (PAYLOAD_BYTES - len(begin) - 2) + b'"}'


def event_batches(batches: int, size: int) -> list[list[NewEvent]]:
    """Batches of new events, each of streams of its own, ten events in each, with the ids that new things get."""
    moment = datetime.now(UTC)
    found = []
    for _ in range(batches):
        streams = [(each, payload_of(each)) for each in (new_id() for _ in range(-(-size // EVENTS_PER_STREAM)))]
        events = [
            NewEvent(stream_id, version, TYPE, data, METADATA, moment)
            for version in range(1, EVENTS_PER_STREAM + 1)
            for stream_id, data in streams
        ]
        found.append(events[:size])
    return found


async def open_accounts(executor: Executor, count: int) -> list[UUID]:
    """Open accounts that may be overdrawn by much, but not by `TOO_MUCH`; their ids."""
    ids = [uuid4() for _ in range(count)]
    for begin in range(0, count, CHUNK):
        commands = [
            OpenAccount(account_id=each, name="an account", type="liability", currency="EUR", overdraft_limit=FUNDS)
            for each in ids[begin : begin + CHUNK]
        ]
        for result in await executor.execute_many(commands):
            if isinstance(result, Exception):
                raise result
    return ids


def transfers(accounts: list[UUID], *, seed: int, refused_share: float = 0.0) -> Iterator[PostTransfer]:
    """Transfers between accounts picked at random; of each so many in a hundred ask for more than there is."""
    random_number = random.Random(seed)
    while True:
        debit, credit = random_number.sample(accounts, 2)
        amount = TOO_MUCH if random_number.random() < refused_share else random_number.randint(1, 1_000)
        yield PostTransfer(debit_account_id=debit, credit_account_id=credit, amount=amount, currency="EUR")
