"""Processes and an Elasticsearch that are killed, frozen, and come back."""

import asyncio
import json
import signal
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from cqrskit.testing import RestartableElasticsearch, WorkerProcess

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
print("trouble", file=sys.stderr, flush=True)
print("at work", os.environ["WORD"], "CQRSKIT_PORT" in os.environ, flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CQRSKIT_PORT", "1")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


async def test_a_worker_starts_with_its_own_settings_and_ends_when_it_is_asked_to(folder: Path) -> None:
    async with WorkerProcess("program", variables={"WORD": "hard"}, folder=folder) as worker:
        assert await worker.started() == "at work hard False"
        assert await worker.terminate() == 7
        assert not worker.running
        assert worker.errors == "trouble\n"


async def test_a_frozen_worker_does_nothing_until_it_is_thawed(folder: Path) -> None:
    async with WorkerProcess("program", variables={"WORD": "hard"}, folder=folder) as worker:
        await worker.started()
        worker.freeze()
        assert worker.running
        ending = asyncio.create_task(worker.terminate())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ending), 0.3)
        worker.thaw()
        assert await ending == 7


async def test_nothing_is_left_of_a_worker_frozen_or_not(folder: Path) -> None:
    async with WorkerProcess("program", variables={"WORD": "hard"}, folder=folder) as worker:
        await worker.started()
        (child,) = [each for each in psutil.Process().children() if "program" in each.cmdline()]
        worker.freeze()
    assert await worker.ended() == -signal.SIGKILL
    assert not psutil.pid_exists(child.pid)


async def test_a_worker_that_has_just_ended_may_be_killed(folder: Path) -> None:
    async with WorkerProcess("program", variables={"WORD": "hard"}, folder=folder) as worker:
        await worker.started()
        (child,) = [each for each in psutil.Process().children() if "program" in each.cmdline()]
        child.terminate()
        while psutil.pid_exists(child.pid):
            time.sleep(0.01)  # noqa: ASYNC251 (the loop stands still, so that asyncio cannot tell us)
        worker.kill()
        assert await worker.ended() == 7


async def test_a_worker_that_ends_at_once_says_why(folder: Path) -> None:
    async with WorkerProcess("program", folder=folder) as worker:
        with pytest.raises(AssertionError, match="KeyError: 'WORD'"):
            await worker.started()


def call(url: str, method: str = "GET", body: object = None) -> object:
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_restartable_elasticsearch_comes_back_at_the_same_address_with_what_it_has_acknowledged(
    restartable_elasticsearch: RestartableElasticsearch, restartable_elasticsearch_url: str, index_prefix: str
) -> None:
    server, url = restartable_elasticsearch, restartable_elasticsearch_url
    call(f"{url}/{index_prefix}", "PUT", {"settings": {"number_of_replicas": 0}})
    call(f"{url}/{index_prefix}/_doc/one", "PUT", {"name": "one"})
    server.kill()
    assert not server.running
    with pytest.raises(OSError, match="refused"):
        call(url)
    server.start_again()
    assert server.url == url
    found = call(f"{url}/{index_prefix}/_doc/one")
    assert isinstance(found, dict)
    assert found["_source"] == {"name": "one"}
