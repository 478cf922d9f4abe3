"""Movements of money between accounts: what all commands that move or hold it have in common."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec

from cqrskit import InvalidField, Repository
from example_ledger.accounts import Account
from example_ledger.money import AMOUNT_MAX, Direction, opposite_of
from example_ledger.refusals import AccountClosed, AccountFrozen, AccountNotFound, CurrencyMismatch, InvalidAmount

__all__ = [
    "EFFECTIVE_MAX",
    "EFFECTIVE_MIN",
    "YEARS",
    "Moment",
    "Movement",
    "check_amount",
    "check_moment",
    "check_room",
    "find_accounts",
    "move_all",
    "movements_between",
]

EFFECTIVE_MIN = datetime(1970, 1, 1, tzinfo=UTC)
EFFECTIVE_MAX = datetime(2261, 12, 31, tzinfo=UTC)
"""Read models search moments from 1970 to 2261."""
YEARS = "^(19[7-9][0-9]|2(0[0-9]|1[0-9]|2[0-5])[0-9]|226[01])-"
"""These years, for the description of the API."""

Moment = Annotated[
    datetime,
    msgspec.Meta(
        tz=True,
        description="RFC 3339 with a time zone, from 1970 to 2261",
        examples=["2026-01-31T12:00:00Z"],
        extra_json_schema={"pattern": YEARS},
    ),
]
Movement = tuple[Direction, Account, int]
"""One leg of a decision: on which side of which account how much moves, in minor units."""


def check_moment(effective_at: datetime | None) -> None:
    """InvalidField for a moment that read models cannot search."""
    if effective_at is not None and not EFFECTIVE_MIN <= effective_at <= EFFECTIVE_MAX:
        raise InvalidField("effective_at", f"must be from {EFFECTIVE_MIN:%Y-%m-%d} to {EFFECTIVE_MAX:%Y-%m-%d}")


def check_amount(amount: int) -> None:
    """InvalidAmount for what no transfer can move."""
    if not 1 <= amount <= AMOUNT_MAX:
        raise InvalidAmount(amount)


def find_accounts(account_ids: Iterable[UUID], currency: str, repository: Repository) -> list[Account]:
    """The accounts that take part in a movement, in this order, each checked to be able to.

    AccountNotFound, CurrencyMismatch, AccountClosed, AccountFrozen: the first of them that fits any account. Every
    command that moves or holds money comes through here, whereas a release of what was held does not.
    """
    accounts = [_account(account_id, repository) for account_id in account_ids]
    for account in accounts:
        if account.currency != currency:
            raise CurrencyMismatch(account.id, account.currency, currency)
    blocked = [account for account in accounts if account.status != "open"]
    for account in blocked:
        if account.status == "closed":
            raise AccountClosed(account.id)
    if blocked:
        raise AccountFrozen(blocked[0].id)
    return accounts


def _account(account_id: UUID, repository: Repository) -> Account:
    account = repository.find(Account, account_id)
    if account is None:
        raise AccountNotFound(account_id)
    return account


def movements_between(debited: Account, credited: Account, amount: int) -> list[Movement]:
    """The two legs of a simple transfer."""
    return [("debit", debited, amount), ("credit", credited, amount)]


def check_room(movements: Sequence[Movement]) -> None:
    """InsufficientFunds, AmountOverflow. An account with several legs is asked for their sum."""
    sums = movements if len(movements) == 2 else _sums(movements)
    for direction, account, amount in sums:
        if direction == "debit":
            account.check_funds(debit=amount)
        else:
            account.check_funds(credit=amount)
    for direction, account, amount in sums:
        if direction == "debit":
            account.check_counters(debit=amount)
        else:
            account.check_counters(credit=amount)


def _sums(movements: Sequence[Movement]) -> list[Movement]:
    sums: defaultdict[tuple[UUID, Direction], int] = defaultdict(int)
    accounts: dict[UUID, Account] = {}
    for direction, account, amount in movements:
        accounts[account.id] = account
        sums[account.id, direction] += amount
    return [(direction, accounts[account_id], amount) for (account_id, direction), amount in sums.items()]


def move_all(
    movements: Sequence[Movement], *, transfer_id: UUID, effective_at: datetime, description: str | None
) -> None:
    """Move the money of all legs. The counterparty of a leg is the only account on the other side, if there is one."""
    counterparties = _counterparties(movements)
    for direction, account, amount in movements:
        account.move(
            direction,
            amount,
            transfer_id=transfer_id,
            counterparty=counterparties[direction],
            effective_at=effective_at,
            description=description,
        )


def _counterparties(movements: Sequence[Movement]) -> dict[Direction, UUID | None]:
    """Whom the legs of each side have on the other one; None: several."""
    if len(movements) == 2:
        (first, one, _), (second, other, _) = movements
        return {first: other.id, second: one.id}
    sides: dict[Direction, set[UUID]] = {"debit": set(), "credit": set()}
    for direction, account, _ in movements:
        sides[opposite_of(direction)].add(account.id)
    return {direction: ids.pop() if len(ids) == 1 else None for direction, ids in sides.items()}
