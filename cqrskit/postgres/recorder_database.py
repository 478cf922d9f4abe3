"""The recorder's way to Postgres: pooled connections, transactions whose end is known, wake-ups after commits."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import psycopg
import structlog
from eventsourcing import persistence
from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from cqrskit.errors import ServerUnavailable
from cqrskit.postgres.connections import is_pooled
from cqrskit.postgres.migrate import migrate, require_migrated
from cqrskit.postgres.recorder_settings import RecorderSettings
from cqrskit.postgres.sql import statement

__all__ = ["RecorderDatabase"]

log = structlog.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[Connection[TupleRow]], T]
Check = Callable[[Connection[TupleRow], T], bool]

ATTEMPTS_MAX = 10
RETRY_SECONDS = 0.2
NOTIFY_INTERVAL_SECONDS = 0.02
STOP_SECONDS = 1.0

CONNECTION_LOST = (persistence.InterfaceError, persistence.OperationalError)
POOL_ERRORS = (PoolTimeout, PoolClosed, TooManyRequests)
ERRORS: list[tuple[type[psycopg.Error], type[persistence.PersistenceError]]] = [
    (psycopg.InterfaceError, persistence.InterfaceError),
    (psycopg.OperationalError, persistence.OperationalError),
    (psycopg.DataError, persistence.DataError),
    (psycopg.IntegrityError, persistence.IntegrityError),
    (psycopg.InternalError, persistence.InternalError),
    (psycopg.ProgrammingError, persistence.ProgrammingError),
    (psycopg.NotSupportedError, persistence.NotSupportedError),
    (psycopg.DatabaseError, persistence.DatabaseError),
    (psycopg.Error, persistence.PersistenceError),
]
"""The driver's errors and those of the library, which have the same names; the first that fits is taken."""


class RecorderDatabase:
    """What all recorders of one factory share. `prepare` it before use, `close` it in the end."""

    def __init__(self, settings: RecorderSettings) -> None:
        self._settings = settings
        self._notifier = _Notifier(self.connection)
        self._preparing = threading.Lock()
        self._prepared = False
        self._pool: ConnectionPool[Connection[TupleRow]] = ConnectionPool(
            settings.url,
            min_size=settings.pool_size,
            max_size=settings.pool_size + settings.overflow_max,
            max_waiting=settings.waiting_max,
            max_lifetime=settings.connection_age_max_seconds,
            timeout=settings.connect_timeout_seconds,
            check=ConnectionPool.check_connection if settings.pre_ping else None,
            configure=self._configure,
            kwargs=self._connection_options(),
            open=False,
            name="cqrskit-recorder",
        )

    def prepare(self) -> None:
        """Open the pool once, on a database that has this version's tables.

        Raises MigrationRequired, or the library's OperationalError if the database does not answer.
        """
        with self._preparing:
            if self._prepared:
                return
            url, timeout_seconds = self._settings.url(), self._settings.connect_timeout_seconds
            try:
                if self._settings.creates_tables:
                    migrate(url, timeout_seconds)
                else:
                    require_migrated(url, timeout_seconds)
            except ServerUnavailable as error:
                raise persistence.OperationalError(str(error)) from error
            with persistence_errors():
                self._pool.open()
            self._prepared = True

    def close(self) -> None:
        """Send the wake-up that may wait, and close the connections."""
        self._notifier.stop()
        self._pool.close()

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """A connection of the pool, in autocommit; its errors become the library's."""
        with persistence_errors(), self._pool.connection() as connection:
            yield connection

    @contextmanager
    def listening_connection(self) -> Iterator[Connection[TupleRow]]:
        """A connection beside the pool that hears of the log's growth, but for poolers. Raises the driver's errors."""
        with psycopg.connect(self._settings.url(), **self._connection_options()) as connection:
            self._configure(connection)
            if not is_pooled(connection):
                connection.execute(statement("listen_to_log"))
            yield connection

    def read(self, work: Work[T]) -> T:
        """The result of `work`, which only reads; tried again when the connection is lost."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                with self.connection() as connection:
                    return work(connection)
            except CONNECTION_LOST as error:
                if attempt == ATTEMPTS_MAX or isinstance(error.__cause__, POOL_ERRORS):
                    raise
            _pause()
        raise AssertionError("the last attempt returns or raises")

    def write(self, work: Work[T], was_committed: Check[T] | None = None) -> T:
        """The result of `work`, which runs in one transaction; tried again if it is certain that nothing was written.

        When the connection is lost during the commit, `was_committed` finds out on another connection, given what
        `work` had returned. Without it, or if it cannot find out either, OperationalError says that the outcome is
        unknown: trying again blindly would report a conflict with what is one's own.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            done: list[T] = []
            try:
                with self.connection() as connection:
                    self._begin(connection)
                    done.append(work(connection))
                    self.commit(connection)
                return done[0]
            except CONNECTION_LOST as error:
                if done and self._find_out(done[0], was_committed, error):
                    return done[0]
                if attempt == ATTEMPTS_MAX or isinstance(error.__cause__, POOL_ERRORS):
                    raise
            _pause()
        raise AssertionError("the last attempt returns or raises")

    def commit(self, connection: Connection[TupleRow]) -> None:
        """Commit; a step of its own, so that a test can lose its answer."""
        connection.execute("COMMIT")

    def grown(self) -> None:
        """Tell followers soon that the log has grown."""
        self._notifier.committed()

    def _find_out(self, result: T, was_committed: Check[T] | None, error: Exception) -> bool:
        unknown = persistence.OperationalError(
            "the connection to Postgres was lost during a commit, so it is not known whether it took effect: look "
            "whether what you saved is there before you save it again"
        )
        if was_committed is None:
            raise unknown from error
        try:
            return self.read(lambda connection: was_committed(connection, result))
        except CONNECTION_LOST as lost:
            raise unknown from lost

    def _configure(self, connection: Connection[TupleRow]) -> None:
        row = connection.execute(statement("read_server_process"), prepare=False).fetchone()
        if row != (connection.info.backend_pid,):
            connection.prepare_threshold = None  # a pooler: from here on `is_pooled` says so
        else:
            self._limit(connection, local=False)

    def _begin(self, connection: Connection[TupleRow]) -> None:
        """Begin a transaction with the time limits of the settings; a pooler's sessions do not keep them."""
        connection.execute("BEGIN")
        if is_pooled(connection):
            self._limit(connection, local=True)

    def _limit(self, connection: Connection[TupleRow], *, local: bool) -> None:
        values = {
            "idle_milliseconds": str(round(self._settings.idle_in_transaction_timeout_seconds * 1000)),
            "lock_milliseconds": str(round(self._settings.lock_timeout_seconds * 1000)),
            "local": local,
        }
        connection.execute(statement("set_session_timeouts"), values)

    def _connection_options(self) -> dict[str, Any]:
        return {"autocommit": True, "connect_timeout": max(1, round(self._settings.connect_timeout_seconds))}


class _Notifier:
    """One NOTIFY for all commits within 20 ms, outside their transactions, by a thread that the first one starts."""

    def __init__(self, connection: Callable[[], AbstractContextManager[Connection[TupleRow]]]) -> None:
        self._connection = connection
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def committed(self) -> None:
        self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="cqrskit-recorder-notifier", daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                with self._connection() as connection:
                    connection.execute(statement("notify_followers"))
            except persistence.PersistenceError as error:
                log.warning("notifier.disconnected", reason=str(error))
            if self._stopping.wait(NOTIFY_INTERVAL_SECONDS):
                return


@contextmanager
def persistence_errors() -> Iterator[None]:
    """Turn the driver's errors into those of the eventsourcing library."""
    try:
        yield
    except psycopg.Error as error:
        kind = next(ours for theirs, ours in ERRORS if isinstance(error, theirs))
        raise kind(str(error).strip() or type(error).__name__) from error


def _pause() -> None:
    time.sleep(RETRY_SECONDS)
