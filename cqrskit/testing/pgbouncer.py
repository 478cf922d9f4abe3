"""A PgBouncer in front of a Postgres: each transaction may run in another session of the server."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from cqrskit.errors import ServerUnavailable
from cqrskit.testing.pgbouncer_package import find_pgbouncer
from cqrskit.testing.server_process import free_port, start_process, unprivileged_user

__all__ = ["PgBouncer"]

START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 10.0
SETTINGS = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "any",
    "pool_mode": "transaction",
    "max_client_conn": "500",
    "default_pool_size": "4",
    "server_login_retry": "0.2",
}
"""Few sessions for many clients, so that neighbouring transactions do run in different ones."""


class PgBouncer:
    """PgBouncer for all databases of the server at `server_url`, in transaction mode.

    Clients connect as anybody; it connects as the user of `server_url`. It runs unprivileged, keeps nothing, and is
    gone with the process that started it.
    """

    def __init__(self, server_url: str, *, settings: dict[str, str] | None = None) -> None:
        """`settings` are lines of the section ``[pgbouncer]`` that are to differ from ours."""
        self._server_url = server_url
        self._settings = {**SETTINGS, **(settings or {})}
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers. Raises ConfigurationError, if there is none, or ServerUnavailable."""
        program = find_pgbouncer()
        self._folder = tempfile.TemporaryDirectory(prefix="cqrskit-pgbouncer-")
        folder = Path(self._folder.name)
        self._port = self._port or free_port()
        user = unprivileged_user()
        (folder / "pgbouncer.ini").write_text(self._configuration())
        for path in (folder, folder / "pgbouncer.ini"):
            os.chown(path, -1 if user is None else user, -1)
        environment = {"PATH": os.environ.get("PATH", os.defpath), **program.environment}
        self._process = start_process([str(program.path), str(folder / "pgbouncer.ini")], folder, environment)
        try:
            self._wait(folder)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End it at once, and all its connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def restart(self) -> None:
        """End it and start it again at the same address."""
        self.stop()
        self.start()

    def url_of(self, database_url: str) -> str:
        """The URL, by way of PgBouncer, of a database of its server."""
        parts = urlsplit(database_url)
        user = conninfo_to_dict(self._server_url).get("user") or "postgres"
        return urlunsplit(("postgresql", f"{user}@127.0.0.1:{self._port}", parts.path, "sslmode=disable", ""))

    def _configuration(self) -> str:
        parts = conninfo_to_dict(self._server_url)
        names = [name for name in ("host", "port", "user", "password") if parts.get(name)]
        server = " ".join(f"{name}='{parts[name]}'" for name in names)
        lines = [f"{name} = {value}" for name, value in {**self._settings, "listen_port": self._port}.items()]
        return "\n".join(["[databases]", f"* = {server}", "[pgbouncer]", *lines]) + "\n"

    def _wait(self, folder: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg.connect(self.url_of(self._server_url), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        lines = (folder / "out.log").read_text(errors="replace").splitlines()[-5:]
        raise ServerUnavailable("PgBouncer", f"127.0.0.1:{self._port}", "it did not start: " + " | ".join(lines))
