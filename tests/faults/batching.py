"""Commands for the tests of batching: the ledger's, and some that look, or fail in the middle of their work."""

import json
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from cqrskit import Application, Command, CommandResult, CqrskitError, Rejected, Repository, handles
from example_ledger.accounts import Account, OpenAccount, open_account
from example_ledger.transfers import PostBatch, PostTransfer, Transfer, post_batch, post_transfer
from tests.faults.checking import Row

__all__ = ["BOOKS_OF_SPENDING", "Look", "Names", "Spend", "Step", "commands_of", "log_of", "outcome_of", "spending"]

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


BOOKS_OF_SPENDING = ("movements_without_transfer", "below_limit")
"""What the check of the ledger's books says of `Spend`, which moves money without a transfer and heeds no limit."""


class Look(Command):
    """Reply with an account's balance, and change nothing."""

    account_id: UUID


class Spend(Command):
    """Take from one account and give to another; then break if that made the first one empty."""

    account_id: UUID
    other_id: UUID
    amount: int


@handles(Look)
def look(command: Look, repository: Repository) -> int:
    """Look."""
    return repository.get(Account, command.account_id).balance


@handles(Spend)
def spend(command: Spend, repository: Repository) -> int:
    """Change both, and only then find out that it cannot be."""
    account = repository.get(Account, command.account_id)
    for direction, one in (("debit", account), ("credit", repository.get(Account, command.other_id))):
        _move(one, direction, command)  # type: ignore[arg-type]
    return 100 // account.balance


def _move(account: Account, direction: Literal["debit", "credit"], command: Spend) -> None:
    account.move(
        direction,
        command.amount,
        transfer_id=command.account_id,
        counterparty=command.other_id,
        effective_at=MOMENT,
        description=None,
    )


spending = Application(
    "spending", aggregates=[Account, Transfer], handlers=[open_account, post_transfer, post_batch, look, spend]
)


class Step(msgspec.Struct, frozen=True):
    """One command in words that are the same in every run; `key` is an idempotency key of its own."""

    kind: Literal["open", "transfer", "batch", "look", "spend"]
    accounts: tuple[int, int] = (0, 1)
    amount: int = 1
    transfer: int = 0
    limit: int | None = 0
    parts: tuple["Step", ...] = ()
    key: str | None = None


class Names:
    """The ids of one run: new ones for the database, the same names in every run."""

    def __init__(self) -> None:
        self._ids: dict[str, UUID] = {}
        self.prefix = uuid4().hex

    def id(self, name: str) -> UUID:
        """The id of this name."""
        return self._ids.setdefault(name, uuid4())

    def named(self, value: Any) -> Any:
        """A value of the run, JSON-able or not, with names in place of ids."""
        text = msgspec.json.encode(value, enc_hook=str).decode()
        for name, each in self._ids.items():
            text = text.replace(str(each), name)
        return json.loads(text.replace(self.prefix, ""))

    def key(self, step: Step) -> str | None:
        """A step's idempotency key in this run."""
        return None if step.key is None else f"{self.prefix}{step.key}"


def commands_of(steps: list[Step], names: Names) -> list[Command]:
    """The steps as commands of one run."""
    return [_command_of(step, names) for step in steps]


def _command_of(step: Step, names: Names) -> Command:
    one, other = (names.id(f"account {number}") for number in step.accounts)
    match step.kind:
        case "open":
            kind: Literal["asset", "liability"] = "asset" if step.accounts[0] == 0 else "liability"
            return OpenAccount(account_id=one, name="name", type=kind, currency="EUR", overdraft_limit=step.limit)
        case "transfer":
            return _transfer(step, names)
        case "batch":
            return PostBatch(transfers=tuple(_transfer(part, names) for part in step.parts))
        case "look":
            return Look(account_id=one)
        case "spend":
            return Spend(account_id=one, other_id=other, amount=step.amount)


def _transfer(step: Step, names: Names) -> PostTransfer:
    debit, credit = (names.id(f"account {number}") for number in step.accounts)
    return PostTransfer(
        transfer_id=names.id(f"transfer {step.transfer}"),
        debit_account_id=debit,
        credit_account_id=credit,
        amount=step.amount,
        currency="EUR",
        effective_at=MOMENT,
    )


def outcome_of(result: CommandResult | CqrskitError, names: Names, begin: int) -> Any:
    """What a caller was told, in the words of every run; positions count from the run's `begin`."""
    if isinstance(result, CommandResult):
        return ("done", names.named(result.reply), result.position - begin, result.appended, result.replayed)
    if isinstance(result, Rejected):
        return ("refused", type(result).__name__, result.code, names.named(result.details), names.named(str(result)))
    return ("failed", type(result).__name__, names.named(str(result)))


def log_of(rows: list[Row], names: Names) -> list[Any]:
    """The events of a run in the words of every run."""
    return [names.named([row.stream_id, row.stream_version, row.type, row.data]) for row in rows]
