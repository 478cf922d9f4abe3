"""Why the ledger refuses a command. The order of the classes is the order in which the reasons are looked for."""

from uuid import UUID

from cqrskit import Rejected
from example_ledger.money import AMOUNT_MAX

__all__ = [
    "AccountNotFound",
    "AmountOverflow",
    "BatchAborted",
    "CurrencyMismatch",
    "InsufficientFunds",
    "InvalidAmount",
    "SameAccount",
    "TransferConflict",
    "TransferNotFound",
]


class InvalidAmount(Rejected):
    """Not a whole number of minor units from 1 to 2^63 - 1."""

    code = "invalid_amount"

    def __init__(self, amount: int) -> None:
        super().__init__(f"the amount must be 1 to {AMOUNT_MAX} minor units, not {amount}", amount=str(amount))


class SameAccount(Rejected):
    """A transfer from an account to itself."""

    code = "same_account"

    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"both sides are account {account_id}: name two accounts", account_id=str(account_id))


class AccountNotFound(Rejected):
    """No account has this id."""

    code = "account_not_found"

    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"there is no account {account_id}", account_id=str(account_id))


class CurrencyMismatch(Rejected):
    """The account keeps another currency than the transfer's."""

    code = "currency_mismatch"

    def __init__(self, account_id: UUID, account_currency: str, currency: str) -> None:
        super().__init__(
            f"account {account_id} is kept in {account_currency}, the transfer is in {currency}",
            account_id=str(account_id),
            account_currency=account_currency,
            currency=currency,
        )


class TransferConflict(Rejected):
    """The id belongs to a transfer with other content."""

    code = "transfer_conflict"

    def __init__(self, transfer_id: UUID, field: str) -> None:
        super().__init__(
            f"transfer {transfer_id} was posted with another {field}: a transfer id has one content for ever; use a "
            "new id for a new transfer",
            transfer_id=str(transfer_id),
            field=field,
        )


class InsufficientFunds(Rejected):
    """The account would fall below its overdraft limit."""

    code = "insufficient_funds"

    def __init__(self, account_id: UUID, available: int, overdraft_limit: int) -> None:
        super().__init__(
            f"account {account_id} has {available} available and may be overdrawn by {overdraft_limit}",
            account_id=str(account_id),
            available=available,
            overdraft_limit=overdraft_limit,
        )


class AmountOverflow(Rejected):
    """A counter of the account would grow beyond 2^63 - 1."""

    code = "amount_overflow"

    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"a counter of account {account_id} would exceed {AMOUNT_MAX}", account_id=str(account_id))


class BatchAborted(Rejected):
    """One transfer of an atomic batch was refused, so none was posted. `place` counts from 0; `refusal` says why."""

    code = "batch_aborted"

    def __init__(self, place: int, refusal: Rejected) -> None:
        super().__init__(f"transfer {place} of the batch was refused: {refusal}", place=place, code=refusal.code)
        self.place = place
        self.refusal = refusal


class TransferNotFound(Rejected):
    """No transfer has this id."""

    code = "transfer_not_found"

    def __init__(self, transfer_id: UUID) -> None:
        super().__init__(f"there is no transfer {transfer_id}", transfer_id=str(transfer_id))
