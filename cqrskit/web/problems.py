"""Errors as RFC 9457 problems (``application/problem+json``), from one table.

A problem has `type` (``about:blank``: the `code` is what tells kinds apart), `title`, `status`, `detail`, `instance`
(the path that was asked), `code`, and where there is more to say `details` (values of a refusal), `errors` (one entry
per wrong field) or `reference` (what to search for in the service's log). docs/reference/http-errors.md lists them.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import ClientException, HTTPException, ValidationException

from cqrskit.access import Forbidden, RateLimited, Unauthenticated
from cqrskit.errors import (
    AggregateExists,
    AggregateNotFound,
    Busy,
    CommandFailed,
    CommitUnknown,
    CqrskitError,
    DeadlineExceeded,
    DocumentParked,
    IdempotencyConflict,
    IndexMissing,
    InvalidCursor,
    InvalidField,
    InvalidIdempotencyKey,
    InvalidQuery,
    NotYetVisible,
    RebuildRequired,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
)
from cqrskit.web.commands import IDEMPOTENT_REPLAY
from cqrskit.web.patterns import in_words
from cqrskit.web.requests import (
    CORRELATION_ID,
    IDEMPOTENCY_KEY,
    InvalidKeyHeader,
    as_sent,
    correlation_of,
    current_request,
)

__all__ = [
    "HTTP_PROBLEMS",
    "PROBLEMS",
    "FieldError",
    "Problem",
    "ProblemKind",
    "Problems",
    "problem_code",
    "problem_statuses",
    "refusals",
]

log = structlog.get_logger(__name__)

PROBLEM_JSON = "application/problem+json"
STATUSES_OPTION = "cqrskit_statuses"
REFUSALS_OPTION = "cqrskit_refusals"
RETRY_AFTER_SECONDS = 1.0


class FieldError(msgspec.Struct, frozen=True):
    """One wrong value of a request."""

    field: Annotated[str, msgspec.Meta(description="where: the path of a body's field, or a parameter's name")]
    source: Annotated[str, msgspec.Meta(description="body, query, path or header")] = msgspec.field(name="in")
    message: Annotated[str, msgspec.Meta(description="what is wrong with it")]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as it goes over the wire."""

    title: Annotated[str, msgspec.Meta(description="the kind of problem, for people")]
    status: Annotated[int, msgspec.Meta(description="the HTTP status")]
    code: Annotated[str, msgspec.Meta(description="the kind of problem, for programs")]
    instance: Annotated[str, msgspec.Meta(description="the path that was asked")]
    detail: Annotated[str | None, msgspec.Meta(description="what could not be done, and what to do next")] = None
    details: Annotated[dict[str, Any], msgspec.Meta(description="the values of a refusal")] = {}
    errors: Annotated[list[FieldError], msgspec.Meta(description="one for each wrong value")] = []
    reference: Annotated[
        str | None, msgspec.Meta(description="what to search for in the service's log, where the service failed")
    ] = None


class ProblemKind(msgspec.Struct, frozen=True):
    """One line of the table: what an error of this class becomes.

    `internal`: its message is for our log, not for callers, who get a reference instead.
    """

    error: type[CqrskitError]
    status: int
    code: str
    title: str
    retry_after: bool = False
    internal: bool = False


PROBLEMS: tuple[ProblemKind, ...] = (
    ProblemKind(Unauthenticated, 401, "unauthenticated", "Not authenticated"),
    ProblemKind(Forbidden, 403, "forbidden", "Not allowed"),
    ProblemKind(RateLimited, 429, "rate_limited", "Too many requests", retry_after=True),
    ProblemKind(AggregateNotFound, 404, "not_found", "Not found"),
    ProblemKind(AggregateExists, 409, "already_exists", "Exists already"),
    ProblemKind(IdempotencyConflict, 409, "idempotency_conflict", "The idempotency key has another content"),
    ProblemKind(Rejected, 422, "rejected", "Refused"),
    ProblemKind(InvalidCursor, 400, "invalid_cursor", "Invalid cursor"),
    ProblemKind(InvalidQuery, 400, "invalid_query", "Invalid query"),
    ProblemKind(InvalidIdempotencyKey, 400, "invalid_idempotency_key", "Invalid idempotency key"),
    ProblemKind(DocumentParked, 409, "document_parked", "The document lacks an event"),
    ProblemKind(RebuildRequired, 503, "rebuild_required", "The read model does not fit this version of the service"),
    ProblemKind(IndexMissing, 503, "index_missing", "The read model is not there"),
    ProblemKind(Busy, 503, "busy", "Too many commands are waiting", retry_after=True),
    ProblemKind(ShuttingDown, 503, "shutting_down", "The service is stopping", retry_after=True),
    ProblemKind(DeadlineExceeded, 503, "deadline_exceeded", "The command waited too long", retry_after=True),
    ProblemKind(NotYetVisible, 503, "not_yet_visible", "The read model is behind", retry_after=True),
    ProblemKind(ServerUnavailable, 503, "server_unavailable", "A server does not answer", retry_after=True),
    ProblemKind(CommitUnknown, 500, "commit_unknown", "It is not known whether the command took effect"),
    ProblemKind(CommandFailed, 500, "command_failed", "The command failed and changed nothing", internal=True),
    ProblemKind(CqrskitError, 500, "internal_error", "Internal error", internal=True),
)
"""What each error becomes; the first line whose class fits counts."""

HTTP_PROBLEMS: Mapping[int, tuple[str, str]] = {
    400: ("invalid_request", "Invalid request"),
    401: ("unauthenticated", "Not authenticated"),
    403: ("forbidden", "Not allowed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    406: ("not_acceptable", "Not acceptable"),
    413: ("body_too_large", "Body too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    429: ("rate_limited", "Too many requests"),
    500: ("internal_error", "Internal error"),
    503: ("unavailable", "Unavailable"),
}
"""Code and title of the problems that Litestar itself finds in a request, by status."""


def refusals(*kinds: type[Rejected]) -> dict[str, Any]:
    """The refusals that commands of a route can meet, for its OpenAPI description: ``opt=refusals(AccountNotFound)``.

    Together with others: ``opt=refusals(...) | problem_statuses(...)``. A route that says nothing may refuse anything.
    """
    return {REFUSALS_OPTION: kinds}


def problem_statuses(**statuses: int) -> dict[str, Any]:
    """Statuses for codes of refusals on one route or controller: ``opt=problem_statuses(account_not_found=404)``."""
    return {STATUSES_OPTION: statuses}


def problem_code(error: CqrskitError) -> str:
    """The `code` of the problem that this error becomes."""
    return error.code if isinstance(error, Rejected) else _kind_of(error).code


def _kind_of(error: CqrskitError) -> ProblemKind:
    return next(kind for kind in PROBLEMS if isinstance(error, kind.error))


class Problems:
    """Turns exceptions into problem responses; `statuses` gives refusals of these codes another status than 422."""

    def __init__(self, statuses: Mapping[str, int], *, body_size_max_bytes: int) -> None:
        self._statuses = statuses
        self._body_size_max_bytes = body_size_max_bytes

    def of_cqrskit(self, request: Request[Any, Any, Any], error: CqrskitError) -> Response[bytes]:
        """The response for one of cqrskit's own errors, or an application's refusal."""
        if isinstance(error, InvalidField):
            wrong = {"key": error.field, "source": "body", "message": error.message}
            return self.of_http(request, ValidationException(extra=[wrong]))
        kind = _kind_of(error)
        if kind.internal:
            return self._internal(request, error, kind.code, kind.title)
        if isinstance(error, Rejected):
            return self._refusal(request, error, kind)
        detail = _detail(error)
        errors: list[FieldError] = []
        if isinstance(error, InvalidKeyHeader):
            errors = [FieldError(IDEMPOTENCY_KEY, "header", str(error))]
        problem = Problem(
            title=kind.title,
            status=kind.status,
            code=kind.code,
            instance=request.url.path,
            detail=detail,
            errors=errors,
        )
        if isinstance(error, ServerUnavailable):
            log.warning("request.server_unavailable", path=request.url.path, reason=str(error))
        if isinstance(error, RebuildRequired):
            log.error("request.rebuild_required", path=request.url.path, reason=str(error))
        headers = _challenge(error)
        if kind.retry_after:
            seconds = getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS)
            headers["Retry-After"] = str(max(1, math.ceil(seconds)))
        return _respond(request, problem, headers)

    def of_http(self, request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        """The response for what Litestar found in the request, and for HTTPException that a handler raises."""
        status = error.status_code
        if status == 500:
            return self.of_unexpected(request, error)
        code, title = HTTP_PROBLEMS.get(status, (f"http_{status}", "Request refused"))
        detail: str | None = error.detail or None
        errors: list[FieldError] = []
        if status == 400 and isinstance(error.extra, list):
            errors = [_field_error(each, request) for each in error.extra if isinstance(each, dict)]
            detail = "; ".join(_sentence(each) for each in errors) or detail
        elif status == 413:
            detail = f"the body is larger than {self._body_size_max_bytes} bytes"
        elif status == 404 and detail == "Not Found":
            detail = f"there is nothing at {request.url.path}"
        elif status == 405:
            detail = f"{request.method} is not allowed at {request.url.path}"
        problem = Problem(
            title=title, status=status, code=code, instance=request.url.path, detail=detail, errors=errors
        )
        return _respond(request, problem, dict(error.headers or {}))

    def of_unexpected(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        """The response for an error that nobody planned: a reference, and the traceback in the log under it."""
        if isinstance(error, RecursionError) and "deserializing" in str(error):
            return self.of_http(request, ClientException("the body is nested too deeply"))
        return self._internal(request, error, *HTTP_PROBLEMS[500])

    def _internal(self, request: Request[Any, Any, Any], error: Exception, code: str, title: str) -> Response[bytes]:
        reference = uuid4().hex
        log.error("request.failed", reference=reference, method=request.method, path=request.url.path, exc_info=error)
        problem = Problem(
            title=title,
            status=500,
            code=code,
            instance=request.url.path,
            detail="the service failed; its log tells more under the reference",
            reference=reference,
        )
        return _respond(request, problem)

    def _refusal(self, request: Request[Any, Any, Any], error: Rejected, kind: ProblemKind) -> Response[bytes]:
        status = self._statuses.get(error.code, kind.status)
        if "route_handler" in request.scope:
            status = request.route_handler.opt.get(STATUSES_OPTION, {}).get(error.code, status)
        if isinstance(error, IdempotencyConflict):
            error = IdempotencyConflict(as_sent(error.key), error.field)
        title = kind.title if error.code == kind.code else error.code.replace("_", " ").capitalize()
        problem = Problem(
            title=title,
            status=status,
            code=error.code,
            instance=request.url.path,
            detail=str(error),
            details=error.details,
        )
        return _respond(request, problem, {IDEMPOTENT_REPLAY: "true"} if error.replayed else None)


def _challenge(error: CqrskitError) -> dict[str, str]:
    """The header that says how to get in, as RFC 6750 has it."""
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": 'Bearer error="invalid_token"' if error.sent else "Bearer"}
    if isinstance(error, Forbidden):
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
    return {}


def _detail(error: CqrskitError) -> str:
    """What callers are told; what operators should do about it goes to our log."""
    if isinstance(error, ServerUnavailable):
        return f"{error.server} does not answer"
    if isinstance(error, RebuildRequired):
        return f"the documents of projection {error.projection!r} were made by another version of the service"
    if isinstance(error, IndexMissing):
        return "the documents of this read model are gone, and must be made anew before it answers"
    if isinstance(error, DocumentParked):
        return (
            f"document {error.document_id!r} lacks the event at position {error.position}, which could not be folded "
            "into it; ask without a position to get the document as it was before, marked as stale"
        )
    return str(error)


def _field_error(found: dict[str, Any], request: Request[Any, Any, Any]) -> FieldError:
    """Litestar's description of a wrong value in our words."""
    source, key = found.get("source"), str(found.get("key", ""))
    if key == "data":
        key = ""
    message = str(found.get("message", ""))
    if "route_handler" in request.scope:
        message = in_words(message, request.route_handler)
    return FieldError(key, str(getattr(source, "value", source) or "body"), message)


def _sentence(error: FieldError) -> str:
    return f"{error.field}: {error.message}" if error.field else error.message


def _respond(
    request: Request[Any, Any, Any], problem: Problem, headers: Mapping[str, str] | None = None
) -> Response[bytes]:
    body = {"type": "about:blank", **msgspec.to_builtins(problem, enc_hook=str)}
    all_headers = dict(headers or {})
    if current_request() is None:
        all_headers[CORRELATION_ID] = correlation_of(request.scope)
    return Response(msgspec.json.encode(body), status_code=problem.status, headers=all_headers, media_type=PROBLEM_JSON)
