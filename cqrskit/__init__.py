"""CQRS and event sourcing on Postgres and Elasticsearch.

Command handlers append domain events to a Postgres log; projectors fold them into documents in Elasticsearch (or
Postgres); queries read the documents, and a reader that asks for its own write gets it.
"""

from cqrskit.access import Forbidden, RateLimited, Scope, Unauthenticated
from cqrskit.aggregate import Aggregate, event
from cqrskit.application import Application, Runtime
from cqrskit.commands import Command, handles
from cqrskit.consistency import Answer, Reader
from cqrskit.document import Indexed, Nested, Text, Unindexed
from cqrskit.errors import (
    AggregateExists,
    AggregateNotFound,
    Busy,
    CommandFailed,
    CommitUnknown,
    ConfigurationError,
    CqrskitError,
    DeadlineExceeded,
    DefinitionError,
    DocumentParked,
    IdempotencyConflict,
    InvalidCursor,
    InvalidField,
    InvalidIdempotencyKey,
    InvalidQuery,
    MigrationRequired,
    NotYetVisible,
    RebuildRequired,
    Rejected,
    ServerUnavailable,
    ShuttingDown,
)
from cqrskit.event_versions import upcasts
from cqrskit.events import Metadata, RecordedEvent
from cqrskit.executor import CommandResult, Executor
from cqrskit.identifiers import new_id
from cqrskit.projection import Projection, on
from cqrskit.query import All, Any, Condition, Exists, Match, Not, Prefix, Query, Range, Sort, Term, Terms
from cqrskit.reactions import Reaction
from cqrskit.read_store import IndexSettings, Page, Stored
from cqrskit.repository import Repository
from cqrskit.settings import Settings, load_settings
from cqrskit.status import ProjectionStatus
from cqrskit.summary import DateHistogram, Figures, Group, Groups, Histogram, Summary, Values

__all__ = [
    "Aggregate",
    "AggregateExists",
    "AggregateNotFound",
    "All",
    "Answer",
    "Any",
    "Application",
    "Busy",
    "Command",
    "CommandFailed",
    "CommandResult",
    "CommitUnknown",
    "Condition",
    "ConfigurationError",
    "CqrskitError",
    "DateHistogram",
    "DeadlineExceeded",
    "DefinitionError",
    "DocumentParked",
    "Executor",
    "Exists",
    "Figures",
    "Forbidden",
    "Group",
    "Groups",
    "Histogram",
    "IdempotencyConflict",
    "IndexSettings",
    "Indexed",
    "InvalidCursor",
    "InvalidField",
    "InvalidIdempotencyKey",
    "InvalidQuery",
    "Match",
    "Metadata",
    "MigrationRequired",
    "Nested",
    "Not",
    "NotYetVisible",
    "Page",
    "Prefix",
    "Projection",
    "ProjectionStatus",
    "Query",
    "Range",
    "RateLimited",
    "Reaction",
    "Reader",
    "RebuildRequired",
    "RecordedEvent",
    "Rejected",
    "Repository",
    "Runtime",
    "ServerUnavailable",
    "Scope",
    "Settings",
    "ShuttingDown",
    "Sort",
    "Stored",
    "Summary",
    "Term",
    "Terms",
    "Text",
    "Unauthenticated",
    "Unindexed",
    "Values",
    "event",
    "handles",
    "load_settings",
    "new_id",
    "on",
    "upcasts",
]
