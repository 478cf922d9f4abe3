"""Settings: one frozen Struct, read once from the environment (``CQRSKIT_*``)."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Annotated, cast, get_type_hints

import msgspec

from cqrskit.errors import ConfigurationError

__all__ = ["Settings", "load_settings"]

PREFIX = "CQRSKIT_"
SECRETS = ("elasticsearch_api_key",)
SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]*:[^/\s]*(?=@)|(?<=\bpassword=)[^\s&]+")
HIDDEN = "***"

_WORDS = [
    (re.compile(r"^Expected `(int|float)(?: \| null)?` ([<>]=?) (.*)$"), r"it must be a number \2 \3"),
    (re.compile(r"^Expected `int(?: \| null)?`, got"), "it must be a whole number"),
    (re.compile(r"^Expected `float(?: \| null)?`, got"), "it must be a number"),
    (re.compile(r"^Expected `str` matching regex '(.*)'"), r"it must match \1"),
    (re.compile(r"^Expected `str` of length <= (.*)$"), r"it must have at most \1 characters"),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one process of an application runs. Each field is read from ``CQRSKIT_<FIELD IN CAPITALS>``.

    Units are the last word of a name. Fields are validated when they are read, so a wrong value stops the
    start with a message that names the variable.
    """

    app: str | None = None
    """What ``--app`` names when it is not given: module:attribute of an Application or of its Litestar app."""
    database_url: str | None = None
    """Postgres to use, as a libpq URL. Unset: an embedded Postgres in `data_folder`."""
    elasticsearch_url: str | None = None
    """Elasticsearch to keep read models in; several hosts separated by commas. Unset: read models live in Postgres."""
    elasticsearch_api_key: Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$")] | None = None
    """API key to show to Elasticsearch, in its encoded form. Unset: user and password of the URL, if it has them."""
    elasticsearch_ca_file: str | None = None
    """PEM file of the authorities whose certificates are trusted for Elasticsearch. Unset: the public ones."""
    elasticsearch_certificate_fingerprint: (
        Annotated[str, msgspec.Meta(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")] | None
    ) = None
    """SHA-256 of Elasticsearch's own certificate, which is then trusted without an authority."""
    elasticsearch_request_timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """How long one request to Elasticsearch may take."""
    elasticsearch_bulk_max_documents: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5_000
    """Largest number of documents in one bulk request."""
    elasticsearch_bulk_max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 8 * 1024 * 1024
    """Largest bulk request; a document that is larger goes alone."""
    elasticsearch_bulk_max_seconds: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """A projector that is behind writes after this time, at the end of a block, even if it has fewer documents."""
    elasticsearch_bulk_max_requests: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """Bulk requests of one projector that are under way at once; a slice of a rebuild always has one."""
    elasticsearch_circuit_max_failures: Annotated[int, msgspec.Meta(ge=1)] = 5
    """Requests in a row that Elasticsearch may leave unanswered before the next ones fail at once, for a pause."""
    elasticsearch_circuit_max_pause_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """Longest of those pauses; they begin at half a second and double."""
    index_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=30)] = "cqrskit"
    """First part of every index and read-model table name; one per application that shares a server."""
    data_folder: str = ".cqrskit"
    """Where the embedded Postgres keeps its files, relative to the current folder."""
    connections_max: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 8
    """Largest number of Postgres connections that one process keeps for reads."""
    connect_timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How long `serve` and `project` wait at their start for servers that are away; other commands fail at once.

    A server that takes a connection and then says nothing is given so long by every command.
    """
    queue_length_max: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """Commands that may wait for the executor; beyond that callers are told to come back later."""
    batch_size_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000
    """Largest number of commands in one transaction."""
    batch_events_max: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    """A transaction that has so many events takes no more commands; the command that reaches it is still in."""
    batch_max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 32 * 1024 * 1024
    """The same in bytes of events and of kept replies."""
    command_timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """How long a command may wait for its turn, and a batch for its commit, before its caller is told so."""
    receipts_kept_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """How long idempotency keys and the replies to them are kept. Unset: for ever."""
    cached_aggregates_max: Annotated[int, msgspec.Meta(ge=0)] = 100_000
    """Aggregates that the executor keeps in memory between commands."""
    cached_aggregates_max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 256 * 1024 * 1024
    """About how much memory those aggregates may take."""
    garbage_collection_threshold_objects: Annotated[int, msgspec.Meta(ge=0)] = 50_000
    """New objects after which Python looks for garbage in a process that executes or projects; 0: as it is."""
    snapshot_every_events: Annotated[int, msgspec.Meta(ge=1)] = 100
    """A snapshot of an aggregate is kept whenever its stream has grown by so many events."""
    block_size_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 5_000
    """Positions that a projector reads and folds at once."""
    parked_keys_max: Annotated[int, msgspec.Meta(ge=0)] = 1_000
    """Keys that a partition of a projection may park; with one more it stops, since its code is wrong then."""
    lease_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 3.0
    """How long a worker that has died keeps its partitions from the others; a live one renews three times as often."""
    poll_interval_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    """How often a projector that is level looks for new events without being woken."""
    refresh_interval_seconds: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    """How often a projector that has written makes its documents searchable."""
    wait_timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0
    """How long a query waits for the position that its caller asked for."""
    health_lag_max_events: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000
    """A projection or a reaction that is further behind the log than this is reported as degraded."""
    health_lag_max_seconds: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """What waits for longer is degraded: the next event of a projection or a reaction, or a command that is overdue."""
    health_parked_keys_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    """A projection with more parked keys than this is reported as degraded, and so are more parked due commands."""
    shutdown_timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """How long a stopping process lets accepted commands and projectors finish."""
    host: str = "127.0.0.1"
    """Address that the HTTP server listens on."""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    """Port that the HTTP server listens on; 0 picks a free one."""
    body_size_max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 16 * 1024 * 1024
    """Largest HTTP request body."""
    rate_limit_requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Requests that one API key may send each second, in the long run, to one process. Unset: as many as it likes."""
    rate_limit_burst_requests: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Requests that it may send at once after it was silent."""
    metrics_open: bool = False
    """Whether `/metrics` answers everybody where the app has API keys; else it needs a key for reading."""
    metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """Port at which `cqrskit project` shows its metrics to everybody. Unset: it has none."""
    tracing: bool = False
    """Whether traces are made, by OpenTelemetry (the extra `tracing`), whose `OTEL_` variables say where they go."""
    log_level: Annotated[str, msgspec.Meta(pattern="^(debug|info|warning|error)$")] = "info"
    """Least severe log event that is written: debug, info, warning or error."""

    def __repr__(self) -> str:
        """Without the values that open doors."""
        shown = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return f"Settings({', '.join(f'{name}={_shown(name, value)!r}' for name, value in shown)})"

    @property
    def postgres_folder(self) -> Path:
        """The embedded Postgres' files."""
        return Path(self.data_folder) / "postgres"


def load_settings(environ: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings from `environ` (default: the process's) and apply `overrides` that are not None.

    Raises ConfigurationError for an unknown ``CQRSKIT_`` variable or a value that does not fit. Variables that
    begin with ``CQRSKIT_TEST_`` belong to the test suite and are passed over.
    """
    source = os.environ if environ is None else environ
    hints = get_type_hints(Settings, include_extras=True)
    values: dict[str, object] = {}
    for variable, text in source.items():
        if not variable.startswith(PREFIX) or variable.startswith(PREFIX + "TEST_"):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in hints:
            raise ConfigurationError(f"{variable} is not a setting; {_near(variable)}")
        values[name] = _convert(name, variable, text, hints[name])
    for name, value in overrides.items():
        if value is not None:
            values[name] = _convert(name, name, value, hints[name])
    return msgspec.convert(values, Settings)


def _shown(name: str, value: object) -> object:
    """A setting's value for people: no API key, and no password of a URL."""
    if value is not None and name in SECRETS:
        return HIDDEN
    return SECRET_IN_URL.sub(HIDDEN, value) if isinstance(value, str) else value


def _near(variable: str) -> str:
    known = {field.upper(): PREFIX + field.upper() for field in sorted(Settings.__struct_fields__)}
    meant = get_close_matches(variable.removeprefix(PREFIX), known, n=1, cutoff=0.7)
    return f"did you mean {known[meant[0]]}?" if meant else f"the settings are {', '.join(known.values())}"


def _convert(name: str, variable: str, value: object, kind: object) -> object:
    try:
        found = msgspec.convert(value, cast(type[object], kind), strict=False)
    except msgspec.ValidationError as error:
        shown = _shown(name, value)
        raise ConfigurationError(f"{variable}={shown!r} is not usable: {_plainly(str(error))}") from error
    if isinstance(found, float) and not isfinite(found):
        raise ConfigurationError(f"{variable}={value!r} is not usable: it must be a finite number")
    return found


def _plainly(message: str) -> str:
    """The decoder's message in words for people who set variables."""
    for pattern, words in _WORDS:
        found = pattern.search(message)
        if found is not None:
            return found.expand(words)
    return message
