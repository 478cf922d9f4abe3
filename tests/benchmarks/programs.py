"""Programs in processes of their own: they are told what to do in lines of JSON, and answer so."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cqrskit.cli.running import die_with_parent

__all__ = ["Program", "answer_lines", "running", "serving"]

ROOT = Path(__file__).parents[2]
LINE_BYTES_MAX = 64 * 1024 * 1024
DEADLINE_SECONDS = 600
STOP_SECONDS = 30


class Program:
    """One running program."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    async def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line and wait for its answer."""
        self.tell(question)
        return await self.hear()

    def tell(self, question: Mapping[str, Any]) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """The next answer."""
        answer: dict[str, Any] = json.loads(await self.line())
        return answer

    async def line(self) -> bytes:
        """The next line that it prints."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_SECONDS)
        if not line:
            raise RuntimeError(f"{self._name} ended before it answered; its message is above")
        return line

    async def address(self) -> tuple[str, int]:
        """Host and port of a server, which prints ``listening on http://host:port`` once it is."""
        line = (await self.line()).decode().strip()
        if not line.startswith("listening on http://"):
            raise RuntimeError(f"{self._name} said {line!r} in place of where it listens")
        host, _, port = line.removeprefix("listening on http://").rpartition(":")
        return host, int(port)


@asynccontextmanager
async def running(module: str, *arguments: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """``python -m module`` for as long as the context; it is ended by SIGTERM."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CQRSKIT_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env={**kept, "PYTHONPATH": path, "CQRSKIT_LOG_LEVEL": "error", **(variables or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        preexec_fn=die_with_parent,
    )
    try:
        yield Program(process, module)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def serving(
    module: str, *arguments: str, variables: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, int]]:
    """Host and port of a server that prints ``listening on http://host:port``."""
    async with running(module, *arguments, variables=variables) as program:
        yield await program.address()


def answer_lines(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """In a program: answer each line until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
