"""Progress bars: on terminals they move, elsewhere a line every few seconds says how far the work is."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["ProgressBar"]

LINE_INTERVAL_SECONDS = 5.0


class ProgressBar:
    """One bar on standard error, used as a context. `show` says how much of `total` is done."""

    def __init__(self, what: str, total: int, *, quiet: bool = False) -> None:
        """`quiet`: show nothing at all."""
        console = Console(stderr=True)
        self._what = what
        self._total = max(total, 1)
        self._quiet = quiet
        self._terminal = console.is_terminal and not quiet
        self._said_at = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not self._terminal,
        )
        self._console = console
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task(self._what, total=self._total, detail="")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, detail: str = "", *, total: int | None = None) -> None:
        """`done` of the total, which may have changed, and something to say about it."""
        if total is not None:
            self._total = max(total, 1)
        if self._task is not None:
            self._progress.update(self._task, completed=min(done, self._total), total=self._total, detail=detail)
        if not (self._terminal or self._quiet) and time.monotonic() - self._said_at > LINE_INTERVAL_SECONDS:
            self._said_at = time.monotonic()
            self._console.print(f"{self._what}: {100 * done // self._total} % {detail}", highlight=False)
