"""What the read models must show: plain Python over the model's own facts.

Each document is a dictionary of builtin values. Positions are not in it where the documentation says only that they are
those of events: then the interval is given beside it.
"""

from datetime import date
from typing import Any

from tests.ledger_model.books import ModelTransfer
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.steps import Enter, Hold, Post, Reverse
from tests.ledger_model.words import Words

__all__ = ["Between", "accounts", "daily_totals", "statement_lines", "transfers", "trial_balances"]

Between = tuple[int, int]
"""The positions after the first one, up to the second."""


def accounts(model: LedgerModel, words: Words) -> list[dict[str, Any]]:
    """The directory of accounts."""
    return [
        {
            "account_id": words.account_id(number),
            "name": f"Account {number}",
            "type": each.opening.type,
            "currency": words.currency(each.opening.currency),
            "status": each.status,
            "balance": each.balance,
            "available": each.available,
            **each.counters,
            "overdraft_limit": each.limit,
            "metadata": words.metadata(each.words),
            "metadata_text": f"words {each.words}" if each.words else "",
            "opened_at": words.moment(each.opened_at),
        }
        for number, each in sorted(model.accounts.items())
    ]


def statement_lines(model: LedgerModel, words: Words, account: int) -> list[tuple[dict[str, Any], Between]]:
    """The lines of one account, the oldest first."""
    return [
        (
            {
                "account_id": words.account_id(account),
                "transfer_id": words.transfer_id(line.transfer),
                "direction": line.side,
                "amount": line.amount,
                "balance": line.balance,
                "counterparty_account_id": None if line.counterparty is None else words.account_id(line.counterparty),
                "description": line.text,
                "effective_at": words.moment(line.effective),
                "recorded_at": words.moment(line.recorded),
            },
            (line.after, line.until),
        )
        for line in model.lines
        if line.account == account
    ]


def transfers(model: LedgerModel, words: Words) -> list[tuple[dict[str, Any], Between]]:
    """All transfers; their legs in the order of accounts."""
    return [(_transfer(number, each, words), (each.after, each.until)) for number, each in model.transfers.items()]


def _transfer(number: int, transfer: ModelTransfer, words: Words) -> dict[str, Any]:
    content = transfer.content
    told = content if isinstance(content, Post | Enter | Hold) else None
    assert isinstance(content, Post | Enter | Hold | Reverse)
    return {
        "transfer_id": words.transfer_id(number),
        "status": transfer.shown_state,
        "amount": transfer.moved or transfer.amount,
        "currency": words.currency(transfer.currency),
        "legs": [
            {"account_id": words.account_id(account), "direction": side, "amount": amount}
            for account, side, amount in sorted(transfer.moved_legs)
        ],
        "description": content.text,
        "reference": told.reference if told else None,
        "metadata": words.metadata(told.words) if told else {},
        "effective_at": words.moment(transfer.effective),
        "recorded_at": words.moment(transfer.recorded),
        "reverses": words.transfer_id(content.original) if isinstance(content, Reverse) else None,
        "reversed_amount": transfer.reversed,
        "held_amount": transfer.amount if isinstance(content, Hold) else None,
        "expires_at": words.moment(transfer.expires_at),
    }


def daily_totals(model: LedgerModel, words: Words, account: int) -> list[dict[str, Any]]:
    """The days of one account on which something is effective, in UTC."""
    days: dict[date, dict[str, int]] = {}
    for line in model.lines:
        if line.account == account:
            moment = words.moment(line.effective)
            assert moment is not None
            day = days.setdefault(moment.date(), {"debits": 0, "credits": 0, "count": 0})
            day[f"{line.side}s"] += line.amount
            day["count"] += 1
    return [{"account_id": words.account_id(account), "day": day, **days[day]} for day in sorted(days)]


def trial_balances(model: LedgerModel, words: Words) -> list[dict[str, Any]]:
    """Both sides of each currency in which something has moved."""
    found: dict[str, dict[str, Any]] = {}
    for line in model.lines:
        opening = model.accounts[line.account].opening
        trial = found.setdefault(
            opening.currency, {"totals": {"debits": 0, "credits": 0}, "by_type": {}, "moving": None}
        )
        of_type = trial["by_type"].setdefault(opening.type, {"debits": 0, "credits": 0})
        for sums in (trial["totals"], of_type):
            sums[f"{line.side}s"] += line.amount
    return [{"currency": words.currency(name), **found[name]} for name in sorted(found)]
