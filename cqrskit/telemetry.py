"""Logs: readable on a terminal, JSON lines elsewhere; every log event's name is listed here."""

import logging
import sys
from typing import TextIO

import structlog

__all__ = ["LOG_EVENTS", "configure_logging"]

LOG_EVENTS = {
    "access.key_refused": "a request came with an API key that opens nothing; the reason is for operators only",
    "access.keys_not_looked_up": "Postgres does not answer, so API keys that were used lately go on for a while",
    "access.no_keys": "the API refuses everybody until somebody makes an API key",
    "database.embedded": "no database is configured, so an embedded Postgres runs in the data folder",
    "due_command.failed": "a due command's handler failed; it is tried again after a pause",
    "due_command.parked": "a due command failed too often and is set aside until somebody retries or drops it",
    "due_command.refused": "the domain refused a due command, which is its outcome; it is not tried again",
    "due_command.waits_for_newer_code": "a due command needs events that only newer code can read; it is tried again",
    "due_commands.failed": "due commands could not be looked for; it is tried again in a moment",
    "due_commands.wait_for_server": "due commands wait because a server does not answer",
    "elasticsearch.circuit_closed": "Elasticsearch answers again",
    "elasticsearch.circuit_half_open": "one request is tried to find out whether Elasticsearch answers again",
    "elasticsearch.circuit_opened": "Elasticsearch has not answered several times; requests fail at once for the pause",
    "elasticsearch.credentials_in_clear": "a password or an API key is sent to Elasticsearch over http, which oth",
    "elasticsearch.template_not_made": "we may not make index templates; indexes are made without one",
    "executor.batch_failed": "an unexpected error ended a batch; its callers were told that the outcome is unknown",
    "executor.append_failed": "an unexpected error ended an append; the log is asked whether it took effect",
    "executor.batch_undecidable": "an error outside any handler met a batch, which is halved to find its command",
    "executor.commit_unknown": "a commit's answer was lost; the log is asked whether it took effect",
    "executor.handler_failed": "a handler raised something other than Rejected; the command changed nothing",
    "listener.disconnected": "the connection that wakes followers was lost; they poll until it is back",
    "listener.polls": "a connection pooler stands before Postgres, so followers are not woken; they poll",
    "notifier.disconnected": "the connection that sends wake-ups was lost; followers poll until it is back",
    "projector.key_parked": "a document's fold failed; its key is set aside and the projection goes on",
    "projector.key_retried": "a parked key was tried again and is level; its events wait no longer",
    "projector.stopped": "a projection cannot go on until somebody corrects what the reason names",
    "projector.waits_for_server": "a projection tries again because a server does not answer",
    "projection.rebuild_due": "a projection's documents were folded by other code, and this code goes on with them",
    "reaction.event_parked": "a reaction failed at an event, which is set aside; later events go on",
    "reaction.waits_for_newer_code": "a reaction has come to an event that only newer code can read, and stays there",
    "reactions.failed": "a reaction could not go on; it is tried again in a moment",
    "reactions.wait_for_server": "a reaction waits because a server does not answer",
    "read_models.postgres": "no Elasticsearch is configured, so read models live in Postgres",
    "receipts.not_pruned": "receipts that are too old could not be deleted; it is tried again in an hour",
    "receipts.pruned": "receipts that are older than CQRSKIT_RECEIPTS_KEPT_DAYS were deleted",
    "request.failed": "an HTTP request ended in an unexpected error",
    "request.rebuild_required": "a query met documents that this code cannot read; a rebuild makes new ones",
    "request.server_unavailable": "an HTTP request could not be answered because a server does not answer",
    "snapshots.impossible": "an aggregate has attributes that are not annotated, so its class has no snapshots",
    "snapshots.not_saved": "snapshots could not be saved; streams load without them",
    "server.message": "a warning or an error of the HTTP server",
    "service.listening": "the HTTP server answers requests at the address",
    "service.started": "the service takes commands",
    "service.stopped": "the service has finished what it had accepted",
    "worker.failed": "a worker could not do its rounds; it tries again in a moment",
    "worker.not_signed_off": "a worker that ended could not say so; the others notice when its leases run out",
    "worker.took_partition": "a worker moves a partition of a projection from now on",
    "worker.waits_for_server": "a worker tries again because a server does not answer",
}
"""Every log event that cqrskit writes, and what it means."""


def configure_logging(level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's events of `level` and above to `stream` (default: standard error)."""
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
