"""The guardian of an embedded Postgres: stops the server when its last user is gone, however it went.

Run as a program of its own, from the standard library alone, so that it costs little. A user of the server is a
file in ``users/`` that its process keeps locked (flock): the kernel drops the lock when the process ends, also
by kill -9, and that is what wakes the guardian.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["drop_dead_users", "exclusive", "run_as", "stop_server"]

STOP_TIMEOUT_SECONDS = 60


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: one process at a time starts or stops its server."""
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def drop_dead_users(folder: Path) -> list[Path]:
    """Remove the registrations of processes that are gone; return those of the living."""
    living = []
    for path in sorted((folder / "users").iterdir()):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                living.append(path)
            else:
                path.unlink(missing_ok=True)
    return living


def run_as(
    command: list[str], folder: Path, *, user: int | None, timeout_seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run one of Postgres' programs in `folder`, as `user` (a uid) where we are root, with a clean environment."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_seconds,
        check=False,
        user=user,
        extra_groups=None if user is None else [],
    )


def stop_server(binaries: Path, data: Path, user: int | None) -> None:
    """Stop the server of `data` and wait until it is gone; at once, without a checkpoint, if it lingers."""
    for mode in ("fast", "immediate"):
        if not (data / "postmaster.pid").exists():
            return
        command = [str(binaries / "pg_ctl"), "-D", ".", "-m", mode, "-t", str(STOP_TIMEOUT_SECONDS), "stop"]
        run_as(command, data, user=user, timeout_seconds=STOP_TIMEOUT_SECONDS + 10)


def wait_for_users(folder: Path) -> None:
    """Block until every user that is registered now has gone."""
    for path in drop_dead_users(folder):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def guard(folder: Path, binaries: Path, user: int | None) -> None:
    """Stop the server once nobody uses it. Returns at once if another guardian is at work."""
    with (folder / "guardian").open("ab+") as badge:
        try:
            fcntl.flock(badge, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        badge.truncate(0)
        badge.write(str(os.getpid()).encode())
        badge.flush()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            wait_for_users(folder)
            with exclusive(folder):
                if not drop_dead_users(folder):
                    stop_server(binaries, folder / "data", user)
                    fcntl.flock(badge, fcntl.LOCK_UN)
                    return


if __name__ == "__main__":
    guard(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
