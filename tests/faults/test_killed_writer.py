"""Two processes fight over two accounts, and one of them is killed: nothing is lost, nothing doubled."""

import asyncio
import contextlib
from collections import Counter
from uuid import UUID

import msgspec

from cqrskit import Settings
from cqrskit.testing import eventually
from example_ledger.application import ledger
from tests.faults.caller import ToldLine
from tests.faults.checking import assert_log_tells_what_callers_were_told
from tests.faults.load import Load, load_on, opened_accounts
from tests.faults.told import Told
from tests.integration.running_processes import finish, start

WAIT_SECONDS = 30.0
ROUNDS = 2


class Callers:
    """A process of callers, and what they were told so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._told: dict[int, Told] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def started(cls, dsn: str, seed: int, accounts: list[UUID]) -> "Callers":
        """Callers at work."""
        arguments = [dsn, str(seed), *map(str, accounts)]
        return cls(await start(*arguments, module="tests.faults.caller"))

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            with contextlib.suppress(msgspec.DecodeError):  # the last line of a killed process may be cut off
                found = msgspec.json.decode(line, type=ToldLine)
                self._told[found.number] = found.told

    async def ended(self) -> int:
        """The exit code, when all that the process has said was read."""
        await self._reading
        finished = await finish(self.process)
        assert finished.code in (0, -9), finished.err
        return finished.code

    @property
    def told(self) -> list[Told]:
        """What they were told."""
        return list(self._told.values())

    @property
    def answers(self) -> Counter[str]:
        """How many answers of each kind they got."""
        return Counter(each.answer.kind for told in self.told for each in told.attempts if each.answer is not None)

    async def progress(self, count: int = 150) -> None:
        """Wait until they got so many more answers."""
        goal = self.answers.total() + count
        await eventually(lambda: self.answers.total() >= goal, timeout_seconds=WAIT_SECONDS)


async def test_the_log_tells_what_two_fighting_processes_were_told_though_one_is_killed(postgres_dsn: str) -> None:
    async with ledger.open(Settings(database_url=postgres_dsn)) as runtime:
        accounts = await opened_accounts(runtime.executor, count=2)
        retrying = load_on(runtime.executor, accounts)
        await retrying.fund()
        survivor = await Callers.started(postgres_dsn, 1, accounts)
        await survivor.progress()
        killed = [await _fight_and_kill(survivor, postgres_dsn, 2 + number, accounts) for number in range(ROUNDS)]
        await survivor.progress()
        survivor.process.terminate()
        assert await survivor.ended() == 0
        await _retry_what_is_open(retrying, killed)
    told = [*retrying.told, *survivor.told, *(each for callers in killed for each in callers.told)]
    assert set(survivor.answers) == {"acknowledged", "refused"}, survivor.answers
    await assert_log_tells_what_callers_were_told(postgres_dsn, told)


async def _fight_and_kill(survivor: Callers, dsn: str, seed: int, accounts: list[UUID]) -> Callers:
    other = await Callers.started(dsn, seed, accounts)
    await other.progress()
    other.process.kill()
    await survivor.progress()
    assert await other.ended() == -9
    return other


async def _retry_what_is_open(load: Load, killed: list[Callers]) -> None:
    """Send again, as their clients would, what killed processes did not answer."""
    retried = 0
    for told in [each for callers in killed for each in callers.told]:
        if told.attempts[-1].answer is None:
            await load.settle(told)
            retried += 1
    assert retried > 0, "no command was on its way when a process was killed"
