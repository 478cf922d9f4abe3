"""Real servers for tests and for the demo: started here, gone with whoever started them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import LiteralString, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from cqrskit.embedded import EmbeddedPostgres
from cqrskit.errors import ServerUnavailable
from cqrskit.postgres.migrate import migrate
from cqrskit.testing.elasticsearch_archive import elasticsearch_home
from cqrskit.testing.server_process import free_port, start_process, unprivileged_user

__all__ = ["ElasticsearchServer", "PostgresServer"]

START_TIMEOUT_SECONDS = 180
STOP_TIMEOUT_SECONDS = 30
TEMPLATE = "cqrskit_template"
FILE_OPTIONS = ("-Xlog:gc", "HeapDump", "ErrorFile")
"""Java options that would write into the installation, which others share."""


class PostgresServer:
    """A Postgres whose databases come and go: ``CQRSKIT_TEST_DATABASE_URL``, or an embedded one of our own."""

    def __init__(self) -> None:
        self.url = ""
        self._embedded: EmbeddedPostgres | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> Self:
        """Start it and migrate the template that `create_database` copies."""
        self.url = os.environ.get("CQRSKIT_TEST_DATABASE_URL", "")
        if not self.url:
            self._folder = tempfile.TemporaryDirectory(prefix="cqrskit-postgres-")
            Path(self._folder.name).chmod(0o755)
            self._embedded = EmbeddedPostgres(Path(self._folder.name)).start()
            self.url = self._embedded.url
        return self._with_template()

    def _with_template(self) -> Self:
        self._template = f"{TEMPLATE}_{uuid4().hex[:8]}"
        self._execute("CREATE DATABASE {}", self._template)
        migrate(self._url_of(self._template))
        return self

    def stop(self) -> None:
        """Drop the template and, if it is ours, the server."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", self._template)
        if self._embedded is not None:
            self._embedded.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def create_database(self, *, migrated: bool = True) -> str:
        """URL of a new database; give it to `drop_database` in the end."""
        name = f"cqrskit_test_{uuid4().hex[:12]}"
        if migrated:
            self._execute("CREATE DATABASE {} TEMPLATE {}", name, self._template)
        else:
            self._execute("CREATE DATABASE {}", name)
        return self._url_of(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", urlsplit(url).path.removeprefix("/"))

    def _url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def _execute(self, statement: LiteralString, *names: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


class ElasticsearchServer:
    """An Elasticsearch: ``ELASTICSEARCH_URL`` if it is set, otherwise one of our own on a free port.

    Our own one runs unprivileged, keeps its data in a temporary folder, and is gone with this process.
    `settings` are added to its elasticsearch.yml.
    """

    def __init__(self, *, heap_megabytes: int = 1024, settings: Mapping[str, object] | None = None) -> None:
        self.url = ""
        self._settings = dict(settings or {})
        self._heap_megabytes = heap_megabytes
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def start(self) -> Self:
        """Start it and wait until it answers. Raises ConfigurationError or ServerUnavailable."""
        self.url = os.environ.get("ELASTICSEARCH_URL", "")
        return self if self.url else self._start_own("http")

    def _start_own(self, scheme: str) -> Self:
        self._make(scheme)
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop our own server, and remove its files."""
        self._end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _make(self, scheme: str = "http") -> None:
        """Make the folder and the address of a server of our own."""
        home = elasticsearch_home()
        self._folder = folder = Path(tempfile.mkdtemp(prefix="cqrskit-elasticsearch-"))
        port = free_port()
        self._configure(home, folder, port)
        user = unprivileged_user()
        if user is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user, -1)
        self.url = f"{scheme}://127.0.0.1:{port}"

    def _end(self) -> None:
        """End the server's processes as the system does when it shuts down."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _configure(self, home: Path, folder: Path, port: int) -> None:
        shutil.copytree(home / "config", folder / "config")
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir()
        options = folder / "config" / "jvm.options"
        lines = options.read_text().splitlines()
        options.write_text("\n".join(line for line in lines if not any(word in line for word in FILE_OPTIONS)) + "\n")
        settings = {
            "cluster.name": f"cqrskit-{folder.name}",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": port,
            "transport.port": "0",
            "path.data": folder / "data",
            "path.logs": folder / "logs",
            "xpack.security.enabled": "false",
            "xpack.ml.enabled": "false",
            "ingest.geoip.downloader.enabled": "false",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **self._settings,
        }
        lines = [f"{name}: {value}" for name, value in settings.items()]
        (folder / "config" / "elasticsearch.yml").write_text("\n".join(lines) + "\n")

    def _launch(self) -> None:
        """Start the server in its folder and wait until it answers. Raises ServerUnavailable."""
        assert self._folder is not None
        folder = self._folder
        heap = f"-Xms{self._heap_megabytes}m -Xmx{self._heap_megabytes}m"
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "ES_PATH_CONF": str(folder / "config"),
            "ES_TMPDIR": str(folder / "tmp"),
            "ES_JAVA_OPTS": heap,
            "HOME": str(folder),
        }
        self._process = start_process([str(elasticsearch_home() / "bin" / "elasticsearch")], folder, environment)
        self._wait()

    def _wait(self) -> None:
        assert self._process is not None
        assert self._folder is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with self._request("/_cluster/health?wait_for_status=green"):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        lines = (self._folder / "out.log").read_text(errors="replace").splitlines()[-5:]
        raise ServerUnavailable("Elasticsearch", self.url, "it did not start: " + " | ".join(lines))

    def _request(self, path: str) -> AbstractContextManager[object]:
        answer: AbstractContextManager[object] = urllib.request.urlopen(f"{self.url}{path}", timeout=5)
        return answer
