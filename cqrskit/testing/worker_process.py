"""A program in a process of its own that a test kills, freezes and wakes: a worker that dies, or a zombie."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["WorkerProcess"]

FIRST_LINE_TIMEOUT_SECONDS = 30.0
END_TIMEOUT_SECONDS = 30.0


class WorkerProcess:
    """``python -m module arguments…`` while the context lasts; whatever is left of it in the end is killed.

    ::

        async with WorkerProcess("cqrskit", "project", "--app", "bank:app", variables=variables) as worker:
            await worker.started()       # `cqrskit project` prints a line when it is at work
            worker.freeze()              # SIGSTOP: it holds what it holds, and does nothing
            ...
            worker.thaw()                # it does not know that time has passed
            assert await worker.terminate() == 0
    """

    def __init__(
        self, module: str, *arguments: str, variables: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        """`variables` are added to our environment, from which our own ``CQRSKIT_`` settings are taken out."""
        self.first_line = ""
        self.errors = ""
        """What it wrote to standard error, once it has ended."""
        self._command = [sys.executable, "-m", module, *arguments]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CQRSKIT_")}
        self._environment = {**kept, **(variables or {})}
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read_errors())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        await self.ended()

    @property
    def running(self) -> bool:
        """Whether it has not ended; a frozen one has not."""
        return self._process is not None and self._process.returncode is None

    async def started(self) -> str:
        """The first line that it prints, once it has. AssertionError with its errors if it ends, or takes too long."""
        assert self._process is not None, "use it in `async with`"
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(FIRST_LINE_TIMEOUT_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"{self._command} printed nothing in {FIRST_LINE_TIMEOUT_SECONDS:g} s") from None
        if not line:
            await self.ended()
            raise AssertionError(f"{self._command} has ended: {self.errors}")
        self.first_line = line.decode().strip()
        return self.first_line

    def kill(self) -> None:
        """``kill -9`` of it and of all that it has started, frozen or not."""
        self._send(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it is: it neither works nor ends, and its connections stay open."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._send(signal.SIGCONT)

    async def terminate(self) -> int:
        """Ask it to end; its exit code."""
        self._send(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself or was killed (-9). TimeoutError if it does not end."""
        assert self._process is not None, "use it in `async with`"
        assert self._reading is not None
        async with asyncio.timeout(END_TIMEOUT_SECONDS):
            await self._reading
            return await self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended by itself, and asyncio has not told us yet
                os.killpg(self._process.pid, number)

    async def _read_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        self.errors += (await self._process.stderr.read()).decode(errors="replace")
