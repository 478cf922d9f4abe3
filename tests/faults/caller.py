"""A process of callers: ``python -m tests.faults.caller DSN SEED ACCOUNT...``, until it gets SIGTERM.

Whatever changes in what they were told is a JSON line, ``[number of the command, all about it]``; a command's line is
out before the command is.
"""

import asyncio
import signal
import sys
from uuid import UUID

import msgspec

from cqrskit import Settings
from cqrskit.telemetry import configure_logging
from example_ledger.application import ledger
from tests.faults.load import Load
from tests.faults.told import Told, submitting_to

__all__ = ["ToldLine"]


class ToldLine(msgspec.Struct, array_like=True):
    """One line of output."""

    number: int
    told: Told


async def call(dsn: str, seed: int, accounts: list[UUID]) -> None:
    """Let callers work, and tell about it."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    numbers: dict[UUID, int] = {}

    def write(told: Told) -> None:
        number = numbers.setdefault(told.command.transfer_id, len(numbers))
        sys.stdout.buffer.write(msgspec.json.encode(ToldLine(number, told)) + b"\n")
        sys.stdout.buffer.flush()

    async with ledger.open(Settings(database_url=dsn, batch_size_max=8)) as runtime:
        load = Load(submitting_to(runtime.executor), accounts, callers=16, seed=seed, on_change=write)
        async with load.running():
            await stop.wait()


if __name__ == "__main__":
    configure_logging("warning")
    asyncio.run(call(sys.argv[1], int(sys.argv[2]), [UUID(text) for text in sys.argv[3:]]))
