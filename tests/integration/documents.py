"""Runs the code blocks of a documentation page in an empty folder, as a reader would type them."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.integration.running_processes import environment

BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
FILE = re.compile(r"^# (?P<name>(?:\w+/)*\w+\.py)(?P<more>, continued)?$")
VOLATILE = [
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)"), "..."),
    (re.compile(r'"correlation_id":"[0-9a-f]{32}"'), '"correlation_id":"..."'),
    (re.compile(r"in \d+\.\d+s"), "in ..."),
    (re.compile(r"\(\d+\.\d s\)$", re.MULTILINE), "(...)"),
    (re.compile(r"\d[\d,.]* [kM]B$", re.MULTILINE), "... B"),
    (re.compile(r"\d[\d,.]* s or more"), "... s or more"),
    (re.compile(r'"worker":"[^"]+"'), '"worker":"..."'),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "..."),
]
DEADLINE_SECONDS = 60


class Block(msgspec.Struct, frozen=True):
    """One fenced block of a page; `reason` says why it is not run."""

    kind: str
    text: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(each["kind"], each["text"], each["reason"]) for each in found]


class Page:
    """A page at work in its folder, with the programs beside `python`. Port 8000 of the text is a free one here.

    `variables` are what its text asks the reader to have set.
    """

    def __init__(
        self, folder: Path, python: Path = Path(sys.executable), variables: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._port = _free_port()
        self._background: list[asyncio.subprocess.Process] = []
        self._python = python
        binaries = str(python.parent)
        path = os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])
        self._environment = environment({"PATH": path, "CQRSKIT_PORT": str(self._port), "CQRSKIT_LOG_LEVEL": "warning"})
        self._environment.pop("PYTHONPATH")
        self._environment.update(variables or {})

    async def run(self, block: Block) -> None:
        """Write a block's file, or type its commands and compare what they answer."""
        if block.reason is not None or block.kind == "text":
            return
        if block.kind == "python":
            self._write(block.text)
        elif block.kind == "console":
            for command, expected in _commands(block.text):
                await self._type(command.replace("localhost:8000", f"localhost:{self._port}"), expected)
        else:
            raise AssertionError(f"a block of kind {block.kind!r} can neither be run nor says why not: {block.text}")

    async def close(self) -> None:
        """End what was started in the background; it must end well."""
        for process in self._background:
            process.send_signal(signal.SIGTERM)
        codes = [await process.wait() for process in self._background]
        assert codes == [0] * len(codes)
        for path in self._folder.glob("*.py"):
            await self._type(f"{self._python} -c 'import {path.stem}' > /dev/null", "")

    def _write(self, text: str) -> None:
        first, _, _ = text.partition("\n")
        named = FILE.match(first)
        assert named, f"the first line of a Python block must name its file, not be {first!r}"
        path = self._folder / named["name"]
        with path.open("a" if named["more"] else "w", encoding="utf-8") as file:
            file.write(text)

    async def _type(self, command: str, expected: str) -> None:
        if command.endswith("&"):
            self._background.append(await self._start(f"exec {command[:-1]}", asyncio.subprocess.DEVNULL))
            await self._listening()
            return
        process = await self._start(command, asyncio.subprocess.PIPE)
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, _ = await process.communicate()
        told = _normal(out.decode())
        assert told == _normal(expected), f"{command}\n{told}"

    async def _start(self, command: str, stdout: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_shell(
            command, cwd=self._folder, env=self._environment, stdout=stdout, stderr=None
        )

    async def _listening(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                except OSError:
                    assert self._background[-1].returncode is None, "the server ended"
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return


def _commands(text: str) -> list[tuple[str, str]]:
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert parts[0] == "", "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _normal(text: str) -> str:
    for pattern, word in VOLATILE:
        text = pattern.sub(word, text)
    return text.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
