"""Who may do what: the API key that a request shows, and the scope that its route needs.

Without a word a route needs the scope of its HTTP method: `read` for GET, HEAD and OPTIONS, `write` for POST, PUT,
PATCH and DELETE. ``opt=needs_scope("admin")`` asks for another, ``opt=open_to_all()`` for none.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from litestar import Litestar
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Scope as ASGIScope

from cqrskit.access import ApiKey, Forbidden, RateLimited, Scope, Unauthenticated, key_id_in
from cqrskit.collectors import Counts
from cqrskit.errors import ConfigurationError
from cqrskit.known_keys import KnownKeys
from cqrskit.rate_limit import RateLimits

__all__ = ["Gate", "needed_scope", "needs_scope", "open_to_all"]

log = structlog.get_logger(__name__)

SCOPE_OPTION = "cqrskit_scope"
OPEN = "open to all"
SCHEME = b"bearer "
READING, WRITING = ("GET", "HEAD", "OPTIONS"), ("POST", "PUT", "PATCH", "DELETE")
BY_METHOD: Mapping[str, Scope] = {**dict.fromkeys(READING, Scope.READ), **dict.fromkeys(WRITING, Scope.WRITE)}


def needs_scope(scope: str) -> dict[str, Any]:
    """The scope that a route or a controller needs, in place of its method's: ``opt=needs_scope("admin")``.

    Raises ConfigurationError for a scope that does not exist.
    """
    if scope not in list(Scope):
        raise ConfigurationError(f"there is no scope {scope!r}; the scopes are {', '.join(Scope)}")
    return {SCOPE_OPTION: Scope(scope)}


def open_to_all() -> dict[str, Any]:
    """What lets everybody use a route or a controller, without a key: ``opt=open_to_all()``."""
    return {SCOPE_OPTION: OPEN}


class Gate:
    """Lets requests in that show a usable key with the scope that their route needs, as often as the limit says."""

    def __init__(self, limits: RateLimits | None) -> None:
        self._keys: KnownKeys | None = None
        self._refusals: Counts | None = None
        self._limits = limits

    def open(self, keys: KnownKeys, refusals: Counts) -> None:
        """Begin, with these keys; `refusals` counts who is not let in, by reason."""
        self._keys = keys
        self._refusals = refusals

    def check_routes(self, app: Litestar) -> None:
        """Raise ConfigurationError for a route whose scope cannot be told."""
        for path, handler, method in _routes_of(app):
            try:
                _needed(handler, method)
            except KeyError:
                raise ConfigurationError(
                    f"{path} ({handler}) is no route that an API key can open by its HTTP method, which is {method}: "
                    "say opt=needs_scope(...), or opt=open_to_all() if it guards itself"
                ) from None

    async def admit(self, scope: ASGIScope, shown: bytes | None) -> str | None:
        """Who sends a request that shows this ``Authorization``; None on a route that is open to all.

        Raises Unauthenticated, RateLimited, Forbidden, or ServerUnavailable if keys cannot be looked up.
        """
        needed = _needed(scope["route_handler"], str(scope.get("method")))
        if needed is OPEN:
            return None
        assert self._refusals is not None, "requests come after the start"
        try:
            key = await self._usable_key(shown)
            if self._limits is not None:
                self._limits.take(key.id)
            if needed not in key.scopes:
                raise Forbidden(needed, key.name)
        except REFUSALS as refusal:
            self._refusals.count(_word_for(refusal))
            raise
        return key.name

    async def _usable_key(self, shown: bytes | None) -> ApiKey:
        if shown is None:
            raise Unauthenticated(sent=False)
        if shown[: len(SCHEME)].lower() != SCHEME:
            raise Unauthenticated(sent=False, wrong_scheme=True)
        text = shown[len(SCHEME) :].decode("latin-1")
        key_id = key_id_in(text)
        if key_id is None:
            raise Unauthenticated(sent=True)
        assert self._keys is not None, "requests come after the start"
        key = await self._keys.find(key_id)
        if key is None or not key.fits(text) or not key.is_usable(datetime.now(UTC)):
            log.info("access.key_refused", key_id=key_id, reason=_reason(key, text))
            raise Unauthenticated(sent=True)
        return key


REFUSALS = (Unauthenticated, Forbidden, RateLimited)


def _word_for(refusal: Exception) -> str:
    """The word for why a request was not let in, for the metrics."""
    if isinstance(refusal, Unauthenticated):
        return "wrong_key" if refusal.sent else "no_key"
    return "scope" if isinstance(refusal, Forbidden) else "rate_limit"


def needed_scope(handler: BaseRouteHandler, method: str) -> str | None:
    """The scope that a key needs for a route; None: everybody may use it, without a key. KeyError as for `_needed`."""
    needed = _needed(handler, method)
    return None if needed is OPEN else needed


def _needed(handler: BaseRouteHandler, method: str) -> str:
    """The scope that a route needs, or OPEN. Raises KeyError if nothing says which."""
    needed: str | None = handler.opt.get(SCOPE_OPTION)
    return BY_METHOD[method] if needed is None else needed


def _reason(key: ApiKey | None, text: str) -> str:
    if key is None:
        return "there is no such key"
    if not key.fits(text):
        return "its secret part is wrong"
    return "it is revoked" if key.revoked_at is not None else "it has expired"


def _routes_of(app: Litestar) -> Iterator[tuple[str, BaseRouteHandler, str]]:
    """Every path of the app with its handlers and their methods; a websocket or a mounted app has none."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            yield route.path, route.route_handler, "unknown"
            continue
        for handler in route.route_handlers:
            methods: Iterable[str] = handler.http_methods
            for method in methods:
                yield route.path, handler, str(getattr(method, "value", method))
