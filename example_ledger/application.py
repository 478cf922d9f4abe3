"""The ledger as an application: what it consists of."""

from cqrskit import Application
from example_ledger.accounts import Account, open_account
from example_ledger.read_models import Accounts, StatementLines, Transfers, TrialBalances
from example_ledger.transfers import Transfer, post_batch, post_transfer

__all__ = ["ledger"]

ledger = Application(
    "ledger",
    aggregates=[Account, Transfer],
    handlers=[open_account, post_transfer, post_batch],
    projections=[Accounts, StatementLines, Transfers, TrialBalances],
)
