"""Where real servers for tests are kept once they were fetched, so that each is fetched once a machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["download_cache"]


@contextmanager
def download_cache() -> Iterator[Path]:
    """The folder, for this process alone as long as the context lasts.

    It is named by ``CQRSKIT_TEST_CACHE``; for root it is under /var/cache, as others must be able to read it.
    """
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _folder() -> Path:
    named = os.environ.get("CQRSKIT_TEST_CACHE")
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/cqrskit")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cqrskit"
