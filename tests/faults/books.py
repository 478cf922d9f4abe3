"""The ledger in a few lines of plain Python, one transfer after another: what the real one must agree with."""

from bisect import bisect_left, bisect_right
from uuid import UUID

import msgspec

from example_ledger.transfers import PostTransfer

__all__ = ["Books", "Refusal"]


class Refusal(msgspec.Struct, frozen=True):
    """Why the model says no; `available` is what the account had."""

    code: str
    available: int = 0


class Books:
    """Accounts, and what each had at every position. A limit counts for credit-normal ones, whose debits it bounds."""

    def __init__(self) -> None:
        self.transfers: dict[UUID, int] = {}
        self._signs: dict[UUID, int] = {}
        self._limits: dict[UUID, int | None] = {}
        self._positions: dict[UUID, list[int]] = {}
        self._balances: dict[UUID, list[int]] = {}

    def open(self, account: UUID, position: int, *, debit_normal: bool, limit: int | None) -> None:
        """A new account with nothing in it, which may be overdrawn by `limit`; None: as far as one likes."""
        self._signs[account] = 1 if debit_normal else -1
        self._positions[account], self._balances[account] = [position], [0]
        self._limits[account] = limit

    def balance(self, account: UUID) -> int:
        """What an account has after the last transfer."""
        return self._balances[account][-1]

    def refusal(self, command: PostTransfer, debit_balance: int | None = None) -> Refusal | None:
        """Why this transfer would be refused now, or if its debit account had so much; None if it would be posted."""
        debit, credit = command.debit_account_id, command.credit_account_id
        if command.amount < 1:
            return Refusal("invalid_amount")
        if debit == credit:
            return Refusal("same_account")
        if debit not in self._signs or credit not in self._signs:
            return Refusal("account_not_found")
        available = self.balance(debit) if debit_balance is None else debit_balance
        limit = self._limits[debit]
        if self._signs[debit] < 0 and limit is not None and available - command.amount < -limit:
            return Refusal("insufficient_funds", available)
        return None

    def post(self, command: PostTransfer, position: int) -> None:
        """Take a transfer as the next one."""
        self.transfers[command.transfer_id] = position
        self._move(command.debit_account_id, command.amount, position)
        self._move(command.credit_account_id, -command.amount, position)

    def _move(self, account: UUID, debit: int, position: int) -> None:
        self._balances[account].append(self.balance(account) + debit * self._signs[account])
        self._positions[account].append(position)

    def refusals_between(self, command: PostTransfer, first: int, last: float) -> set[Refusal | None]:
        """What the model would have said to a command at each position of the log from `first` on, before `last`."""
        positions = self._positions.get(command.debit_account_id)
        if positions is None:
            return {self.refusal(command)}
        begin = max(bisect_right(positions, first) - 1, 0)
        end = bisect_left(positions, last)
        return {self.refusal(command, balance) for balance in self._balances[command.debit_account_id][begin:end]}
