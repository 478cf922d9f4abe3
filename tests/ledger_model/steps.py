"""What the ledger can be told, in the model's words: accounts and transfers are numbers, moments are seconds."""

import msgspec

__all__ = [
    "Batch",
    "Capture",
    "Close",
    "Describe",
    "Enter",
    "Expire",
    "Freeze",
    "Hold",
    "Leg",
    "Open",
    "Post",
    "Reverse",
    "SetLimit",
    "Step",
    "Unfreeze",
    "Void",
    "differing_fields",
    "turned",
]

Leg = tuple[int, str, int]
"""Account, side and amount."""


class Step(msgspec.Struct, frozen=True):
    """One command."""


class Open(Step, frozen=True):
    """OpenAccount; `words` are its metadata."""

    account: int
    type: str
    currency: str
    limit: int | None
    words: str = ""


class Freeze(Step, frozen=True):
    """FreezeAccount."""

    account: int


class Unfreeze(Step, frozen=True):
    """UnfreezeAccount."""

    account: int


class Close(Step, frozen=True):
    """CloseAccount."""

    account: int


class SetLimit(Step, frozen=True):
    """SetOverdraftLimit."""

    account: int
    limit: int | None


class Describe(Step, frozen=True):
    """SetAccountMetadata."""

    account: int
    words: str


class Post(Step, frozen=True):
    """PostTransfer."""

    transfer: int
    debit: int
    credit: int
    amount: int
    currency: str
    text: str | None = None
    reference: str | None = None
    effective: int | None = None
    words: str = ""


class Enter(Step, frozen=True):
    """PostEntry."""

    transfer: int
    legs: tuple[Leg, ...]
    currency: str
    text: str | None = None
    reference: str | None = None
    effective: int | None = None
    words: str = ""


class Hold(Step, frozen=True):
    """PlaceHold."""

    transfer: int
    debit: int
    credit: int
    amount: int
    currency: str
    seconds: int | None = None
    text: str | None = None
    reference: str | None = None
    effective: int | None = None
    words: str = ""


class Capture(Step, frozen=True):
    """CaptureHold."""

    transfer: int
    amount: int | None = None
    effective: int | None = None


class Void(Step, frozen=True):
    """VoidHold."""

    transfer: int


class Expire(Step, frozen=True):
    """ExpireHold, which nobody but the ledger itself sends."""

    transfer: int


class Reverse(Step, frozen=True):
    """ReverseTransfer: `transfer` is the reversal's number."""

    transfer: int
    original: int
    amount: int | None = None
    text: str | None = None
    effective: int | None = None


class Batch(Step, frozen=True):
    """PostBatch: all or none."""

    items: tuple[Post, ...]


def differing_fields(one: Step, other: Step) -> set[str]:
    """In what two commands differ; `command` if they are not of one kind."""
    if type(one) is not type(other):
        return {"command"}
    return {name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)}


def turned(side: str) -> str:
    """The other side."""
    return "credit" if side == "debit" else "debit"
