"""What the model knows: accounts, transfers, and the lines of money that has moved, each a fact that stays."""

from typing import Any

import msgspec

from tests.ledger_model.steps import Leg, Open, Step

__all__ = ["AMOUNT_MAX", "ModelAccount", "ModelLine", "ModelTransfer", "Outcome", "Refused"]

AMOUNT_MAX = 2**63 - 1


class Refused(Exception):
    """A command is refused with this code; `about` are the details that the documentation promises."""

    def __init__(self, code: str, /, **about: Any) -> None:
        super().__init__(code)
        self.code = code
        self.about = about


class Outcome(msgspec.Struct, frozen=True):
    """What a command is answered: a reply, or the `code` of a refusal.

    `position` is None where the documentation promises none; `lasting` whether a retry is to get the same.
    """

    reply: Any = None
    code: str | None = None
    about: dict[str, Any] = {}
    position: int | None = None
    appended: bool = False
    replayed: bool = False
    lasting: bool = False


class ModelAccount(msgspec.Struct):
    """One account with its four counters."""

    opening: Open
    limit: int | None
    words: str
    opened_at: int
    status: str = "open"
    posted: dict[str, int] = msgspec.field(default_factory=lambda: {"debit": 0, "credit": 0})
    pending: dict[str, int] = msgspec.field(default_factory=lambda: {"debit": 0, "credit": 0})

    @property
    def adding_side(self) -> str:
        """The side that adds to the balance."""
        return "debit" if self.opening.type in ("asset", "expense") else "credit"

    @property
    def taking_side(self) -> str:
        """The side that takes from it."""
        return "credit" if self.adding_side == "debit" else "debit"

    @property
    def balance(self) -> int:
        """What it has."""
        return self.posted[self.adding_side] - self.posted[self.taking_side]

    @property
    def available(self) -> int:
        """The balance without what is held back."""
        return self.balance - self.pending[self.taking_side]

    @property
    def counters(self) -> dict[str, int]:
        """The four counters, by the names that the ledger gives them."""
        return {
            "debits_posted": self.posted["debit"],
            "credits_posted": self.posted["credit"],
            "debits_pending": self.pending["debit"],
            "credits_pending": self.pending["credit"],
        }

    def lacks(self, side: str, amount: int) -> bool:
        """Whether so much on one side would bring it below its limit."""
        return side == self.taking_side and self.limit is not None and self.available - amount < -self.limit

    def overflows(self, side: str, amount: int) -> bool:
        """Whether a counter would not hold it, once all holds are captured."""
        return self.posted[side] + self.pending[side] + amount > AMOUNT_MAX


class ModelTransfer(msgspec.Struct):
    """One transfer and what has become of it. Its first events are after position `after`, and up to `until`."""

    content: Step
    legs: list[Leg]
    amount: int
    currency: str
    effective: int
    recorded: int
    after: int
    until: int
    state: str = "posted"
    moved: int = 0
    reversed: int = 0
    expires_at: int | None = None

    @property
    def shown_state(self) -> str:
        """The state that readers see."""
        if not self.reversed:
            return self.state
        return "reversed" if self.reversed == self.moved else "partially_reversed"

    @property
    def moved_legs(self) -> list[Leg]:
        """What has moved, where something has; else what is held."""
        if len(self.legs) > 2 or not self.moved:
            return self.legs
        return [(account, side, self.moved) for account, side, _ in self.legs]


class ModelLine(msgspec.Struct, frozen=True):
    """Money that has moved on one account: a fact. Its event is after position `after`, and not after `until`."""

    account: int
    transfer: int
    side: str
    amount: int
    balance: int
    counterparty: int | None
    text: str | None
    effective: int
    recorded: int
    after: int
    until: int
