"""What the OpenAPI document says of headers: those that requests may have, and those that replies carry."""

from collections.abc import Mapping
from typing import Any

from cqrskit.web.commands import IDEMPOTENT_REPLAY
from cqrskit.web.positions import CONSISTENCY_POSITION, POSITION_MAX
from cqrskit.web.requests import CAUSATION_ID, CORRELATION_ID, IDEMPOTENCY_KEY

__all__ = ["HEADERS", "PARAMETERS", "REQUEST_HEADERS"]

_ID = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]{1,128}$"}

HEADERS: dict[str, dict[str, Any]] = {
    CONSISTENCY_POSITION: {
        "description": "Position of the command's last event; a query that sends it back sees what the command did.",
        "schema": {"type": "integer", "minimum": 0, "maximum": POSITION_MAX},
        "required": True,
    },
    IDEMPOTENT_REPLAY: {
        "description": "There, with the value true, if the command was decided before: this is the first reply again.",
        "schema": {"const": "true"},
    },
    "Retry-After": {
        "description": "Whole seconds after which a retry makes sense; not there where waiting does not help.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "How to get in, as RFC 6750 has it.",
        "schema": {"type": "string"},
        "required": True,
    },
    CORRELATION_ID: {
        "description": "The request's, or one that was made for it; it is in all that the service logs meanwhile.",
        "schema": _ID,
        "required": True,
    },
}
"""Headers of replies."""

PARAMETERS: dict[str, dict[str, Any]] = {
    IDEMPOTENCY_KEY: {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "description": "Makes a retry safe: the same key with the same content gets the first reply again. "
        "It belongs to the API key that it came with.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]{1,255}$"},
        "example": "order-4711",
    },
    CORRELATION_ID: {
        "name": CORRELATION_ID,
        "in": "header",
        "description": "Written beside every event and log line, and given back; without it one is made.",
        "schema": _ID,
    },
    CAUSATION_ID: {
        "name": CAUSATION_ID,
        "in": "header",
        "description": "What caused the request; written beside every event.",
        "schema": _ID,
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; written beside every event. One that is malformed is ignored.",
        "schema": {"type": "string"},
    },
    "any-correlation-id": {
        "name": CORRELATION_ID,
        "in": "header",
        "description": "Written beside every log line, and given back; in the place of one that is not 1 to 128 "
        "visible ASCII characters another is made.",
        "schema": {"type": "string"},
    },
}
"""Headers of requests, by their names in the document's components."""

REQUEST_HEADERS: Mapping[str, tuple[str, ...]] = {
    "commands": (IDEMPOTENCY_KEY, CORRELATION_ID, CAUSATION_ID, "traceparent"),
    "queries": ("any-correlation-id",),
}
"""Which of them a route looks at."""
