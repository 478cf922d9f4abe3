"""The ledger as an application: what it consists of."""

from cqrskit import Application
from example_ledger.account_commands import (
    close_account,
    find_missing_accounts,
    freeze_account,
    set_account_metadata,
    set_overdraft_limit,
    unfreeze_account,
)
from example_ledger.accounts import Account, open_account
from example_ledger.daily_totals import DailyTotals
from example_ledger.entries import post_entry
from example_ledger.holds import capture_hold, expire_hold, place_hold, void_hold
from example_ledger.read_models import Accounts, StatementLines, TrialBalances
from example_ledger.reversals import reverse_transfer
from example_ledger.transfer_documents import Transfers
from example_ledger.transfers import Transfer, post_batch, post_transfer

__all__ = ["ledger"]

ledger = Application(
    "ledger",
    aggregates=[Account, Transfer],
    handlers=[
        open_account,
        find_missing_accounts,
        freeze_account,
        unfreeze_account,
        close_account,
        set_overdraft_limit,
        set_account_metadata,
        post_transfer,
        post_batch,
        post_entry,
        place_hold,
        capture_hold,
        void_hold,
        expire_hold,
        reverse_transfer,
    ],
    projections=[Accounts, StatementLines, Transfers, DailyTotals, TrialBalances],
)
