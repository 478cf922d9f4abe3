"""What was measured on: cores, memory, versions, and how fast the disk makes a write durable."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psycopg

from tests.benchmarks.peers.row_locks import program

__all__ = ["describe"]

LOOP_SECONDS = 1.0
BLOCK = bytes(8192)


def describe(database_url: str) -> dict[str, str]:
    """The machine in words, by what each is about."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        settings = {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            for name in ("server_version", "data_directory", "synchronous_commit", "fsync", "shared_buffers")
        }
    found = {name: str(row[0]) for name, row in settings.items() if row is not None}
    return {
        "machine": f"{os.cpu_count()} cores, {_memory():.0f} GB, {platform.system()} {platform.machine()}",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
        "Postgres": (
            f"{found['server_version']}, fsync {found['fsync']}, synchronous_commit {found['synchronous_commit']}, "
            f"shared_buffers {found['shared_buffers']}"
        ),
        "Python": f"{platform.python_version()}, " + ", ".join(_versions()),
        "fdatasync": fdatasync_speed(Path(found["data_directory"])),
    }


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _versions() -> Iterator[str]:
    for name in ("eventsourcing", "psycopg", "litestar", "uvicorn", "uvloop", "msgspec"):
        yield f"{name} {version(name)}"


def fdatasync_speed(data_folder: Path) -> str:
    """How many 8 kB writes become durable each second, on the server's own disk if it is on this machine."""
    beside = data_folder.parent
    mine = os.access(beside, os.W_OK)
    where = "on Postgres' disk" if mine else "in the folder of temporary files, maybe not on Postgres' disk"
    with tempfile.TemporaryDirectory(dir=beside if mine else None, prefix="fsync-") as folder:
        path = Path(folder) / "file"
        tested, how = _by_pg_test_fsync(path), "pg_test_fsync"
        if tested is None:
            tested, how = _by_loop(path), "a loop of writes"
    return f"{tested:,.0f} per second, {1e6 / tested:,.0f} µs each, by {how} {where}"


def _by_pg_test_fsync(path: Path) -> float | None:
    """The program's first figure for fdatasync; the rest of its tests is not waited for."""
    tester = program("pg_test_fsync")
    if tester is None:
        return None
    with subprocess.Popen(
        [tester, "-s", "1", "-f", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                words = line.split()
                if len(words) > 2 and words[0] == "fdatasync" and words[2] == "ops/sec":
                    return float(words[1])
        finally:
            process.terminate()
    return None


def _by_loop(path: Path) -> float:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < LOOP_SECONDS:
            os.pwrite(descriptor, BLOCK, 0)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - begun)
    finally:
        os.close(descriptor)
