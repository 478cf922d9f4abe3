"""The load of a whole service, a program: commands and queries as clients mix them, in an open loop or a closed one.

Each line is a piece of work, and is answered when it is done. What a request needs from an answer before (the
position of a write for the read that follows it, a hold to capture) it takes from there, so requests are made when they
are due. An error does not end the work: it is counted, and a connection that is lost is made anew.
"""

import asyncio
import gc
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
import uvloop

from cqrskit import Command, new_id
from example_ledger.holds import PlaceHold
from tests.benchmarks.figures import percentile
from tests.benchmarks.ledger_commands import entries
from tests.benchmarks.load import PERCENTILES, Connection
from tests.benchmarks.pace import arrivals, at_moments
from tests.benchmarks.programs import answer_lines
from tests.benchmarks.samples import transfers

__all__ = ["SHARES", "MixedLoad", "MixedWork", "Requests"]

SHARES = {
    "transfer": 0.30,
    "hold": 0.08,
    "capture": 0.04,
    "void": 0.02,
    "entry": 0.06,
    "account": 0.25,
    "statement": 0.15,
    "search": 0.10,
}
"""How many of the requests are of each kind: half change something, half ask. `account` asks by the position of a
write just answered, so it waits until the read model has it."""
AMOUNT_MAX = 100_000
RECENT_MAX = 1_000
GRACE_SECONDS = 30.0
"""So long the last answers are waited for; what has none by then is an error."""
LOST = "lost"


class MixedWork(msgspec.Struct):
    """Ask one server for so many seconds: `rate` times each second, or, without one, again with each answer."""

    host: str
    port: int
    key: str
    accounts: list[UUID]
    connections: int
    seconds: float
    seed: int
    rate: float | None = None


class Asked(msgspec.Struct, frozen=True):
    """A request: its kind, its bytes, and whom or what it is about."""

    kind: str
    request: bytes
    about: UUID | None = None


class Requests:
    """Makes requests, and learns from the answers what to ask about. The first accounts are asked for most."""

    def __init__(self, work: MixedWork) -> None:
        self._random = random.Random(work.seed)
        self._accounts = work.accounts
        self._weights = [1 / rank for rank in range(1, len(work.accounts) + 1)]
        self._host = f"{work.host}:{work.port}"
        self._key = work.key
        self._transfers = transfers(work.accounts, seed=work.seed)
        self._entries = entries(work.accounts, seed=work.seed)
        self._written: deque[tuple[UUID, int]] = deque(maxlen=RECENT_MAX)
        self._held: deque[UUID] = deque()
        self._makers: dict[str, Callable[[], Asked]] = {
            "transfer": self._transfer,
            "hold": self._hold,
            "capture": self._capture,
            "void": self._void,
            "entry": self._entry,
            "account": self._account,
            "statement": self._statement,
            "search": self._search,
        }
        self._kinds, self._shares = list(SHARES), list(SHARES.values())

    def next(self) -> Asked:
        """The next request."""
        (kind,) = self._random.choices(self._kinds, self._shares)
        return self._makers[kind]()

    def answered(self, asked: Asked, answer: bytes) -> None:
        """A request was taken: remember what later ones need."""
        if asked.about is None:
            return
        if asked.kind == "hold":
            self._held.append(asked.about)
        elif asked.kind == "transfer":
            self._written.append((asked.about, position_in(answer)))

    def _transfer(self) -> Asked:
        command = next(self._transfers)
        return Asked("transfer", self._post("/transfers", command), command.debit_account_id)

    def _hold(self) -> Asked:
        debited, credited = self._random.sample(self._accounts, 2)
        command = PlaceHold(
            hold_id=new_id(),
            debit_account_id=debited,
            credit_account_id=credited,
            amount=self._random.randint(1, AMOUNT_MAX),
            currency="EUR",
        )
        return Asked("hold", self._post("/holds", command), command.hold_id)

    def _capture(self) -> Asked:
        return self._resolve("capture")

    def _void(self) -> Asked:
        return self._resolve("void")

    def _resolve(self, kind: str) -> Asked:
        """End the oldest hold; where none is left, place another."""
        if not self._held:
            return self._hold()
        return Asked(kind, self._post(f"/holds/{self._held.popleft()}/{kind}", {}))

    def _entry(self) -> Asked:
        return Asked("entry", self._post("/entries", next(self._entries)))

    def _account(self) -> Asked:
        """The account that the last transfer answered has debited, as it is after it."""
        if not self._written:
            return Asked("account", self._get(f"/accounts/{self._some_account()}"))
        account_id, position = self._written[-1]
        return Asked("account", self._get(f"/accounts/{account_id}", f"Consistency-Position: {position}\r\n"))

    def _statement(self) -> Asked:
        return Asked("statement", self._get(f"/accounts/{self._some_account()}/statement?limit=50"))

    def _search(self) -> Asked:
        return Asked("search", self._get(f"/transfers?q=invoice+{self._random.randint(1, AMOUNT_MAX)}"))

    def _some_account(self) -> UUID:
        return self._random.choices(self._accounts, self._weights)[0]

    def _post(self, path: str, body: Command | dict[str, Any]) -> bytes:
        encoded = msgspec.json.encode(body)
        more = f"Content-Type: application/json\r\nContent-Length: {len(encoded)}\r\n"
        return self._head("POST", path, more) + encoded

    def _get(self, path: str, more: str = "") -> bytes:
        return self._head("GET", path, more)

    def _head(self, method: str, path: str, more: str) -> bytes:
        text = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {self._key}\r\n{more}\r\n"
        return text.encode()


def position_in(answer: bytes) -> int:
    """What a reply's ``Consistency-Position`` says."""
    head = answer[: answer.index(b"\r\n\r\n")].lower()
    begin = head.index(b"consistency-position:") + 21
    return int(head[begin:].split(b"\r\n", 1)[0])


class MixedLoad:
    """One piece of work."""

    def __init__(self, work: MixedWork) -> None:
        self._work = work
        self._requests = Requests(work)
        self._idle: deque[Connection] = deque()
        self._busy: dict[Connection, tuple[Asked, float]] = {}
        self._waiting: deque[tuple[Asked, float]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._latencies: dict[str, list[float]] = {}
        self._statuses: Counter[str] = Counter()
        self._until = float("inf")
        self._ended = False
        self._settled = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Do it, and say what was seen."""
        await asyncio.gather(*(self._connect() for _ in range(self._work.connections)))
        gc.collect()
        gc.freeze()
        begun, used = time.perf_counter(), time.process_time()
        self._until = begun + self._work.seconds
        if self._work.rate is None:
            for _ in range(len(self._idle)):
                self._arrive(begun)
            await asyncio.sleep(self._work.seconds)
        else:
            moments = arrivals(self._work.rate, self._work.seconds, seed=self._work.seed)
            await at_moments(moments, self._arrive)
        await self._settle()
        seconds = time.perf_counter() - begun
        gc.unfreeze()
        unanswered = len(self._busy) + len(self._waiting)
        self._ended = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        return self._found(seconds, unanswered, (time.process_time() - used) / seconds)

    async def _settle(self) -> None:
        """Wait for the answers that are still to come."""
        deadline = time.perf_counter() + GRACE_SECONDS
        while (self._busy or self._waiting) and time.perf_counter() < deadline:
            self._settled.clear()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.perf_counter())):
                    await self._settled.wait()
            except TimeoutError:
                return

    def _found(self, seconds: float, unanswered: int, cpu_share: float) -> dict[str, Any]:
        every = [latency for each in self._latencies.values() for latency in each]
        latencies = {"all": every, **self._latencies}
        return {
            "requests": len(every) + self._statuses[LOST] + unanswered,
            "seconds": seconds,
            "statuses": dict(self._statuses),
            "unanswered": unanswered,
            "cpu_share": cpu_share,
            "milliseconds": {
                kind: {name: 1000 * percentile(each, part) for name, part in PERCENTILES.items()}
                for kind, each in latencies.items()
                if each
            },
        }

    def _arrive(self, due: float) -> None:
        asked = self._requests.next()
        if self._idle:  # the one that rested longest, since servers close connections that rest for some seconds
            self._send(self._idle.popleft(), asked, due)
        else:
            self._waiting.append((asked, due))

    def _send(self, connection: Connection, asked: Asked, due: float) -> None:
        self._busy[connection] = (asked, due)
        connection.send(asked.request, due)

    def answered(self, connection: Connection, answer: bytes, due: float) -> None:
        """One request has its answer: the connection takes the next."""
        now = time.perf_counter()
        asked, _ = self._busy.pop(connection)
        status = answer[9:12].decode()
        self._statuses[status] += 1
        self._latencies.setdefault(asked.kind, []).append(now - due)
        if status in ("200", "201"):
            self._requests.answered(asked, answer)
        self._rest(connection)
        if self._work.rate is None and now < self._until:
            self._arrive(now)

    def _rest(self, connection: Connection) -> None:
        """A connection is free: for one that waits, or for the next."""
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)
        if not self._busy and not self._waiting:
            self._settled.set()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """The server has hung up: its request is an error, and another connection takes the place."""
        if self._ended:
            return
        if connection in self._idle:
            self._idle.remove(connection)
        if self._busy.pop(connection, None) is not None:
            self._statuses[LOST] += 1
        task = asyncio.ensure_future(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._ended:
            try:
                _, connection = await loop.create_connection(lambda: Connection(self), self._work.host, self._work.port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            self._rest(connection)
            return


def main() -> None:
    """Answer lines, each a piece of work."""

    async def run(work: MixedWork) -> dict[str, Any]:
        return await MixedLoad(work).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer_lines(lambda question: runner.run(run(msgspec.convert(question, MixedWork))))


if __name__ == "__main__":
    main()
