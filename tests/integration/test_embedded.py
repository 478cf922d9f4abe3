"""The embedded Postgres: shared by processes, gone with the last of them however it went, its data kept."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from cqrskit import ConfigurationError, embedded
from cqrskit.embedded import EmbeddedPostgres
from cqrskit.testing import eventually
from tests.integration.running_processes import ROOT, environment

USER = """
import sys, time
from pathlib import Path
from cqrskit.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1])).start()
print("started", flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="cqrskit-embedded-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "postgres"


def user_of(folder: Path) -> "subprocess.Popen[bytes]":
    """A process that uses the server until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        cwd=ROOT,
        env=environment({}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def running(folder: Path) -> list[str]:
    """Command lines of the processes that have to do with the folder."""
    lines = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line]


def answer(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


async def test_processes_share_a_server_and_the_last_one_stops_it(folder: Path) -> None:
    server = EmbeddedPostgres(folder).start()
    answer(server, "CREATE TABLE kept AS SELECT 5 AS value")
    other = user_of(folder)
    other.communicate()
    assert answer(server, "SELECT value FROM kept") == (5,)
    server.stop()
    assert not (folder / "data" / "postmaster.pid").exists()
    await eventually(lambda: running(folder) == [])
    again = EmbeddedPostgres(folder).start()
    assert answer(again, "SELECT value FROM kept") == (5,)
    again.stop()


async def test_a_killed_user_leaves_no_server_behind_and_takes_none_from_others(folder: Path) -> None:
    server = EmbeddedPostgres(folder).start()
    other = user_of(folder)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert answer(server, "SELECT 1") == (1,)
    last = user_of(folder)
    server.stop()
    last.send_signal(signal.SIGKILL)
    last.communicate()
    await eventually(lambda: running(folder) == [], timeout_seconds=30)
    assert not (folder / "data" / "postmaster.pid").exists()


def test_a_folder_that_cannot_be_used_is_named(folder: Path) -> None:
    folder.write_text("this is a file")
    with pytest.raises(ConfigurationError, match="CQRSKIT_DATA_FOLDER"):
        EmbeddedPostgres(folder).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_programs_that_nobody_may_run_are_named_with_the_folder_that_is_closed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = folder.parent / "closed"
    (closed / "venv").mkdir(parents=True, mode=0o755)
    closed.chmod(0o700)
    (closed / "venv" / "bin").symlink_to(embedded._binaries())
    monkeypatch.setattr(embedded, "_binaries", lambda: closed / "venv" / "bin")
    with pytest.raises(ConfigurationError, match=rf"may not enter {closed} and so cannot run"):
        EmbeddedPostgres(folder).start()
    assert not folder.exists()
