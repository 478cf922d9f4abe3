"""``python -m tests.integration.reacting SECONDS``: run the mirror for so long, then die by kill -9."""

import asyncio
import os
import signal
import sys

from cqrskit import load_settings
from tests.integration.test_reactions import mirroring


async def main(seconds: float) -> None:
    async with mirroring.open(load_settings()):
        asyncio.get_running_loop().call_later(seconds, os.kill, os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
