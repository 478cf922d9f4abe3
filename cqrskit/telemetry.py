"""Logs: readable on a terminal, JSON lines elsewhere; every log event's name is listed here."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

import msgspec
import structlog

__all__ = ["LOG_EVENTS", "LogEvent", "configure_logging", "correlated"]

log = structlog.get_logger(__name__)


class LogEvent(msgspec.Struct, frozen=True):
    """One log event: its level, the fields that it always has, what it means, and what to do about it."""

    level: Literal["info", "warning", "error", "varies"]
    fields: tuple[str, ...]
    meaning: str
    remedy: str = "Nothing."


WAIT = "Start or mend the server, or correct the setting that names it; the work goes on by itself."

LOG_EVENTS = {
    "access.key_refused": LogEvent(
        "info",
        ("key_id", "reason"),
        "A request came with an API key that opens nothing; the reason is for operators only.",
        "Many of one key: its owner uses an old one. Of many keys: somebody tries.",
    ),
    "access.keys_not_looked_up": LogEvent(
        "warning", ("reason",), "Postgres does not answer, so API keys that were used lately go on for a while.", WAIT
    ),
    "access.no_keys": LogEvent(
        "warning",
        ("make_one",),
        "The API refuses everybody until somebody makes an API key.",
        "Run the command that `make_one` shows.",
    ),
    "database.embedded": LogEvent(
        "info",
        ("folder", "setting"),
        "No database is configured, so an embedded Postgres runs in the data folder.",
        "Set what `setting` names, where the data matters.",
    ),
    "due_command.failed": LogEvent(
        "warning",
        ("key", "command", "attempts", "reason"),
        "A due command's handler failed; it is tried again after a pause.",
        "Look for `executor.handler_failed`, and mend the handler.",
    ),
    "due_command.parked": LogEvent(
        "error",
        ("key", "command", "attempts", "reason"),
        "A due command failed too often and is set aside.",
        "Mend its handler, then `cqrskit due retry`; or `cqrskit due drop`.",
    ),
    "due_command.refused": LogEvent(
        "warning",
        ("key", "command", "reason"),
        "The domain refused a due command, which is its outcome; it is not tried again.",
        "Nothing, unless it should have been possible.",
    ),
    "due_command.waits_for_newer_code": LogEvent(
        "warning",
        ("key", "command", "reason"),
        "A due command needs events that only newer code can read; it is tried again.",
        "Stop the old processes, once new ones are there.",
    ),
    "due_commands.failed": LogEvent(
        "error",
        (),
        "Due commands could not be looked for; it is tried again in a moment.",
        "Report the traceback: nobody planned this.",
    ),
    "due_commands.wait_for_server": LogEvent(
        "warning", ("reason",), "Due commands wait because a server does not answer.", WAIT
    ),
    "elasticsearch.circuit_closed": LogEvent("info", ("address",), "Elasticsearch answers again."),
    "elasticsearch.circuit_half_open": LogEvent(
        "info", ("address",), "One request is tried to find out whether Elasticsearch answers again."
    ),
    "elasticsearch.circuit_opened": LogEvent(
        "warning",
        ("address", "pause_seconds", "reason"),
        "Elasticsearch has not answered several times; requests fail at once for the pause.",
        WAIT,
    ),
    "elasticsearch.credentials_in_clear": LogEvent(
        "warning",
        ("hosts", "setting"),
        "A password or an API key is sent to Elasticsearch over http, which others may read.",
        "Use https.",
    ),
    "elasticsearch.template_not_made": LogEvent(
        "warning",
        ("template", "reason"),
        "We may not make index templates; indexes are made without one.",
        "Give the user the privilege, or make the template yourself.",
    ),
    "executor.append_failed": LogEvent(
        "error",
        (),
        "An unexpected error ended an append; the log is asked whether it took effect.",
        "Report the traceback: nobody planned this.",
    ),
    "executor.batch_failed": LogEvent(
        "error",
        ("commands",),
        "An unexpected error ended a batch; its callers were told that the outcome is unknown.",
        "Report the traceback: nobody planned this.",
    ),
    "executor.batch_undecidable": LogEvent(
        "error",
        (),
        "An error outside any handler met a batch, which is halved to find its command.",
        "The traceback names it: often an event that its aggregate cannot apply.",
    ),
    "executor.commit_unknown": LogEvent(
        "warning",
        ("commands",),
        "A commit's answer was lost; the log is asked whether it took effect.",
        "Look after the connection to Postgres, if it happens often.",
    ),
    "executor.handler_failed": LogEvent(
        "error",
        ("command",),
        "A handler raised something other than Rejected; the command changed nothing.",
        "Mend the handler that the traceback names.",
    ),
    "library.message": LogEvent("varies", ("logger", "message"), "A warning or an error of a library.", "As it says."),
    "listener.disconnected": LogEvent(
        "warning", ("reason",), "The connection that wakes followers was lost; they poll until it is back.", WAIT
    ),
    "listener.polls": LogEvent(
        "info", (), "A connection pooler stands before Postgres, so followers are not woken; they poll."
    ),
    "notifier.disconnected": LogEvent(
        "warning", ("reason",), "The connection that sends wake-ups was lost; followers poll until it is back.", WAIT
    ),
    "projection.rebuild_due": LogEvent(
        "warning",
        ("projection", "generation"),
        "A projection's documents were folded by other code, and this code goes on with them.",
        "Run `cqrskit rebuild`, or `cqrskit verify` if nothing is changed.",
    ),
    "projector.key_parked": LogEvent(
        "error",
        ("projection", "key", "position", "reason"),
        "A document's fold failed; its key is set aside and the projection goes on.",
        "See [A poison event at 3 a.m.](../how-to/a-poison-event-at-3-a-m.md).",
    ),
    "projector.key_retried": LogEvent(
        "info", ("projection", "key"), "A parked key was tried again and is level; its events wait no longer."
    ),
    "projector.stopped": LogEvent(
        "error",
        ("projection", "reason"),
        "A projection cannot go on.",
        "Correct what the reason names, then start the process again.",
    ),
    "projector.waits_for_server": LogEvent(
        "warning", ("projection", "reason"), "A projection tries again because a server does not answer.", WAIT
    ),
    "reaction.event_parked": LogEvent(
        "error",
        ("reaction", "position", "reason"),
        "A reaction failed at an event, which is set aside; later events go on.",
        "Mend the reaction, then `cqrskit due retry`; or `cqrskit due drop`.",
    ),
    "reaction.waits_for_newer_code": LogEvent(
        "error",
        ("reaction", "reason"),
        "A reaction has come to an event that only newer code can read, and stays there.",
        "Stop the old processes, once new ones are there.",
    ),
    "reactions.failed": LogEvent(
        "error",
        ("reaction",),
        "A reaction could not go on; it is tried again in a moment.",
        "Report the traceback: nobody planned this.",
    ),
    "reactions.wait_for_server": LogEvent(
        "warning", ("reaction", "reason"), "A reaction waits because a server does not answer.", WAIT
    ),
    "read_models.postgres": LogEvent(
        "info", ("setting",), "No Elasticsearch is configured, so read models live in Postgres."
    ),
    "read_store.away": LogEvent(
        "warning",
        ("address", "reason"),
        "The start goes on without Elasticsearch: commands are taken, queries and projections wait.",
        WAIT,
    ),
    "read_store.back": LogEvent("info", ("address",), "Elasticsearch, which was away at the start, is there."),
    "read_store.unusable": LogEvent(
        "error",
        ("address", "reason"),
        "Elasticsearch, which was away at the start, answers but cannot be used; it is tried again.",
        "Correct what the reason names; a setting is read at the next start.",
    ),
    "receipts.failed": LogEvent(
        "error",
        (),
        "Receipts that are too old could not be deleted; it is tried again in an hour.",
        "Report the traceback: nobody planned this.",
    ),
    "receipts.not_pruned": LogEvent(
        "warning", ("reason",), "Receipts that are too old could not be deleted because a server does not answer.", WAIT
    ),
    "receipts.pruned": LogEvent(
        "info", ("receipts", "before"), "Receipts that are older than `CQRSKIT_RECEIPTS_KEPT_DAYS` were deleted."
    ),
    "request.failed": LogEvent(
        "error",
        ("reference", "method", "path"),
        "An HTTP request ended in an unexpected error.",
        "Mend what the traceback names; the caller was told the `reference`.",
    ),
    "request.rebuild_required": LogEvent(
        "error", ("path", "reason"), "A query met documents that this code cannot read.", "Run `cqrskit rebuild`."
    ),
    "request.server_unavailable": LogEvent(
        "warning", ("path", "reason"), "An HTTP request could not be answered because a server does not answer.", WAIT
    ),
    "server.message": LogEvent("varies", ("message",), "A warning or an error of the HTTP server.", "As it says."),
    "servers.waiting": LogEvent(
        "warning",
        ("server", "address", "reason", "seconds"),
        "The start waits for a server that does not answer, for at most so many seconds.",
        "Start or mend the server, or correct the setting that names it.",
    ),
    "service.listening": LogEvent("info", ("address",), "The HTTP server answers requests at the address."),
    "service.started": LogEvent("info", ("application", "projections"), "The service takes commands."),
    "service.stopped": LogEvent("info", ("application",), "The service has finished what it had accepted."),
    "snapshots.impossible": LogEvent(
        "warning",
        ("aggregate", "reason"),
        "An aggregate has attributes that are not annotated, so its class has no snapshots.",
        "See [Keep long streams quick](../how-to/keep-long-streams-quick.md).",
    ),
    "snapshots.not_saved": LogEvent(
        "warning", ("snapshots", "reason"), "Snapshots could not be saved; streams load without them.", WAIT
    ),
    "tracing.failed": LogEvent(
        "warning",
        ("reason",),
        "Something of OpenTelemetry raised an error; later ones are passed over in silence.",
        "Mend the sampler, processor or exporter that the traceback names.",
    ),
    "worker.failed": LogEvent(
        "error",
        ("worker", "reason"),
        "A worker could not do its rounds; it tries again in a moment.",
        "As the reason says.",
    ),
    "worker.not_signed_off": LogEvent(
        "warning",
        ("worker", "reason"),
        "A worker that ended could not say so; the others notice when its leases run out.",
    ),
    "worker.took_partition": LogEvent(
        "info", ("projection", "generation", "partition"), "A worker moves a partition of a projection from now on."
    ),
    "worker.waits_for_server": LogEvent(
        "warning", ("worker", "reason"), "A worker tries again because a server does not answer.", WAIT
    ),
}
"""Every log event that cqrskit writes; ``docs/reference/log-events.md`` shows them."""


@contextmanager
def correlated(correlation_id: str | None) -> Iterator[None]:
    """Give the lines that are logged meanwhile this correlation id, if there is one."""
    if correlation_id is None:
        yield
        return
    with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
        yield


class _Forward(logging.Handler):
    """Hands what libraries log to structlog, so that each line has the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        message = record.getMessage()
        log.log(record.levelno, "library.message", logger=record.name, message=message, exc_info=record.exc_info)


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send events of `level` and above, and what libraries warn of, to `stream` (default: standard error)."""
    output = sys.stderr if stream is None else stream
    terminal = output.isatty()
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=terminal,
            exception_formatter=structlog.dev.plain_traceback,  # a rich one shows variables, and so API keys
        )
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)  # of what fails in passing we tell ourselves
    root = logging.getLogger()
    if not any(isinstance(handler, _Forward) for handler in root.handlers):
        root.addHandler(_Forward(logging.WARNING))
