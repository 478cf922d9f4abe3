"""The load of the fault tests: many callers who move money between few hot and many cold accounts, and who retry."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from cqrskit import Executor
from example_ledger.accounts import OpenAccount
from example_ledger.transfers import PostTransfer
from tests.faults.told import Answer, Attempt, Submit, Told, submitting_to

__all__ = ["Load", "load_on", "opened_accounts"]

FUNDS = 60
"""What an account gets at the begin: so little that many transfers are refused."""
PAUSE_SECONDS = 0.02
SETTLING_SECONDS = 45.0


async def opened_accounts(executor: Executor, *, count: int) -> list[UUID]:
    """The bank, which may be overdrawn without limit, and `count` accounts that may not."""
    commands = [OpenAccount(name="bank", type="asset", currency="EUR", overdraft_limit=None)]
    commands += [OpenAccount(name=f"account {number}", type="liability", currency="EUR") for number in range(count)]
    for result in await executor.execute_many(commands):
        assert not isinstance(result, Exception), result
    return [command.account_id for command in commands]


class Load:
    """`callers` at work through `submit`; what each was told is in `told`.

    A caller sends one command at a time. After an answer that leaves the outcome open, or invites a retry, it
    sends the same command again until it knows, except for one in eight, which it gives up. One in ten settled
    commands is sent once more, as by somebody who did not get the answer.
    """

    def __init__(
        self,
        submit: Submit,
        accounts: Sequence[UUID],
        *,
        callers: int = 32,
        hot: int = 2,
        seed: int = 1,
        on_change: Callable[[Told], None] = lambda told: None,
    ) -> None:
        """`accounts`: the bank, then the others, of which the first `hot` get half of all transfers."""
        self.submit = submit
        self.told: list[Told] = []
        self.answers: Counter[str] = Counter()
        self._bank, *self._others = accounts
        self._hot = self._others[:hot]
        self._callers = callers
        self._random = random.Random(seed)
        self._on_change = on_change
        self._stopping = False

    async def fund(self) -> None:
        """Give every account its first money."""
        for account in self._others:
            await self.settle(self._new(self._bank, account, FUNDS))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Callers are at work; in the end each settles what it is at. The server must be well again by then."""
        tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        try:
            yield
            self._stopping = True
            _, unfinished = await asyncio.wait(tasks, timeout=SETTLING_SECONDS)
            waiting = [told.attempts[-1] for told in self.told if told.attempts[-1].answer is None]
            assert not unfinished, f"{len(unfinished)} callers have no answer, e.g. {waiting[:3]}, {self.answers}"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            task.result()

    async def settle(self, told: Told, *, give_up: bool = False) -> None:
        """Send a command until its outcome is known, or once only with `give_up`."""
        while True:
            answer = await self.attempt(told)
            if answer.is_final or give_up:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def attempt(self, told: Told) -> Answer:
        """Send a command once."""
        attempt = Attempt(time.monotonic())
        told.attempts.append(attempt)
        self._on_change(told)
        answer = await self.submit(told.command)
        attempt.ended, attempt.answer = time.monotonic(), answer
        self.answers[answer.kind] += 1
        self._on_change(told)
        return answer

    @property
    def settled(self) -> int:
        """Answers so far that settled a command."""
        return self.answers["acknowledged"] + self.answers["refused"]

    async def _call(self) -> None:
        while not self._stopping:
            told = self._new(*self._sides(), self._amount())
            await self.settle(told, give_up=self._random.random() < 1 / 8)
            if told.final is not None and self._random.random() < 1 / 10:
                await self.settle(told)
            await asyncio.sleep(0)

    def _new(self, debit: UUID, credit: UUID, amount: int) -> Told:
        told = Told(
            PostTransfer(debit_account_id=debit, credit_account_id=credit, amount=amount, currency="EUR"), attempts=[]
        )
        self.told.append(told)
        return told

    def _sides(self) -> tuple[UUID, UUID]:
        one, other = (self._random.choice(self._hot if self._random.random() < 0.5 else self._others) for _ in range(2))
        return one, other

    def _amount(self) -> int:
        """Mostly what an account may have; now and then what no transfer may move."""
        return 0 if self._random.random() < 1 / 50 else self._random.randrange(1, FUNDS)


def load_on(executor: Executor, accounts: Sequence[UUID], *, seed: int = 1) -> Load:
    """32 callers of an executor in this process."""
    return Load(submitting_to(executor), accounts, seed=seed)
