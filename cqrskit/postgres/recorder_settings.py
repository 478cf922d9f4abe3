"""Settings of the recorder for the eventsourcing library: its POSTGRES_* variables, read strictly.

What would lose events, or what this log cannot do, is refused at the start with the reason.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import psycopg
from eventsourcing.utils import Environment, TopicError, resolve_topic, strtobool
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cqrskit.errors import ConfigurationError

__all__ = ["RecorderSettings", "read_recorder_settings"]

T = TypeVar("T", int, float)

PARTS_OF_URL = {
    "POSTGRES_DBNAME": "dbname",
    "POSTGRES_HOST": "host",
    "POSTGRES_PORT": "port",
    "POSTGRES_USER": "user",
    "POSTGRES_PASSWORD": "password",
}
KNOWN = {
    *PARTS_OF_URL,
    "POSTGRES_URL",
    "POSTGRES_GET_PASSWORD_TOPIC",
    "POSTGRES_CONNECT_TIMEOUT",
    "POSTGRES_CONN_MAX_AGE",
    "POSTGRES_PRE_PING",
    "POSTGRES_MAX_WAITING",
    "POSTGRES_LOCK_TIMEOUT",
    "POSTGRES_POOL_SIZE",
    "POSTGRES_MAX_OVERFLOW",
    "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
    "POSTGRES_SCHEMA",
    "POSTGRES_ENABLE_DB_FUNCTIONS",
}
OF_OTHERS = re.compile(
    "POSTGRES_(DB|DB_FILE|USER_FILE|PASSWORD_FILE|INITDB_ARGS|INITDB_WALDIR|HOST_AUTH_METHOD|SERVICE_.*|PORT_.*)"
)
"""Variables that Postgres' container image and Kubernetes put beside those of the library; they are no settings."""


class RecorderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a recorder reaches the log."""

    address: str
    """libpq's connection string, without a password that `password` has to give."""
    password: Callable[[], str] | None = None
    """Asked anew for each connection, for passwords that expire."""
    connect_timeout_seconds: float = 30.0
    pool_size: int = 5
    overflow_max: int = 10
    waiting_max: int = 0
    """Callers that may wait for a connection; 0 is no limit."""
    connection_age_max_seconds: float = 3600.0
    idle_in_transaction_timeout_seconds: float = 5.0
    lock_timeout_seconds: float = 0.0
    """How long an append may wait for the log's head row; 0 is no limit."""
    pre_ping: bool = False
    creates_tables: bool = False

    def url(self) -> str:
        """What libpq connects with, password included."""
        return make_conninfo(self.address, password=self.password()) if self.password else self.address


def read_recorder_settings(env: Environment) -> RecorderSettings:
    """Read the settings of the application that `env` belongs to. Raises ConfigurationError."""
    _refuse_unknown(env)
    _refuse_what_loses_events(env)
    settings = RecorderSettings(
        address=_address(env),
        password=_password(env),
        connect_timeout_seconds=_number(env, "POSTGRES_CONNECT_TIMEOUT", 30.0, float),
        pool_size=_number(env, "POSTGRES_POOL_SIZE", 5, int),
        overflow_max=_number(env, "POSTGRES_MAX_OVERFLOW", 10, int),
        waiting_max=_number(env, "POSTGRES_MAX_WAITING", 0, int),
        connection_age_max_seconds=_number(env, "POSTGRES_CONN_MAX_AGE", 3600.0, float),
        idle_in_transaction_timeout_seconds=_number(env, "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT", 5.0, float),
        lock_timeout_seconds=_number(env, "POSTGRES_LOCK_TIMEOUT", 0.0, float),
        pre_ping=_flag(env, "POSTGRES_PRE_PING"),
        creates_tables=_flag(env, "CREATE_TABLE"),
    )
    if settings.pool_size + settings.overflow_max < 1:
        raise ConfigurationError(
            "POSTGRES_POOL_SIZE and POSTGRES_MAX_OVERFLOW together allow no connection: let them sum to 1 or more"
        )
    return settings


def _refuse_unknown(env: Environment) -> None:
    prefix = f"{env.name.upper()}_" if env.name else ""
    for variable in env:
        name = variable.removeprefix(prefix)
        if name.startswith("POSTGRES_") and name not in KNOWN and not OF_OTHERS.fullmatch(name):
            raise ConfigurationError(
                f"{variable} is not a setting of cqrskit.postgres.recorder, so it would have no effect: remove it. "
                f"The settings are {', '.join(sorted(KNOWN))}"
            )


def _refuse_what_loses_events(env: Environment) -> None:
    if _flag(env, "POSTGRES_ENABLE_DB_FUNCTIONS"):
        raise ConfigurationError(
            f"{_name(env, 'POSTGRES_ENABLE_DB_FUNCTIONS')} asks for inserts by a database function that takes no "
            "lock: a follower that has read position 2 would never see position 1 when that is committed later. "
            "Remove it; this recorder appends under the lock of the log's head row"
        )
    if not _flag(env, "SINGLE_ROW_TRACKING", default=True):
        raise ConfigurationError(
            f"{_name(env, 'SINGLE_ROW_TRACKING')} asks for one row per processed notification; this recorder keeps "
            "one row per follower and application. Remove it"
        )
    kind = env.get("ORIGINATOR_ID_TYPE") or "uuid"
    if kind.lower() != "uuid":
        raise ConfigurationError(
            f"{_name(env, 'ORIGINATOR_ID_TYPE')}={kind!r} is refused: the log's streams are named by UUIDs. Use "
            "aggregates with UUIDs (a name becomes one by uuid.uuid5), or the library's own Postgres module"
        )


def _address(env: Environment) -> str:
    url = env.get("POSTGRES_URL")
    if url:
        twice = [variable for variable in [*PARTS_OF_URL, "POSTGRES_GET_PASSWORD_TOPIC"] if env.get(variable)]
        if twice:
            raise ConfigurationError(
                f"{_name(env, 'POSTGRES_URL')} and {', '.join(_name(env, each) for each in twice)} both say where the "
                "database is: remove the one or the other"
            )
        parts: dict[str, Any] = {}
    else:
        parts = {part: env.get(variable) for variable, part in PARTS_OF_URL.items()}
        optional = {"port", "password"} if env.get("POSTGRES_GET_PASSWORD_TOPIC") else {"port"}
        lacking = [name for name, part in PARTS_OF_URL.items() if parts[part] is None and part not in optional]
        if lacking:
            raise ConfigurationError(
                f"the database is not named: set {', '.join(lacking)}, or all in one: POSTGRES_URL"
            )
    try:
        address = make_conninfo(url or "", **{part: value for part, value in parts.items() if value})
        schema = env.get("POSTGRES_SCHEMA")
        if not schema:
            return address
        options = conninfo_to_dict(address).get("options") or ""
        return make_conninfo(address, options=f"{options} -c search_path={_as_option(schema)}".strip())
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"the database's address cannot be read: {error}".strip()) from None


def _as_option(schema: str) -> str:
    """A schema's name, quoted for SQL and then for libpq's `options`."""
    quoted = '"' + schema.replace('"', '""') + '"'
    return re.sub(r"([\\\s])", r"\\\1", quoted)


def _password(env: Environment) -> Callable[[], str] | None:
    topic = env.get("POSTGRES_GET_PASSWORD_TOPIC")
    if not topic:
        return None
    try:
        function = resolve_topic(topic)
    except TopicError as error:
        raise ConfigurationError(f"POSTGRES_GET_PASSWORD_TOPIC={topic!r} names nothing: {error}") from error
    if not callable(function):
        raise ConfigurationError(f"POSTGRES_GET_PASSWORD_TOPIC={topic!r} must name a function that returns a password")
    get_password: Callable[[], str] = function
    return get_password


def _number(env: Environment, variable: str, default: T, kind: type[T]) -> T:
    text = env.get(variable)
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"{_name(env, variable)}={text!r} is not usable: give a number of 0 or more")
    return value


def _flag(env: Environment, variable: str, *, default: bool = False) -> bool:
    text = env.get(variable)
    if not text:
        return default
    try:
        return strtobool(text)
    except ValueError:
        raise ConfigurationError(f"{_name(env, variable)}={text!r} is not usable: say y or n") from None


def _name(env: Environment, variable: str) -> str:
    """The variable as it was written: with the application's name before it, or without."""
    return next((key for key in env.create_keys(variable) if key in env), variable)
