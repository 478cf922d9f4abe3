"""Every error that cqrskit raises on purpose, drawn as one tree.

::

    CqrskitError
    ├── ConfigurationError          a setting, a command line or a wiring is wrong; found at start-up
    │   ├── DefinitionError         an aggregate, an event, a handler or a projection is declared wrongly
    │   ├── MigrationRequired       the database's tables are older or newer than this code
    │   └── RebuildRequired         a projection's documents have other fields than this code's
    ├── ServerUnavailable           Postgres or Elasticsearch does not answer
    ├── UnknownEventType            the log holds an event type that no registered aggregate declares
    ├── EventDecodeError            stored bytes do not fit the event class, or an upcaster failed
    ├── Rejected                    a command was refused by the domain; subclass it in your own app
    │   ├── AggregateNotFound
    │   ├── AggregateExists
    │   └── IdempotencyConflict     an idempotency key was used before for another command
    ├── InvalidField                a command's own check refuses the value of one of its fields
    ├── UnknownCommand              no handler is registered for this command
    ├── InvalidIdempotencyKey       a key is empty, too long, or not printable
    ├── Unauthenticated             a request has no API key, or none that opens anything
    ├── Forbidden                   an API key lacks the scope that is needed
    ├── RateLimited                 an API key has sent too many requests; these three are in `cqrskit.access`
    ├── InvalidQuery                a query names an unknown field or an impossible limit
    │   └── InvalidCursor           a cursor was not made by this query
    ├── Busy                        the command queue is full: try again later
    ├── ShuttingDown                the service is stopping: try again elsewhere
    ├── DeadlineExceeded            a command waited longer than its caller would wait
    ├── CommandFailed               a handler raised an unexpected error, or the database refused its events
    ├── CommitUnknown               the connection died while a batch was being committed
    ├── NotYetVisible               a read model did not reach the wanted position in time
    ├── DocumentParked              a document lacks an event that the reader asked for, until somebody retries it
    ├── ProjectionStopped           a projection cannot go on until somebody corrects what it names
    ├── LeaseLost                   (internal) another worker has taken over a partition
    ├── StreamConflict              (internal) another process appended to a stream of this batch
    └── ReadStoreError              the read store refused a request as a whole
        └── IndexMissing            the index of a projection's generation is not there

Each message says what could not be done, to which thing, and what to do next; the values are fields, and
a driver's own error stays as ``__cause__``. No HTTP status codes here: `cqrskit.web` has the one table.
"""

from typing import ClassVar
from uuid import UUID

__all__ = [
    "AggregateExists",
    "AggregateNotFound",
    "Busy",
    "CommandFailed",
    "CommitUnknown",
    "ConfigurationError",
    "CqrskitError",
    "DeadlineExceeded",
    "DefinitionError",
    "DocumentParked",
    "EventDecodeError",
    "IdempotencyConflict",
    "IndexMissing",
    "InvalidCursor",
    "InvalidField",
    "InvalidIdempotencyKey",
    "InvalidQuery",
    "LeaseLost",
    "MigrationRequired",
    "NotYetVisible",
    "ProjectionStopped",
    "ReadStoreError",
    "RebuildRequired",
    "Rejected",
    "ServerUnavailable",
    "ShuttingDown",
    "StreamConflict",
    "UnknownCommand",
    "UnknownEventType",
    "remembered_refusal",
]


class CqrskitError(Exception):
    """The root of the tree: catch this to catch every error that cqrskit raises on purpose."""


class ConfigurationError(CqrskitError):
    """A setting, a command line or a wiring is wrong; raised at start-up, never at the first request."""


class DefinitionError(ConfigurationError):
    """An aggregate, an event, a handler or a projection is declared in a way that cannot work."""


class MigrationRequired(ConfigurationError):
    """The database's tables do not fit this version of cqrskit; run ``cqrskit migrate``."""


class RebuildRequired(ConfigurationError):
    """The documents of a projection have other fields than its code; they are to be built anew, beside the old ones."""

    def __init__(self, projection: str, generation: int, reason: str = "they have other fields") -> None:
        super().__init__(
            f"the documents of projection {projection!r} (generation {generation}) do not fit this code: {reason}. "
            f"Build new ones with `cqrskit rebuild {projection}`, while the old code goes on, then start again"
        )
        self.projection = projection
        self.generation = generation


class ServerUnavailable(CqrskitError):
    """A server does not answer, or refuses the connection.

    `server` is its name for people ("Postgres", "Elasticsearch"), `address` never holds a password.
    """

    def __init__(self, server: str, address: str, reason: str) -> None:
        super().__init__(
            f"{server} at {address} cannot be reached: {reason}. Start it, or correct the setting that names it."
        )
        self.server = server
        self.address = address
        self.reason = reason


class UnknownEventType(CqrskitError):
    """The log holds an event type that no registered aggregate declares.

    `known_version` is given if only the version is unknown: the newest that this code can read.
    """

    def __init__(self, type_name: str, known_version: int | None = None) -> None:
        super().__init__(
            f"the log holds events of type {type_name!r}, which no aggregate of this application declares: "
            "add the aggregate to Application(aggregates=...), give the renamed event its old stored name "
            "with `stored_name`, or name it in Application(retired=...) to skip it."
            if known_version is None
            else f"the log holds events of type {type_name!r}, which newer code has written: this code knows that "
            f"event up to version {known_version}. Update it."
        )
        self.type_name = type_name


class EventDecodeError(CqrskitError):
    """Stored bytes do not fit the event class that their type names, or an upcaster cannot bring them there.

    `reason` goes on from "is stored as 'Account.Credited' but".
    """

    def __init__(self, type_name: str, stream_id: UUID, stream_version: int, reason: str) -> None:
        super().__init__(f"event {stream_version} of stream {stream_id} is stored as {type_name!r} but {reason}")
        self.reason = reason
        self.type_name = type_name
        self.stream_id = stream_id
        self.stream_version = stream_version


class Rejected(CqrskitError):
    """A command was refused by the domain: a normal answer, not a fault.

    Subclass it in your application and set `code`, a stable word for machines. A rejected command changes
    nothing; `details` (JSON-able values) are shown to the caller.

    The executor sets two more: `replayed`, if this is what the same command was refused with before under its
    idempotency key; `position`, where the log stood when a refusal that is remembered was decided.
    """

    code: ClassVar[str] = "rejected"
    replayed: bool = False
    position: int | None = None

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details = details


class AggregateNotFound(Rejected):
    """No aggregate of this type has this id."""

    code = "not_found"

    def __init__(self, aggregate_name: str, aggregate_id: UUID) -> None:
        super().__init__(f"there is no {aggregate_name} with id {aggregate_id}", aggregate_id=str(aggregate_id))
        self.aggregate_name = aggregate_name
        self.aggregate_id = aggregate_id


class AggregateExists(Rejected):
    """A new aggregate was given the id of one that exists already."""

    code = "already_exists"

    def __init__(self, aggregate_name: str, aggregate_id: UUID) -> None:
        super().__init__(f"{aggregate_name} {aggregate_id} exists already", aggregate_id=str(aggregate_id))
        self.aggregate_name = aggregate_name
        self.aggregate_id = aggregate_id


class IdempotencyConflict(Rejected):
    """The idempotency key belongs to another command, or to the same one with other content, for as long as it is kept.

    `field` is the first field that differs, or "command" if the commands are of different types.
    """

    code = "idempotency_conflict"

    def __init__(self, key: str, field: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used before with another {field}: a key belongs to one content; use a new "
            "key for a new command",
            key=key,
            field=field,
        )
        self.key = key
        self.field = field


def remembered_refusal(code: str, message: str, details: dict[str, object], position: int | None) -> Rejected:
    """The refusal that was given before, of the class that has this code (Rejected itself if none has it any more).

    It has the code, the message and the details of the first one; attributes that a subclass sets beside them are not
    kept.
    """
    refusal_class = _class_of_code(Rejected, code) or Rejected
    refusal = refusal_class.__new__(refusal_class)
    refusal.args = (message,)
    refusal.details = details
    refusal.replayed = True
    refusal.position = position
    if refusal_class.code != code:
        vars(refusal)["code"] = code
    return refusal


def _class_of_code(refusal_class: type[Rejected], code: str) -> type[Rejected] | None:
    if refusal_class.code == code:
        return refusal_class
    found = (_class_of_code(each, code) for each in refusal_class.__subclasses__())
    return next((each for each in found if each is not None), None)


class UnknownCommand(CqrskitError):
    """No handler is registered for this command type."""

    def __init__(self, command_name: str) -> None:
        super().__init__(
            f"no handler is registered for command {command_name}: decorate one with @handles({command_name}) "
            "and pass it to Application(handlers=...)."
        )
        self.command_name = command_name


class InvalidField(CqrskitError, ValueError):
    """A value that its type allows and its class does not: raise it in ``__post_init__`` of a command, or of a body.

    `message` goes on from the field's name, such as "must be a working day". Over HTTP the field is named in `errors`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class InvalidIdempotencyKey(CqrskitError):
    """An idempotency key must have 1 to 255 printable characters, and be no other's; nothing was accepted."""

    def __init__(self, key: str, reason: str = "it must have 1 to 255 printable characters") -> None:
        super().__init__(
            f"{key[:80]!r} cannot be an idempotency key: {reason}; use a UUID, or the id of what the command makes"
        )


class InvalidQuery(CqrskitError):
    """A query names a field that the document lacks, compares it with a value of another kind, or exceeds a limit."""


class InvalidCursor(InvalidQuery):
    """A cursor is malformed, or was made by a query with another sort order."""


class Busy(CqrskitError):
    """The command queue is full; nothing was accepted. Try again after `retry_after_seconds`."""

    def __init__(self, queue_length: int, retry_after_seconds: float) -> None:
        super().__init__(f"the command queue is full ({queue_length} waiting); try again in {retry_after_seconds:g} s")
        self.retry_after_seconds = retry_after_seconds


class ShuttingDown(CqrskitError):
    """The service is stopping and takes no new commands; nothing was accepted."""

    def __init__(self) -> None:
        super().__init__("the service is shutting down and takes no new commands; try again in a moment")


class DeadlineExceeded(CqrskitError):
    """The command waited longer than its caller would wait, and was never decided; nothing was changed."""

    def __init__(self, command_name: str, timeout_seconds: float) -> None:
        super().__init__(
            f"command {command_name} waited {timeout_seconds:g} s for its turn and was given up; nothing was "
            "changed, try again later"
        )
        self.command_name = command_name
        self.timeout_seconds = timeout_seconds


class CommandFailed(CqrskitError):
    """A handler raised an unexpected error, or the database refused what it decided; nothing was changed."""

    def __init__(self, command_name: str, reason: str) -> None:
        super().__init__(f"command {command_name} failed and changed nothing: {reason}")
        self.command_name = command_name


class CommitUnknown(CqrskitError):
    """The connection died while a batch was being committed: the command may or may not have taken effect.

    The executor looks into the log before it says so: this error means that Postgres could not be asked in time either.
    Send the command again with the same idempotency key to find out.
    """

    def __init__(self) -> None:
        super().__init__(
            "the connection to Postgres died during the commit and Postgres cannot be asked, so it is not known "
            "whether the command took effect; send it again with the same idempotency key to find out"
        )


class NotYetVisible(CqrskitError):
    """A read model did not reach the position that the reader asked for before its deadline."""

    def __init__(self, projection: str, wanted_position: int, position: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"projection {projection!r} has reached position {position}, not yet {wanted_position}; try again "
            f"in {retry_after_seconds:g} s, or ask without a position to get what is there"
        )
        self.projection = projection
        self.wanted_position = wanted_position
        self.position = position
        self.retry_after_seconds = retry_after_seconds


class DocumentParked(CqrskitError):
    """A document lacks an event that the reader asked for: it could not be folded, and waits until somebody retries."""

    def __init__(self, projection: str, document_id: str, position: int) -> None:
        super().__init__(
            f"document {document_id!r} of projection {projection!r} is parked since position {position}: an event "
            f"could not be folded into it (see `cqrskit parked show {projection} {document_id}`); ask without a "
            "position to get the document as it was before"
        )
        self.projection = projection
        self.document_id = document_id
        self.position = position


class ProjectionStopped(CqrskitError):
    """A projection cannot go on until somebody corrects what the message names."""


class LeaseLost(CqrskitError):
    """Another worker has taken over a partition; who lost it stops working on it."""


class StreamConflict(CqrskitError):
    """Another process appended to a stream of this batch first, or used one of its keys; the executor decides again."""


class AlreadyThere(StreamConflict):
    """A stream that this batch begins, or one of its idempotency keys, is in the log already."""


class ReadStoreError(CqrskitError):
    """The read store refused a whole request (not one document of it)."""


class IndexMissing(ReadStoreError):
    """The index that holds a generation's documents is not there: it was never made, or somebody has removed it.

    `index` is its name on the server. What it would answer is unknown, so that nothing is answered in its place.
    """

    def __init__(self, index: str) -> None:
        super().__init__(
            f"index {index} is not there, so nothing can be read from it: `cqrskit project` makes and fills it when it "
            "starts, and `cqrskit rebuild` does so beside running workers"
        )
        self.index = index
