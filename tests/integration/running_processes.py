"""Runs the real ``cqrskit`` command in processes of its own, and the bank's server beside a test."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from litestar import Litestar

from cqrskit import Settings
from cqrskit.web import serve
from tests.integration.bank import create_app

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30


class Finished(msgspec.Struct):
    """What a command left behind."""

    code: int
    out: str
    err: str


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of our own process without its CQRSKIT_ settings, with `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CQRSKIT_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, **variables}


async def start(
    *arguments: str,
    module: str = "cqrskit",
    folder: Path = ROOT,
    stdout: int = asyncio.subprocess.PIPE,
    variables: Mapping[str, str] | None = None,
) -> asyncio.subprocess.Process:
    """Start ``python -m cqrskit``, or another module; `stdout` is a pipe or a descriptor."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=folder,
        env=environment(variables or {}),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def finish(process: asyncio.subprocess.Process) -> Finished:
    """Wait for a process's end; one that takes too long is killed and fails the test."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def processes_left(process: asyncio.subprocess.Process) -> bool:
    """Whether anything that the process started is still there."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


async def cqrskit(*arguments: str, folder: Path = ROOT, variables: Mapping[str, str] | None = None) -> Finished:
    """Run a command of ``cqrskit`` to its end."""
    return await finish(await start(*arguments, folder=folder, variables=variables))


async def ledger(*arguments: str, folder: Path = ROOT, variables: Mapping[str, str] | None = None) -> Finished:
    """Run a command of ``ledger`` to its end."""
    return await finish(await start(*arguments, module="example_ledger", folder=folder, variables=variables))


async def address_of(process: asyncio.subprocess.Process) -> str:
    """The address that a starting server prints."""
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)).decode()
    if not line.startswith("listening on "):
        finished = await finish(process)
        raise AssertionError(f"the server did not start: {line!r} {finished.err}")
    return line.removeprefix("listening on ").strip()


@asynccontextmanager
async def bank_client(settings: Settings, app: Litestar | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the bank, or of another app, served in this process on a free port."""
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def tell(address: str) -> None:
        listening.set_result(address)

    server = asyncio.create_task(serve(app or create_app(settings), settings, stop=stop, on_listening=tell))
    both: set[asyncio.Future[Any]] = {server, listening}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        server.result()
    try:
        async with httpx.AsyncClient(base_url=listening.result(), timeout=DEADLINE_SECONDS) as client:
            yield client
    finally:
        stop.set()
        await server
