"""A real PgBouncer: the installed one, or Debian's package, fetched and unpacked without installing it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cqrskit.errors import ConfigurationError
from cqrskit.testing.download_cache import download_cache

__all__ = ["PgBouncerProgram", "find_pgbouncer"]

PACKAGE = "pgbouncer"
PROGRAM = Path("usr/sbin/pgbouncer")
LOST = "not found"
"""What ``ldd`` says of a library that is missing."""


class PgBouncerProgram(msgspec.Struct, frozen=True):
    """The program, and what must be in its environment."""

    path: Path
    environment: Mapping[str, str] = {}


def find_pgbouncer() -> PgBouncerProgram:
    """PgBouncer from PATH or /usr/sbin, otherwise the system's package in the cache, which apt has verified.

    Raises ConfigurationError, saying what to do, if neither is possible.
    """
    installed = shutil.which(PACKAGE, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if installed is not None:
        return PgBouncerProgram(Path(installed))
    with download_cache() as cache:
        home = cache / PACKAGE
        if not home.exists():
            _fetch(cache, home)
    return PgBouncerProgram(home / PROGRAM, {"LD_LIBRARY_PATH": _library_path(home)})


def _fetch(cache: Path, home: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise ConfigurationError(
            "PgBouncer is needed; it is not on the PATH, and there is no apt-get to fetch it: install it"
        )
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        apt = _Apt(folder)
        unpacked = folder / "unpacked"
        apt.unpack(PACKAGE, unpacked)
        for library in apt.libraries_of(PACKAGE):
            if not _lacks_libraries(unpacked):
                break
            apt.unpack(library, unpacked)
        if lost := _lacks_libraries(unpacked):
            raise ConfigurationError(f"PgBouncer was fetched, but lacks libraries ({lost}): install it")
        unpacked.rename(home)


class _Apt:
    """Fetches packages into a folder; with lists of its own if the system's are missing or old."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options: list[str] = []

    def unpack(self, package: str, target: Path) -> None:
        """Unpack a package without running anything of it."""
        try:
            self._fetch(package)
        except ConfigurationError:
            if self._options:
                raise
            self._update()
            self._fetch(package)
        (archive,) = self._folder.glob(f"{package}_*.deb")
        _run(["dpkg", "-x", str(archive), str(target)], self._folder)

    def libraries_of(self, package: str) -> list[str]:
        """Packages of libraries that a fetched package depends on, and that the system has not installed."""
        (archive,) = self._folder.glob(f"{package}_*.deb")
        words = _run(["dpkg", "-f", str(archive), "Depends"], self._folder).split(",")
        names = [word.split("|")[0].split("(")[0].strip() for word in words]
        return [name for name in names if name.startswith("lib") and not self._is_installed(name)]

    def _is_installed(self, package: str) -> bool:
        found = subprocess.run(["dpkg", "-s", package], capture_output=True, check=False)
        return found.returncode == 0

    def _fetch(self, package: str) -> None:
        _run(["apt-get", *self._options, "--quiet", "download", package], self._folder)

    def _update(self) -> None:
        """Read the lists anew, into our own folder: neither root's right nor the system's state is touched."""
        for name in ("lists/partial", "archives/partial"):
            (self._folder / name).mkdir(parents=True)
        places = {
            "Dir::State::lists": self._folder / "lists",
            "Dir::Cache": self._folder,
            "Dir::Cache::archives": self._folder / "archives",
            "APT::Sandbox::User": "root",
        }
        self._options = [part for name, value in places.items() for part in ("-o", f"{name}={value}")]
        _run(["apt-get", *self._options, "--quiet", "update"], self._folder)


def _library_path(home: Path) -> str:
    folders = {str(path.parent) for top in ("lib", "usr/lib") for path in (home / top).rglob("*.so.*")}
    return os.pathsep.join(sorted(folders))


def _lacks_libraries(home: Path) -> str:
    """The lines of missing libraries; empty if the program can be loaded."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LD_LIBRARY_PATH": _library_path(home)}
    lines = _run(["ldd", str(home / PROGRAM)], home, environment).splitlines()
    return ", ".join(line.strip() for line in lines if LOST in line)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()[-3:]
        raise ConfigurationError(
            f"PgBouncer cannot be fetched ({' '.join(command[:1])}: {' | '.join(lines)}): install it, or give apt-get "
            "its sources"
        )
    return finished.stdout
