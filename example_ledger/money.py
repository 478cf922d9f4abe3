"""Money: whole numbers of minor units in one currency, and which side of an account adds to its balance."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec

__all__ = [
    "AMOUNT_MAX",
    "CURRENCY_IN_WORDS",
    "AccountType",
    "Amount",
    "Currency",
    "Direction",
    "Leg",
    "StoredCurrency",
    "available_of",
    "balance_of",
    "is_debit_normal",
    "opposite_of",
]

AMOUNT_MAX = 2**63 - 1
"""Largest amount of one transfer, and largest value of one counter."""

CURRENCY_IN_WORDS = (
    "three capital letters A to Z, as in ISO 4217, or a name of your own: 3 to 12 A-Z and 0-9, a letter first"
)
Currency = Annotated[
    str,
    # To Python, though not to JavaScript, a $ alone matches before a newline at the end too.
    msgspec.Meta(
        pattern=r"^[A-Z][A-Z0-9]{2,11}(?!\n)$",
        description=CURRENCY_IN_WORDS,
        examples=["EUR"],
        extra={"in_words": CURRENCY_IN_WORDS},
    ),
]
StoredCurrency = Annotated[str, msgspec.Meta(pattern="^[A-Z][A-Z0-9]{2,11}$", description=CURRENCY_IN_WORDS)]
"""The currency of an event. A command's is stricter: what was once stored stays readable."""
Amount = Annotated[
    int,
    msgspec.Meta(
        description="minor units, such as cents; another whole number is refused as `invalid_amount`",
        examples=[1250],
        extra_json_schema={"minimum": 1, "maximum": AMOUNT_MAX},
    ),
]
"""An amount that is asked for. The domain holds its bounds, since its refusal has a place in the order of refusals."""
AccountType = Literal["asset", "expense", "liability", "equity", "income"]
AccountStatus = Literal["open", "frozen", "closed"]
Direction = Literal["debit", "credit"]


class Leg(msgspec.Struct, frozen=True):
    """One side of a transfer, or one of many."""

    account_id: UUID
    direction: Direction
    amount: int


def opposite_of(direction: Direction) -> Direction:
    """The other side."""
    return "credit" if direction == "debit" else "debit"


def is_debit_normal(account_type: AccountType) -> bool:
    """Whether debits add to the balance of such an account."""
    return account_type in ("asset", "expense")


def balance_of(account_type: AccountType, debits: int, credits_: int) -> int:
    """What an account has, in minor units: negative when it is overdrawn."""
    return debits - credits_ if is_debit_normal(account_type) else credits_ - debits


def available_of(account_type: AccountType, balance: int, debits_pending: int, credits_pending: int) -> int:
    """The balance less the holds that would reduce it; money that is only expected does not count."""
    return balance - (credits_pending if is_debit_normal(account_type) else debits_pending)
