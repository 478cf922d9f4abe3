"""A disk that is small enough to be filled up on purpose."""

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from cqrskit.errors import ConfigurationError

__all__ = ["SmallDisk"]

BLOCK_BYTES = 64 * 1024


class SmallDisk:
    """A file system in memory of `megabytes`, mounted at `folder` while the context lasts.

    Only the superuser may mount; where that is not permitted, entering raises ConfigurationError.
    """

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._place: tempfile.TemporaryDirectory[str] | None = None
        self.folder = Path()

    def __enter__(self) -> Self:
        self._place = tempfile.TemporaryDirectory(prefix="cqrskit-disk-")
        Path(self._place.name).chmod(0o755)
        self.folder = Path(self._place.name) / "disk"
        self.folder.mkdir()
        options = f"size={self._megabytes}m,mode=0777"
        refusal = _run("mount", "-t", "tmpfs", "-o", options, "cqrskit-disk", str(self.folder))
        if refusal is not None:
            self._place.cleanup()
            raise ConfigurationError(f"a disk of its own cannot be mounted here: {refusal}. Run this as root")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._place is not None
        refusal = _run("umount", "--lazy", str(self.folder))
        if refusal is not None:
            raise ConfigurationError(f"the disk at {self.folder} cannot be unmounted: {refusal}")
        self._place.cleanup()

    @property
    def free_bytes(self) -> int:
        """Space that is left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Take all the space that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(BLOCK_BYTES))
            except OSError:
                return

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


def _run(*command: str) -> str | None:
    """Run a program; what it complained about, or None if it did not."""
    try:
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    return None if finished.returncode == 0 else finished.stderr.strip()
