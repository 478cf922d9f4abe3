"""The disk of Postgres' write-ahead log fills up while 32 callers write, and is freed again."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from cqrskit.errors import ConfigurationError
from cqrskit.testing import RestartablePostgres, SmallDisk, eventually
from tests.faults.test_lost_postgres import WAIT_SECONDS, at_work, progress

DISK_MEGABYTES = 24
PARAMETERS = {"min_wal_size": "2MB", "max_wal_size": "4MB"}


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A small disk of its own; without the right to mount one there is nothing to test, but CI has it as root."""
    disk = SmallDisk(DISK_MEGABYTES)
    try:
        disk.__enter__()
    except ConfigurationError as error:
        if os.environ.get("CI") and os.geteuid() == 0:
            raise
        pytest.skip(str(error))
    yield disk
    disk.__exit__(None, None, None)


async def test_the_log_tells_what_callers_were_told_though_the_disk_of_the_write_ahead_log_fills_up(
    disk: SmallDisk,
) -> None:
    server = RestartablePostgres(parameters=PARAMETERS, wal_folder=disk.folder / "wal", wal_segment_megabytes=1)
    await asyncio.to_thread(server.start)
    try:
        async with at_work(server.create_database(), command_timeout_seconds=1.0) as load:
            for _ in range(2):
                await progress(load)
                failed = load.answers["unchanged"] + load.answers["unknown"]
                disk.fill()
                await eventually(
                    lambda failed=failed: load.answers["unchanged"] + load.answers["unknown"] > failed,  # type: ignore[misc]
                    timeout_seconds=WAIT_SECONDS,
                )
                disk.free()
                await asyncio.to_thread(server.start_again)
            await progress(load)
    finally:
        await asyncio.to_thread(server.stop)
    answers = [attempt.answer for told in load.told for attempt in told.attempts if attempt.answer]
    open_ones = {answer.code for answer in answers if not answer.is_final}
    assert open_ones <= {"CommitUnknown", "DeadlineExceeded", "ServerUnavailable"}
