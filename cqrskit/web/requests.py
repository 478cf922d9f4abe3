"""What a request says about itself in headers, and what its reply says back.

=====================  =========================================  ============================================
header                 limits                                     when it is not within them
=====================  =========================================  ============================================
``Idempotency-Key``    1 to 255 printable ASCII characters        400 `invalid_idempotency_key` for commands
``X-Correlation-ID``   1 to 128 visible ASCII characters          400 for commands; else a new one is made
``X-Causation-ID``     1 to 128 visible ASCII characters          400 for commands
``traceparent``        the grammar of W3C Trace Context           it is ignored
``Authorization``      ``Bearer`` and an API key                  401, where the app has API keys
=====================  =========================================  ============================================

Every reply has the ``X-Correlation-ID`` that was sent, or one made for it, and so does every line that is logged
meanwhile (`correlation_id`).
"""

import re
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b
from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.exceptions import ValidationException
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from cqrskit.errors import InvalidIdempotencyKey
from cqrskit.identifiers import ids_made_from
from cqrskit.submissions import KEY_LENGTH_MAX
from cqrskit.web.access import Gate
from cqrskit.web.media_types import require_media_type
from cqrskit.web.parameters import require_known_parameters

__all__ = [
    "CAUSATION_ID",
    "CORRELATION_ID",
    "IDEMPOTENCY_KEY",
    "InvalidKeyHeader",
    "RequestContext",
    "as_sent",
    "correlation_of",
    "current_request",
    "in_context",
    "trace_parent_in",
]

IDEMPOTENCY_KEY = "Idempotency-Key"
CORRELATION_ID = "X-Correlation-ID"
CAUSATION_ID = "X-Causation-ID"

_READ = {
    b"idempotency-key": "key",
    b"x-correlation-id": "correlation",
    b"x-causation-id": "causation",
    b"traceparent": "trace",
    b"authorization": "authorization",
    b"content-type": "content_type",
}
_KEY = re.compile(rb"[ -~]{1,255}")
_ID = re.compile(rb"[!-~]{1,128}")
_TRACE_PARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?", re.DOTALL
)
TRACE_PARENT_LENGTH = 55
ANYBODY = ""
"""Owns the idempotency keys of those who need no API key; no key has this name."""


class InvalidKeyHeader(InvalidIdempotencyKey):
    """The ``Idempotency-Key`` is empty, too long, not printable ASCII, or was sent twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.args = (f"the header {IDEMPOTENCY_KEY} must be sent once and have 1 to 255 printable ASCII characters",)


class RequestContext:
    """One request's headers that matter here. A header that was sent twice is as one that is not within its limits.

    `actor` is the name of the API key that the request was let in with, None without one. `owner` is whom its
    idempotency key belongs to: the actor, or ANYBODY where the app has API keys and the route needs none; None where
    the app has none.
    """

    __slots__ = ("_sent", "actor", "correlation_id", "owner", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.actor: str | None = None
        self.owner: str | None = None
        sent: dict[str, bytes] = {}
        for header, value in scope["headers"]:
            name = _READ.get(header)
            if name is not None:
                sent[name] = b"" if name in sent else value
        self._sent = sent
        given = sent.get("correlation")
        self.correlation_id = given.decode("ascii") if given is not None and _ID.fullmatch(given) else uuid4().hex

    @property
    def content_type(self) -> bytes | None:
        """The ``Content-Type``, or None."""
        return self._sent.get("content_type")

    @property
    def authorization(self) -> bytes | None:
        """The ``Authorization``, or None."""
        return self._sent.get("authorization")

    @property
    def idempotency_key(self) -> str | None:
        """The ``Idempotency-Key``, as the actor's own; None if none was sent. Raises InvalidIdempotencyKey."""
        sent = self._sent.get("key")
        if sent is None:
            return None
        if not _KEY.fullmatch(sent):
            raise InvalidKeyHeader(sent.decode("latin-1"))
        return own_key(self.owner, sent.decode("ascii"))

    @property
    def sent_key(self) -> str | None:
        """The same of a header of whatever form."""
        sent = self._sent.get("key")
        return None if sent is None else own_key(self.owner, sent.decode("latin-1"))

    @property
    def causation_id(self) -> str | None:
        """The ``X-Causation-ID``, or None. Raises ValidationException for one that is not within its limits."""
        sent = self._sent.get("causation")
        if sent is None:
            return None
        if not _ID.fullmatch(sent):
            raise _unusable(CAUSATION_ID)
        return sent.decode("ascii")

    @property
    def trace_parent(self) -> str | None:
        """The ``traceparent``, or None if it is not one. Of a later version only what this one defines is kept."""
        sent = self._sent.get("trace")
        return None if sent is None else trace_parent_in(sent)

    def require_correlation_id(self) -> str:
        """The correlation id; ValidationException if another was sent that is not within its limits."""
        sent = self._sent.get("correlation")
        if sent is not None and not _ID.fullmatch(sent):
            raise _unusable(CORRELATION_ID)
        return self.correlation_id


def trace_parent_in(sent: bytes) -> str | None:
    """A ``traceparent``, or None if it is not one. Of a later version only what this one defines is kept."""
    found = _TRACE_PARENT.fullmatch(sent)
    if found is None or (found["more"] is not None and found[1] == b"00"):
        return None
    return sent[:TRACE_PARENT_LENGTH].decode("ascii")


def own_key(owner: str | None, key: str) -> str:
    """An idempotency key that nobody else can send, so that nobody gets a reply that was another's."""
    if owner is None:
        return key
    owned = f"@{owner} {key}"
    if len(owned) <= KEY_LENGTH_MAX:
        return owned
    return f"@{owner} blake2b:{blake2b(key.encode(), digest_size=32).hexdigest()}"


def as_sent(key: str) -> str:
    """An idempotency key as the sender of the request that is being answered knows it."""
    context = _current.get()
    return key if context is None or context.owner is None else key.removeprefix(f"@{context.owner} ")


def _unusable(header: str) -> ValidationException:
    message = "must be sent once and have 1 to 128 visible ASCII characters"
    return ValidationException(extra=[{"key": header, "source": "header", "message": message}])


_current: ContextVar[RequestContext | None] = ContextVar("cqrskit_request", default=None)


def current_request() -> RequestContext | None:
    """The request that is being answered; None where none is, or one that no route was found for."""
    return _current.get()


def correlation_of(scope: Scope) -> str:
    """The correlation id of a request, also of one that no route was found for."""
    context = _current.get()
    return (RequestContext(scope) if context is None else context).correlation_id


def in_context(
    app: ASGIApp, *, gate: Gate | None, only_known_parameters: bool, is_draining: Callable[[], bool]
) -> ASGIApp:
    """ASGI middleware: reads the headers of a request, and puts the correlation id into its reply and its log lines.

    It is one layer that does all that is to be done before a handler, since each layer costs every request. First the
    `gate` lets the request in, or raises. Bodies that are not of the route's media type are refused, and with
    `only_known_parameters` unknown query parameters.
    While `is_draining` each reply ends its connection.
    """

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            if gate is not None:
                await gate.admit(scope, RequestContext(scope).authorization)
            await app(scope, receive, send)
            return
        context = RequestContext(scope)
        header = (b"x-correlation-id", context.correlation_id.encode("ascii"))

        async def send_with_correlation_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                closing = [(b"connection", b"close")] if is_draining() else []
                message["headers"] = [*message["headers"], header, *closing]
            await send(message)

        token = _current.set(context)
        logged = structlog.contextvars.bind_contextvars(correlation_id=context.correlation_id)
        try:
            await in_request(context, receive, send_with_correlation_id)
        finally:
            structlog.contextvars.reset_contextvars(**logged)
            _current.reset(token)

    async def in_request(context: RequestContext, receive: Receive, send: Send) -> None:
        scope = context.scope
        if gate is not None:
            context.actor = await gate.admit(scope, context.authorization)
            context.owner = ANYBODY if context.actor is None else context.actor
        if context.content_type is not None:
            require_media_type(scope, context.content_type)
        if only_known_parameters and scope["query_string"]:
            require_known_parameters(scope)
        key = context.sent_key
        if key is None:
            await app(scope, receive, send)
        else:
            with ids_made_from(key):
                await app(scope, receive, send)

    return middleware
