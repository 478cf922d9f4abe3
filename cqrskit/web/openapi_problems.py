"""Which problems a route can answer with, by status: the part of the OpenAPI document that is about errors."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from inspect import getdoc

import msgspec
from litestar.handlers import HTTPRouteHandler

from cqrskit.access import Forbidden, RateLimited, Unauthenticated
from cqrskit.errors import (
    Busy,
    CommandFailed,
    CommitUnknown,
    CqrskitError,
    DeadlineExceeded,
    DocumentParked,
    IdempotencyConflict,
    IndexMissing,
    InvalidCursor,
    InvalidIdempotencyKey,
    InvalidQuery,
    NotYetVisible,
    RebuildRequired,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
)
from cqrskit.web.problems import HTTP_PROBLEMS, PROBLEMS, REFUSALS_OPTION, STATUSES_OPTION

__all__ = ["Codes", "Traits", "codes_of"]

Codes = dict[str, str]
"""Codes of problems, each with what it means."""

_OF_THE_GATE = (Unauthenticated, Forbidden, RateLimited, ServerUnavailable)
_OF_COMMANDS = (
    IdempotencyConflict,
    InvalidIdempotencyKey,
    Busy,
    ShuttingDown,
    DeadlineExceeded,
    ServerUnavailable,
    CommitUnknown,
    CommandFailed,
)
_OF_READERS = (DocumentParked, RebuildRequired, IndexMissing, NotYetVisible, ServerUnavailable)
_OF_SEARCHES = (InvalidCursor, InvalidQuery)


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What of a route decides about its problems and its headers."""

    is_open: bool
    gives_commands: bool
    reads: bool
    has_body: bool
    has_path_parameters: bool
    refuses_parameters: bool
    pages: bool


def codes_of(handler: HTTPRouteHandler, traits: Traits, statuses: Mapping[str, int]) -> dict[int, Codes | None]:
    """The codes that a route can give by status, in ascending order; None: any code, since nothing says which.

    `statuses` are the app's own for codes of refusals.
    """
    found: defaultdict[int, Codes] = defaultdict(dict)
    for error in _errors(traits):
        kind = next(kind for kind in PROBLEMS if issubclass(error, kind.error))
        found[kind.status][kind.code] = kind.title
    for status in _http_statuses(traits):
        code, title = HTTP_PROBLEMS[status]
        found[status].setdefault(code, title)
    open_statuses: set[int] = set()
    kinds: tuple[type[Rejected], ...] | None = handler.opt.get(REFUSALS_OPTION)
    of_route: Mapping[str, int] = handler.opt.get(STATUSES_OPTION, {})
    if kinds is not None:
        for refusal in kinds:
            status = of_route.get(refusal.code, statuses.get(refusal.code, _status_of(refusal)))
            found[status][refusal.code] = (getdoc(refusal) or refusal.code).partition("\n")[0]
    elif traits.gives_commands:
        open_statuses = {kind.status for kind in PROBLEMS if issubclass(kind.error, Rejected)}
        open_statuses |= set(of_route.values()) | set(statuses.values())
    else:
        for code, status in of_route.items():
            found[status].setdefault(code, code.replace("_", " ").capitalize())
    return {status: None if status in open_statuses else found[status] for status in sorted({*found, *open_statuses})}


def _status_of(refusal: type[Rejected]) -> int:
    return next(kind.status for kind in PROBLEMS if issubclass(refusal, kind.error))


def _errors(traits: Traits) -> Iterator[type[CqrskitError]]:
    if not traits.is_open:
        yield from _OF_THE_GATE
    if traits.gives_commands:
        yield from _OF_COMMANDS
    if traits.reads:
        yield from _OF_READERS
    if traits.pages:
        yield from _OF_SEARCHES


def _http_statuses(traits: Traits) -> Iterator[int]:
    if traits.refuses_parameters:
        yield 400
    if traits.has_path_parameters:
        yield 404
    if traits.has_body:
        yield from (413, 415)
    yield 500
