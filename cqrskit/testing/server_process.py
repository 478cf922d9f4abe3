"""How a server for tests is started: unprivileged, on a free port, gone with the process that wanted it."""

import os
import pwd
import socket
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cqrskit.cli.running import die_with_parent

__all__ = ["free_port", "start_process", "unprivileged_user"]

UNPRIVILEGED_USER = "nobody"

_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cqrskit-servers")
"""Linux ends such a process with the thread that started it, so this must be one that stays."""


def unprivileged_user() -> int | None:
    """Whom servers run as where we are root, which they refuse; None: as ourselves."""
    return pwd.getpwnam(UNPRIVILEGED_USER).pw_uid if os.geteuid() == 0 else None


def start_process(
    command: list[str], folder: Path, environment: Mapping[str, str], *, log: str = "out.log"
) -> "subprocess.Popen[bytes]":
    """Start a server in a folder that its user owns; what it prints goes into the file `log` there."""
    user = unprivileged_user()

    def start() -> "subprocess.Popen[bytes]":
        with (folder / log).open("wb") as out:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
                user=user,
                extra_groups=[] if user is not None else None,
            )

    return _starter.submit(start).result()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
