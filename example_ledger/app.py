"""The ledger's HTTP service."""

from litestar import Litestar

from cqrskit import Settings
from cqrskit.web import CqrskitPlugin
from example_ledger.account_routes import ACCOUNT_ROUTES
from example_ledger.application import ledger
from example_ledger.balance_routes import BALANCE_ROUTES
from example_ledger.entry_routes import ENTRY_ROUTES
from example_ledger.hold_routes import HOLD_ROUTES
from example_ledger.transfer_routes import TRANSFER_ROUTES

__all__ = ["create_app"]


def create_app(settings: Settings | None = None) -> Litestar:
    """The Litestar app with all routes and projections; without settings, those of the environment (``CQRSKIT_*``)."""
    plugin = CqrskitPlugin(
        ledger, settings, statuses={"transfer_conflict": 409}, only_known_parameters=True, api_keys=True
    )
    routes = [*ACCOUNT_ROUTES, *BALANCE_ROUTES, *TRANSFER_ROUTES, *ENTRY_ROUTES, *HOLD_ROUTES]
    return Litestar(routes, plugins=[plugin])
