"""What is done with an account that exists: freeze it, close it, give it another limit or other metadata.

To ask for what an account has already changes nothing and is no error, so that a retry needs no key.
"""

from uuid import UUID

import msgspec

from cqrskit import Command, Repository, handles
from example_ledger.accounts import Account, Metadata, OverdraftLimit
from example_ledger.refusals import AccountClosed, AccountNotEmpty, AccountNotFound, LimitBelowUse

__all__ = [
    "AccountChange",
    "CloseAccount",
    "FindMissingAccounts",
    "FreezeAccount",
    "SetAccountMetadata",
    "SetOverdraftLimit",
    "UnfreezeAccount",
    "close_account",
    "find_missing_accounts",
    "freeze_account",
    "set_account_metadata",
    "set_overdraft_limit",
    "unfreeze_account",
]


class FindMissingAccounts(Command):
    """Which of these accounts do not exist: looked up in the log, where a read model may be behind. Changes nothing."""

    account_ids: tuple[UUID, ...]


class FreezeAccount(Command):
    """Let no money in or out, and no hold be placed or captured; holds can be voided, and expire."""

    account_id: UUID


class UnfreezeAccount(Command):
    """Let a frozen account take movements again."""

    account_id: UUID


class CloseAccount(Command):
    """End an account for good. It must be empty: a balance of zero, and no holds."""

    account_id: UUID


class SetOverdraftLimit(Command):
    """How far the account may be overdrawn from now on; null: without limit."""

    account_id: UUID
    overdraft_limit: OverdraftLimit | None


class SetAccountMetadata(Command):
    """Put this in the place of the account's metadata."""

    account_id: UUID
    metadata: Metadata


class AccountChange(msgspec.Struct, frozen=True):
    """The reply to all commands here."""

    account_id: UUID


@handles(FindMissingAccounts)
def find_missing_accounts(command: FindMissingAccounts, repository: Repository) -> list[UUID]:
    """Those that are not there, in the order asked."""
    return [each for each in command.account_ids if repository.find(Account, each) is None]


@handles(FreezeAccount)
def freeze_account(command: FreezeAccount, repository: Repository) -> AccountChange:
    """Freeze the account unless it is frozen. AccountNotFound, AccountClosed."""
    account = _not_closed(command.account_id, repository)
    if account.status != "frozen":
        account.freeze()
    return AccountChange(account.id)


@handles(UnfreezeAccount)
def unfreeze_account(command: UnfreezeAccount, repository: Repository) -> AccountChange:
    """Open the account again if it is frozen. AccountNotFound, AccountClosed."""
    account = _not_closed(command.account_id, repository)
    if account.status == "frozen":
        account.unfreeze()
    return AccountChange(account.id)


@handles(CloseAccount)
def close_account(command: CloseAccount, repository: Repository) -> AccountChange:
    """Close the account unless it is closed; a frozen one can be. AccountNotFound, AccountNotEmpty."""
    account = _find(command.account_id, repository)
    if account.status == "closed":
        return AccountChange(account.id)
    if account.balance or account.debits_pending or account.credits_pending:
        raise AccountNotEmpty(account.id, account.balance, account.debits_pending, account.credits_pending)
    account.close()
    return AccountChange(account.id)


@handles(SetOverdraftLimit)
def set_overdraft_limit(command: SetOverdraftLimit, repository: Repository) -> AccountChange:
    """Set the limit, which must not be below what is used of it. AccountNotFound, AccountClosed, LimitBelowUse."""
    account = _not_closed(command.account_id, repository)
    limit = command.overdraft_limit
    if limit == account.overdraft_limit:
        return AccountChange(account.id)
    if limit is not None and account.available < -limit:
        raise LimitBelowUse(account.id, account.available, limit)
    account.set_overdraft_limit(limit)
    return AccountChange(account.id)


@handles(SetAccountMetadata)
def set_account_metadata(command: SetAccountMetadata, repository: Repository) -> AccountChange:
    """Replace the metadata; a closed account can be described too. AccountNotFound."""
    account = _find(command.account_id, repository)
    if command.metadata != account.metadata:
        account.set_metadata(command.metadata)
    return AccountChange(account.id)


def _find(account_id: UUID, repository: Repository) -> Account:
    account = repository.find(Account, account_id)
    if account is None:
        raise AccountNotFound(account_id)
    return account


def _not_closed(account_id: UUID, repository: Repository) -> Account:
    account = _find(account_id, repository)
    if account.status == "closed":
        raise AccountClosed(account_id)
    return account
