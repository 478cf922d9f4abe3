"""What is true of the ledger at every position, looked at in the model's own books."""

from collections import defaultdict

from tests.ledger_model.books import AMOUNT_MAX
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.steps import Reverse

__all__ = ["check_invariants"]


def check_invariants(model: LedgerModel) -> None:
    """Raise AssertionError if the model's books are not in order."""
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for account in model.accounts.values():
        for name, value in account.counters.items():
            assert 0 <= value <= AMOUNT_MAX
            side, kind = name.split("_")
            sums[account.opening.currency, kind] += value if side == "debits" else -value
        assert account.limit is None or account.available >= -account.limit
        assert account.status != "closed" or (account.balance == 0 and not any(account.pending.values()))
    assert not any(sums.values()), sums
    for transfer in model.transfers.values():
        for legs in (transfer.legs, transfer.moved_legs):
            assert sum(amount if side == "debit" else -amount for _, side, amount in legs) == 0
        assert 0 <= transfer.reversed <= transfer.moved <= transfer.amount
    reversed_amounts: defaultdict[int, int] = defaultdict(int)
    for transfer in model.transfers.values():
        if isinstance(transfer.content, Reverse):
            reversed_amounts[transfer.content.original] += transfer.moved
    assert reversed_amounts == {number: each.reversed for number, each in model.transfers.items() if each.reversed}
