"""The ledger's HTTP service."""

from collections.abc import Sequence

from litestar import Litestar, Router
from litestar.openapi import OpenAPIConfig
from litestar.types import LifespanHook

from cqrskit import Settings
from cqrskit.web import CqrskitPlugin
from example_ledger.account_routes import ACCOUNT_ROUTES
from example_ledger.application import ledger
from example_ledger.balance_routes import BALANCE_ROUTES
from example_ledger.entry_routes import ENTRY_ROUTES
from example_ledger.hold_routes import HOLD_ROUTES
from example_ledger.transfer_routes import TRANSFER_ROUTES

__all__ = ["create_app"]

ROUTES = {
    "accounts": [*ACCOUNT_ROUTES, *BALANCE_ROUTES],
    "transfers": TRANSFER_ROUTES,
    "entries and reversals": ENTRY_ROUTES,
    "holds": HOLD_ROUTES,
}
"""All routes, by what the description of the API calls them."""

DESCRIPTION = """\
A double-entry ledger.

Amounts are whole numbers of minor units, such as cents, written without a fraction: `5.0` is no amount.

Every command may be sent again: what is new is known by its id, for ever, and any command by its `Idempotency-Key`.
A retry has status 200, the first reply's body, and the header `Idempotent-Replay: true`.

A command's reply names the position of its last event, in `position` and in the header `Consistency-Position`. A query
that sends it back, in that header or as `min_position`, waits until its answer contains the event.

Lists come in pages: `next` is the `cursor` of the next one, and null at the end. No row is skipped or given twice,
whatever is written meanwhile.

Errors are problems (RFC 9457) with a `code` for programs. One with `Retry-After` (429, 503) passes by waiting so many
seconds: send the same again, a page with the same `cursor`.
"""


def create_app(settings: Settings | None = None, *, on_startup: Sequence[LifespanHook] = ()) -> Litestar:
    """The Litestar app with all routes and projections; without settings, those of the environment (``CQRSKIT_*``).

    `on_startup` is Litestar's: what is done when the application is open and before requests are answered.
    """
    plugin = CqrskitPlugin(
        ledger, settings, statuses={"transfer_conflict": 409}, only_known_parameters=True, api_keys=True
    )
    described = OpenAPIConfig("Ledger", "1", description=DESCRIPTION, use_handler_docstrings=True)
    routes = [Router("/", route_handlers=handlers, tags=[tag]) for tag, handlers in ROUTES.items()]
    return Litestar(routes, plugins=[plugin], openapi_config=described, on_startup=on_startup)
