"""Every span that cqrskit makes, and its attributes; names are OpenTelemetry's own where its conventions have them."""

from typing import Literal

import msgspec

__all__ = [
    "COMMAND_NAME",
    "COMMAND_OUTCOME",
    "COMMAND_POSITION",
    "COMMAND_REFUSAL",
    "DB_BATCH_SIZE",
    "DB_OPERATION",
    "DB_SYSTEM",
    "DUE_KEY",
    "ERROR_TYPE",
    "EVENTS_COUNT",
    "EVENT_POSITION",
    "HTTP_METHOD",
    "HTTP_ROUTE",
    "HTTP_STATUS",
    "PARTITION",
    "PROJECTION_NAME",
    "REACTION_NAME",
    "SPANS",
    "URL_PATH",
    "URL_SCHEME",
    "SpanKind",
]

HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
URL_PATH = "url.path"
URL_SCHEME = "url.scheme"
ERROR_TYPE = "error.type"
DB_SYSTEM = "db.system.name"
DB_OPERATION = "db.operation.name"
DB_BATCH_SIZE = "db.operation.batch.size"
COMMAND_NAME = "cqrskit.command"
COMMAND_OUTCOME = "cqrskit.command.outcome"
COMMAND_POSITION = "cqrskit.command.position"
COMMAND_REFUSAL = "cqrskit.command.refusal"
PROJECTION_NAME = "cqrskit.projection"
PARTITION = "cqrskit.projection.partition"
EVENTS_COUNT = "cqrskit.projection.events"
REACTION_NAME = "cqrskit.reaction"
EVENT_POSITION = "cqrskit.event.position"
DUE_KEY = "cqrskit.due_command.key"

DATABASE = (DB_SYSTEM, DB_OPERATION, DB_BATCH_SIZE)


class SpanKind(msgspec.Struct, frozen=True):
    """One kind of span: OpenTelemetry's kind, of what it is a part, the attributes that it may have, its meaning."""

    kind: Literal["server", "internal", "client", "consumer"]
    parent: str
    attributes: tuple[str, ...]
    meaning: str


SPANS = {
    "{method} {route}": SpanKind(
        "server",
        "what the `traceparent` of the request names",
        (HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, URL_PATH, URL_SCHEME, ERROR_TYPE),
        "A request, from its headers to the end of its reply.",
    ),
    "command {command}": SpanKind(
        "internal",
        "the request, or whatever gave it",
        (COMMAND_NAME, COMMAND_OUTCOME, COMMAND_POSITION, COMMAND_REFUSAL, ERROR_TYPE),
        "A command, from the queue to its outcome.",
    ),
    "queue": SpanKind("internal", "the command", (), "It waits for its turn."),
    "decide": SpanKind("internal", "the command", (), "Its batch is decided, loading included."),
    "append": SpanKind("client", "the command", DATABASE, "Its batch is appended and committed."),
    "project {projection}": SpanKind(
        "consumer",
        "the first command whose events are in the block; linked to up to 32 others",
        (PROJECTION_NAME, PARTITION, EVENTS_COUNT),
        "Events are folded into documents, which are written together.",
    ),
    "fold": SpanKind("internal", "the block", (), "The events are read and folded."),
    "write": SpanKind("client", "the block", DATABASE, "The documents are written, and the checkpoint moves."),
    "react {reaction}": SpanKind(
        "consumer", "the command that made the event", (REACTION_NAME, EVENT_POSITION), "An event leads to commands."
    ),
    "due {command}": SpanKind(
        "consumer",
        "the command, or the reaction, that asked for it",
        (COMMAND_NAME, DUE_KEY, ERROR_TYPE),
        "A due command is tried.",
    ),
}
"""Every span that cqrskit makes; ``docs/reference/traces.md`` shows them."""
