"""Commands of the ledger that are more than a transfer: holds, entries of several legs, and atomic batches.

They differ in how many events they have, so they are compared by events per second: what is written, and not how
often somebody asked. How many events there are is read from the log itself.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from statistics import median
from uuid import UUID, uuid4

from cqrskit import Command, Rejected, Runtime, Settings
from example_ledger.application import ledger
from example_ledger.entries import EntryLeg, PostEntry
from example_ledger.holds import CaptureHold, PlaceHold, VoidHold
from example_ledger.transfers import PostBatch, PostTransfer
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, Side, at_least, interleaved, rate
from tests.benchmarks.samples import open_accounts, transfers

__all__ = ["atomic_batches", "entries", "measure", "post", "transfers_and_holds"]

ACCOUNTS = 1_000
IN_FLIGHT = 512
BATCHES_IN_FLIGHT = 8
BATCH = 100
HELD_SHARE, CAPTURED_SHARE, VOIDED_SHARE = 0.3, 0.5, 0.25
"""Of all movements, and of the holds; the last quarter of the holds stays as it is."""
RESOLVED_AFTER = 2_000
"""A hold is captured or voided so many movements after it was placed."""
PAYING, PAID = (150, 50), (100, 80, 20)
"""The amounts of an entry's legs."""
ENOUGH = 0.7


def transfers_and_holds(accounts: list[UUID], count: int, *, seed: int) -> Iterator[Command]:
    """So many movements, of which three in ten are holds, half of which are captured later and a quarter voided."""
    random_number = random.Random(seed)
    later: deque[tuple[int, Command]] = deque()
    for number, transfer in enumerate(islice(transfers(accounts, seed=seed), count)):
        while later and later[0][0] <= number:
            yield later.popleft()[1]
        if random_number.random() >= HELD_SHARE:
            yield transfer
            continue
        hold = PlaceHold(
            debit_account_id=transfer.debit_account_id,
            credit_account_id=transfer.credit_account_id,
            amount=transfer.amount,
            currency=transfer.currency,
        )
        yield hold
        what_becomes_of_it = random_number.random()
        if what_becomes_of_it < CAPTURED_SHARE:
            later.append((number + RESOLVED_AFTER, CaptureHold(hold_id=hold.hold_id)))
        elif what_becomes_of_it < CAPTURED_SHARE + VOIDED_SHARE:
            later.append((number + RESOLVED_AFTER, VoidHold(hold_id=hold.hold_id)))
    for _, command in later:
        yield command


def entries(accounts: list[UUID], *, seed: int) -> Iterator[PostEntry]:
    """Entries of five legs, as of a sale: two accounts pay, and three are paid."""
    random_number = random.Random(seed)
    while True:
        some = iter(random_number.sample(accounts, len(PAYING) + len(PAID)))
        paying = [EntryLeg(next(some), "debit", amount) for amount in PAYING]
        paid = [EntryLeg(next(some), "credit", amount) for amount in PAID]
        yield PostEntry(legs=(*paying, *paid), currency="EUR")


def atomic_batches(accounts: list[UUID], *, seed: int) -> Iterator[PostBatch]:
    """Batches of a hundred transfers, all or none."""
    source = transfers(accounts, seed=seed)
    while True:
        yield PostBatch(transfers=tuple(islice(source, BATCH)))


async def post(runtime: Runtime, commands: Sequence[Command], in_flight: int) -> Counter[str]:
    """Give commands in their order, so many at a time, each awaited by a caller of its own; refusals by their codes."""
    waiting = iter(commands)
    refused: Counter[str] = Counter()

    async def call() -> None:
        for command in waiting:
            try:
                await runtime.executor.execute(command)
            except Rejected as refusal:
                refused[refusal.code] += 1

    await asyncio.gather(*(call() for _ in range(in_flight)))
    return refused


async def measure(bench: Bench) -> list[Row]:
    """Each kind of command in turns with plain transfers, all on one log among the same accounts."""
    bench.say("holds, entries of five legs and atomic batches, beside plain transfers")
    count = bench.amount(20_000, at_least=IN_FLIGHT)
    batches = max(BATCHES_IN_FLIGHT, count // BATCH)
    speeds: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        url = stack.enter_context(bench.database())
        runtime = await stack.enter_async_context(ledger.open(Settings(database_url=url)))
        accounts = await open_accounts(runtime.executor, ACCOUNTS)

        async def events_per_second(name: str) -> float:
            commands, in_flight = _work(name, accounts, count, batches)
            head = await runtime.event_store.head()
            per_second = await rate(1, partial(_all_taken, runtime, commands, in_flight))
            speeds.setdefault(name, []).append(len(commands) * per_second)
            return (await runtime.event_store.head() - head) * per_second

        sides = {name: Side(name, partial(events_per_second, name)) for name in ("plain", *NAMES)}
        await interleaved(bench.rounds, *sides.values())
    plain = sides["plain"]
    return [
        Row(
            f"{text}, events",
            "/s",
            sides[name].value,
            "plain transfers, events",
            plain.value,
            at_least(ENOUGH),
            f"{median(speeds[name]):,.0f} {what}/s; events {sides[name].spread}, plain {plain.spread}",
        )
        for name, (text, what) in NAMES.items()
    ]


NAMES = {
    "holds": ("transfers with 30 % holds, half of them captured, a quarter voided", "commands"),
    "entries": ("entries of 5 legs", "entries"),
    "batches": (f"atomic batches of {BATCH} transfers, {BATCHES_IN_FLIGHT} in flight", "batches"),
}


def _work(name: str, accounts: list[UUID], count: int, batches: int) -> tuple[Sequence[Command], int]:
    """The commands of a round, all made before the clock starts, and how many of them are in flight."""
    seed = uuid4().int
    if name == "holds":
        return list(transfers_and_holds(accounts, count, seed=seed)), IN_FLIGHT
    if name == "entries":
        return list(islice(entries(accounts, seed=seed), count // 2)), IN_FLIGHT
    if name == "batches":
        return list(islice(atomic_batches(accounts, seed=seed), batches)), BATCHES_IN_FLIGHT
    plain: list[PostTransfer] = list(islice(transfers(accounts, seed=seed), count))
    return plain, IN_FLIGHT


async def _all_taken(runtime: Runtime, commands: Sequence[Command], in_flight: int) -> None:
    refused = await post(runtime, commands, in_flight)
    assert not refused, f"of {len(commands)} commands some were refused: {dict(refused)}"
