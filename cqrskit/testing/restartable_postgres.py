"""A Postgres to be hurt: stopped, killed, crashed, started again at the same address, on a disk of its own."""

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Literal, Self

import psycopg

from cqrskit.embedded import EmbeddedPostgres
from cqrskit.embedded_guardian import exclusive
from cqrskit.errors import ServerUnavailable
from cqrskit.testing.servers import PostgresServer

__all__ = ["RestartablePostgres", "StopMode"]

StopMode = Literal["smart", "fast", "immediate"]
"""As for ``pg_ctl stop``: wait for clients, end their sessions, or crash without a checkpoint."""

START_TIMEOUT_SECONDS = 30.0
WRITERS = """
    SELECT DISTINCT held.pid FROM pg_locks AS held JOIN pg_class AS relation ON relation.oid = held.relation
    WHERE relation.relname = %s AND held.mode = 'RowExclusiveLock' AND held.granted
      AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class RestartablePostgres(PostgresServer):
    """An embedded Postgres of one's own whose URL stays the same while it is stopped, killed and started again.

    Its methods block until the deed is done: from asyncio, call them with ``asyncio.to_thread``. It is gone with
    the process that started it, however that ends.
    """

    def __init__(
        self,
        *,
        parameters: dict[str, str] | None = None,
        wal_folder: Path | None = None,
        wal_segment_megabytes: int = 16,
    ) -> None:
        """`parameters` are settings of the server; `wal_folder`, an empty folder, is to hold the write-ahead log."""
        super().__init__()
        self._parameters = parameters or {}
        self._wal_folder = wal_folder
        self._wal_segment_megabytes = wal_segment_megabytes
        self._cluster: _Cluster | None = None

    def start(self) -> Self:
        """Make and start it, with the template that `create_database` copies. Raises ServerUnavailable."""
        self._folder = tempfile.TemporaryDirectory(prefix="cqrskit-postgres-")
        Path(self._folder.name).chmod(0o755)
        self._cluster = _Cluster(
            Path(self._folder.name), self._parameters, self._wal_folder, self._wal_segment_megabytes
        )
        self._embedded = self._cluster.start()
        self.url = self._cluster.url
        return self._with_template()

    def stop(self) -> None:
        """Stop the server for good and remove its files."""
        if self._embedded is not None:
            self._embedded.stop()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def running(self) -> bool:
        """Whether the server's main process is there."""
        return self._server.main_process() is not None

    def shut_down(self, mode: StopMode = "fast") -> None:
        """Stop the server; `start_again` brings it back."""
        self._server.shut_down(mode)

    def start_again(self) -> None:
        """Start the server if it does not run, and wait until it answers, after a crash until it has recovered.

        Raises ServerUnavailable with the end of the server's log.
        """
        self._server.start_again()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop it and start it again."""
        self.shut_down(mode)
        self.start_again()

    def kill(self) -> None:
        """``kill -9`` of the server's main process; the others notice and end themselves."""
        process = self._server.main_process()
        if process is not None:
            os.kill(process, signal.SIGKILL)

    def kill_backend(self, process: int) -> None:
        """``kill -9`` of one backend: the server ends all sessions and goes through crash recovery by itself."""
        os.kill(process, signal.SIGKILL)

    def terminate_backend(self, process: int) -> None:
        """End one session as an administrator does: ``pg_terminate_backend``."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (process,))

    def writers(self, url: str, table: str = "log_head") -> list[int]:
        """Process ids of the backends that are writing to `table` of the database at `url` at this moment."""
        with psycopg.connect(url, autocommit=True) as connection:
            return [process for (process,) in connection.execute(WRITERS, (table,)).fetchall()]

    @property
    def _server(self) -> "_Cluster":
        assert self._cluster is not None, "start it first"
        return self._cluster


class _Cluster(EmbeddedPostgres):
    """The server's data folder and its processes."""

    def __init__(
        self, folder: Path, parameters: dict[str, str], wal_folder: Path | None, wal_segment_megabytes: int
    ) -> None:
        super().__init__(folder)
        self._initdb_arguments = (f"--wal-segsize={wal_segment_megabytes}",)
        if wal_folder is not None:
            self._initdb_arguments += (f"--waldir={wal_folder}",)
        settings = {"max_connections": "100", **parameters}
        self._server_options = " ".join(f"-c {name}={value}" for name, value in settings.items())

    def shut_down(self, mode: StopMode) -> None:
        with exclusive(self._folder):
            if self.main_process() is not None:
                self._run("pg_ctl", "-D", ".", "-m", mode, "-w", "stop")

    def start_again(self) -> None:
        """Start it; after a kill -9 the first tries may fail, until the last of the old processes has gone."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with exclusive(self._folder):
            while True:
                try:
                    self._ensure_running()
                    psycopg.connect(self.url).close()
                except (ServerUnavailable, psycopg.OperationalError) as error:
                    if time.monotonic() > deadline:
                        if isinstance(error, ServerUnavailable):
                            raise
                        raise ServerUnavailable("embedded Postgres", str(self._folder), str(error)) from error
                    time.sleep(0.1)
                else:
                    return

    def main_process(self) -> int | None:
        """Process id of the postmaster, if it lives."""
        try:
            process = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(process, 0)
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return None
        return process
