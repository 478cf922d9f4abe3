"""Why the ledger refuses a command. The order of the classes is the order in which the reasons are looked for."""

from datetime import datetime
from uuid import UUID

from cqrskit import AggregateExists, Rejected
from example_ledger.money import AMOUNT_MAX

__all__ = [
    "REFUSALS_OF_MOVEMENTS",
    "AccountClosed",
    "AccountFrozen",
    "AccountNotEmpty",
    "AccountNotFound",
    "AmountOverflow",
    "BatchAborted",
    "CurrencyMismatch",
    "ExceedsHeldAmount",
    "ExceedsOriginal",
    "HoldAlreadyCaptured",
    "HoldAlreadyVoided",
    "HoldExpired",
    "HoldNotFound",
    "IndivisibleEntry",
    "InsufficientFunds",
    "InvalidAmount",
    "LimitBelowUse",
    "SameAccount",
    "TransferConflict",
    "TransferNotFound",
    "UnbalancedEntry",
]


class InvalidAmount(Rejected):
    """Not a whole number of minor units from 1 to 2^63 - 1."""

    code = "invalid_amount"

    def __init__(self, amount: int) -> None:
        super().__init__(f"the amount must be 1 to {AMOUNT_MAX} minor units, not {amount}", amount=str(amount))


class UnbalancedEntry(Rejected):
    """The debits of an entry are not its credits."""

    code = "unbalanced_entry"

    def __init__(self, debits: int, credits_: int) -> None:
        super().__init__(
            f"the legs debit {debits} and credit {credits_} minor units: both sides must be the same",
            debits=str(debits),
            credits=str(credits_),
        )


class SameAccount(Rejected):
    """A transfer from an account to itself, or an entry with an account on both sides."""

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


class AccountClosed(Rejected):
    """The account was closed, for good."""

    code = "account_closed"

    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"account {account_id} is closed", account_id=str(account_id))


class AccountFrozen(Rejected):
    """The account is frozen: nothing moves."""

    code = "account_frozen"

    def __init__(self, account_id: UUID) -> None:
        super().__init__(f"account {account_id} is frozen: unfreeze it first", account_id=str(account_id))


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


class HoldNotFound(Rejected):
    """No hold has this id."""

    code = "hold_not_found"

    def __init__(self, hold_id: UUID) -> None:
        super().__init__(f"there is no hold {hold_id}", hold_id=str(hold_id))


class TransferNotFound(Rejected):
    """No transfer has this id."""

    code = "transfer_not_found"

    def __init__(self, transfer_id: UUID) -> None:
        super().__init__(f"there is no transfer {transfer_id}", transfer_id=str(transfer_id))


class HoldAlreadyCaptured(Rejected):
    """The hold was captured before, which happens once."""

    code = "hold_already_captured"

    def __init__(self, hold_id: UUID, captured_amount: int) -> None:
        super().__init__(
            f"hold {hold_id} was captured before, with {captured_amount} minor units",
            hold_id=str(hold_id),
            captured_amount=captured_amount,
        )


class HoldAlreadyVoided(Rejected):
    """The hold was voided before."""

    code = "hold_already_voided"

    def __init__(self, hold_id: UUID) -> None:
        super().__init__(f"hold {hold_id} was voided: place a new one", hold_id=str(hold_id))


class HoldExpired(Rejected):
    """The hold's time is over, whether or not its money has been released already."""

    code = "hold_expired"

    def __init__(self, hold_id: UUID, expires_at: datetime | None) -> None:
        moment = None if expires_at is None else expires_at.isoformat()
        super().__init__(
            f"hold {hold_id} expired at {moment}: place a new one", hold_id=str(hold_id), expires_at=moment
        )


class ExceedsHeldAmount(Rejected):
    """More was to be captured than was held."""

    code = "exceeds_held_amount"

    def __init__(self, hold_id: UUID, amount: int, held_amount: int) -> None:
        super().__init__(
            f"hold {hold_id} holds {held_amount} minor units, {amount} cannot be captured",
            hold_id=str(hold_id),
            amount=amount,
            held_amount=held_amount,
        )


class ExceedsOriginal(Rejected):
    """More was to be reversed than is left of what the transfer has moved. `remaining`: 0 when nothing is."""

    code = "exceeds_original"

    def __init__(self, transfer_id: UUID, amount: int | None, remaining: int) -> None:
        super().__init__(
            f"{remaining} minor units of transfer {transfer_id} can still be reversed"
            + (f", not {amount}" if amount else ""),
            transfer_id=str(transfer_id),
            amount=amount,
            remaining=remaining,
        )


class IndivisibleEntry(Rejected):
    """A part of an entry of more than two legs was to be reversed: nothing says which legs it would be."""

    code = "indivisible_entry"

    def __init__(self, transfer_id: UUID, amount: int) -> None:
        super().__init__(
            f"entry {transfer_id} has more than two legs, so it is reversed as a whole: leave the amount out",
            transfer_id=str(transfer_id),
            amount=amount,
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


class LimitBelowUse(Rejected):
    """The account is overdrawn, or reserved, further than the new limit allows."""

    code = "limit_below_use"

    def __init__(self, account_id: UUID, available: int, overdraft_limit: int) -> None:
        super().__init__(
            f"account {account_id} has {available} available, which a limit of {overdraft_limit} does not allow",
            account_id=str(account_id),
            available=available,
            overdraft_limit=overdraft_limit,
        )


class AccountNotEmpty(Rejected):
    """The account has a balance or holds, so it cannot be closed."""

    code = "account_not_empty"

    def __init__(self, account_id: UUID, balance: int, debits_pending: int, credits_pending: int) -> None:
        super().__init__(
            f"account {account_id} has a balance of {balance} and holds of {debits_pending} debits and "
            f"{credits_pending} credits: move the balance away, and capture or void the holds",
            account_id=str(account_id),
            balance=balance,
            debits_pending=debits_pending,
            credits_pending=credits_pending,
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


REFUSALS_OF_MOVEMENTS = (
    InvalidAmount,
    SameAccount,
    AccountNotFound,
    CurrencyMismatch,
    AccountClosed,
    AccountFrozen,
    TransferConflict,
    InsufficientFunds,
    AmountOverflow,
    AggregateExists,
)
"""What a transfer, an entry or a hold can be refused for when it is made; the last one if its id is an account's."""
