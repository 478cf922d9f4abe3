"""Migrations: numbered plain SQL files, applied by yoyo."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from yoyo import read_migrations
from yoyo.backends import get_backend_class
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table

from cqrskit.errors import ConfigurationError, MigrationRequired
from cqrskit.postgres.connections import connection_errors

__all__ = ["applied_and_pending", "migrate", "require_migrated"]

YOYO_SCHEME = "postgresql+psycopg"
MIGRATION_LOCK = 0x63717273
"""Number of the advisory lock that one migrating process holds ("cqrs")."""


def migrations_folder() -> Path:
    """The folder of the SQL files: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(str(files("cqrskit")))
    for folder in (package / "migrations", package.parent / "migrations"):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"cqrskit's migrations are missing beside {package}: install the package again")


def migrate(url: str, timeout_seconds: float = 10.0) -> list[str]:
    """Apply every pending migration and return their names. Safe when several processes do it at once.

    Raises ServerUnavailable if the database does not answer.
    """
    with connection_errors(url), _connect(url, timeout_seconds) as guard:
        guard.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        backend = _open_backend(url)
        try:
            pending = backend.to_apply(read_migrations(str(migrations_folder())))
            names = [migration.id for migration in pending]
            backend.apply_migrations(pending)
        finally:
            backend.connection.close()
        return names


def applied_and_pending(url: str, timeout_seconds: float = 10.0) -> tuple[list[str], list[str]]:
    """Names of the migrations that the database has, and of those that it lacks."""
    known = sorted(path.stem for path in migrations_folder().glob("*.sql"))
    with connection_errors(url), _connect(url, timeout_seconds) as connection:
        row = connection.execute("SELECT to_regclass('_yoyo_migration')::text").fetchone()
        if row is None or row[0] is None:
            return [], known
        applied = {name for (name,) in connection.execute("SELECT migration_id FROM _yoyo_migration")}
    return sorted(applied), [name for name in known if name not in applied]


def require_migrated(url: str, timeout_seconds: float = 10.0) -> None:
    """Raise MigrationRequired unless the database has exactly the migrations of this version."""
    applied, pending = applied_and_pending(url, timeout_seconds)
    if pending:
        raise MigrationRequired(
            f"the database lacks {', '.join(pending)}: run `cqrskit migrate` (it has {len(applied)} of ours)"
        )
    known = {path.stem for path in migrations_folder().glob("*.sql")}
    newer = [name for name in applied if name not in known]
    if newer:
        raise MigrationRequired(
            f"the database was migrated by a newer version ({', '.join(newer)}): update this installation"
        )


def _connect(url: str, timeout_seconds: float) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(url, connect_timeout=max(1, round(timeout_seconds)), prepare_threshold=None)


def _open_backend(url: str) -> Any:
    """Yoyo's backend for psycopg 3, given the URL's parts as they are (Unix sockets too)."""
    parts = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    address = DatabaseURI(
        scheme=YOYO_SCHEME,
        username=None,
        password=None,
        hostname=None,
        port=None,
        database=parts.pop("dbname", None) or parts.get("user"),
        args={**parts, "prepare_threshold": None},  # behind a pooler the next transaction would not know a statement
    )
    backend = get_backend_class(YOYO_SCHEME)(address, default_migration_table)
    backend.init_database()
    return backend
