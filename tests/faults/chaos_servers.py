"""The processes of the chaos test, and what is done to them: killed, frozen, stopped, cut off, and started again.

All that happens, and when, comes from a seed.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Self

import msgspec
import psutil
import psycopg

from cqrskit.tasks import end_tasks
from cqrskit.testing import (
    ClientMessage,
    CuttableWire,
    HttpWire,
    RestartableElasticsearch,
    RestartablePostgres,
    WorkerProcess,
    bulk_writes,
    commits,
    cutting,
    eventually,
    every,
    says,
)
from tests.integration.running_processes import ROOT

__all__ = ["Chaos", "Program"]

DOWN_SECONDS = (0.0, 1.5)
FROZEN_SECONDS = (1.0, 3.5)
PAUSES_SECONDS = (0.3, 3.0)
LOST_BULKS = 3
LOST_COMMITS = 8
UNEXPECTED_WORDS = ("Traceback", '"level": "error"', '"level": "critical"')
KILLED = -9
STOPPED_WHILE_IT_STARTED = -15
SERVER_UNREACHABLE = 3
"""The exit code of a program that could not start since a server did not answer: whatever runs it starts it again."""
SUPERVISION_SECONDS = 0.3
READY_SECONDS = 30.0
GONE_SECONDS = 30.0
TURN_SECONDS = 20.0
"""So long until Elasticsearch is killed, each time."""
WRITERS = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name LIKE 'cqrskit writer%' AND datname = current_database() ORDER BY backend_start
"""

APPENDS = says("INSERT INTO command_receipts")

Deed = Callable[[], Awaitable[None]]


class Program:
    """A process that is killed and started again with the same arguments, and supervised in between."""

    def __init__(self, *command: str, variables: Mapping[str, str], port: int | None = None) -> None:
        """`port`: where it listens, once it is ready."""
        self.command = command if port is None else (*command, "--port", str(port))
        self._port = port
        self.complaints: list[str] = []
        """Ends that nobody had asked for, and lines that say that something is wrong with the program itself."""
        self.unreachable = 0
        """How often it ended, and was started again, because it could not reach a server at its start."""
        self._variables = variables
        self._process: WorkerProcess | None = None
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Start it, without waiting until it is ready."""
        async with self._changing:
            await self._start()

    async def _start(self) -> None:
        module, *arguments = self.command
        process = WorkerProcess(module, *arguments, variables=self._variables, folder=ROOT)
        self._process = await process.__aenter__()

    async def kill(self) -> None:
        """``kill -9``, and leave it so until `start`."""
        async with self._changing:
            process = self._alive()
            process.kill()
            self._ended(process, await process.ended(), KILLED)
            self._process = None

    async def terminate(self) -> None:
        """Ask it to end, which it must do by itself, in time and with code 0."""
        async with self._changing:
            process = self._alive()
            code = await process.terminate()
            self._ended(process, 0 if code == STOPPED_WHILE_IT_STARTED else code, 0)
            self._process = None

    async def supervise(self) -> None:
        """Start it again if it has ended by itself; only because a server was not reachable may it do so."""
        async with self._changing:
            if self._process is not None and not self._process.running:
                self._ended(self._process, await self._process.ended(), SERVER_UNREACHABLE)
                await self._start()

    async def ready(self) -> None:
        """Wait until it listens, but not for ever: a server that it needs may be away."""
        deadline = time.monotonic() + READY_SECONDS
        while self._port is not None and time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return

    async def freeze(self, seconds: float) -> None:
        """Let it stand still for so long."""
        process = self._alive()
        process.freeze()
        await asyncio.sleep(seconds)
        process.thaw()

    def _alive(self) -> WorkerProcess:
        assert self._process is not None, "start it first"
        return self._process

    def _ended(self, process: WorkerProcess, code: int, expected: int) -> None:
        self.unreachable += code == SERVER_UNREACHABLE
        if code not in (expected, SERVER_UNREACHABLE):
            self.complaints.append(f"{self.command} ended with code {code}, not {expected}: {process.errors[-2_000:]}")
        for line in process.errors.splitlines():
            if any(word in line for word in UNEXPECTED_WORDS):
                self.complaints.append(f"{self.command}: {line[:2_000]}")


def _makes_durable(message: ClientMessage) -> bool:
    """Whether it is a batch's one statement, or a COMMIT."""
    return commits(message) or APPENDS(message)


def _is_before(moment: float) -> bool:
    return time.monotonic() < moment


class Done(msgspec.Struct, frozen=True):
    """One deed of chaos, and when it was begun, in seconds since the begin."""

    at_seconds: float
    name: str


class Chaos:
    """Does harm for a while: each kind of it once in a random order, then any; two kinds go on at the same time.

    In the end all is well again: every process runs, and nothing is cut off.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        apis: list[Program],
        workers: list[Program],
        postgres: RestartablePostgres,
        dsn: str,
        elasticsearch: RestartableElasticsearch | None,
        wire: HttpWire | None,
        postgres_wire: CuttableWire,
    ) -> None:
        self.done: list[Done] = []
        self._random = rng
        self._apis = apis
        self._workers = workers
        self._postgres = postgres
        self._dsn = dsn
        self._elasticsearch = elasticsearch
        self._wire = wire
        self._postgres_wire = postgres_wire
        self._supervising: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._begun = time.monotonic()

    async def __aenter__(self) -> Self:
        for program in self.programs:
            await program.start()
        self._supervising = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._supervising is not None:
            await self._supervising
        for program in self.programs:
            await program.kill()

    @property
    def programs(self) -> list[Program]:
        """APIs and workers."""
        return [*self._apis, *self._workers]

    async def _supervise(self) -> None:
        while not self._over.is_set():
            await asyncio.sleep(SUPERVISION_SECONDS)
            for program in self.programs:
                await program.supervise()

    @property
    def complaints(self) -> list[str]:
        """What programs did that nobody had asked them for."""
        return [each for program in self.programs for each in program.complaints]

    async def rage(self, seconds: float) -> None:
        """Do harm for so long, and for as long as it takes to have done each kind of it."""
        self._begun = time.monotonic()
        until = self._begun + seconds
        processes: list[Deed] = [
            self.kill_api,
            self.kill_both_apis,
            self.stop_api,
            self.freeze_api,
            self.kill_worker,
            self.kill_all_workers,
            self.freeze_worker,
        ]
        servers: list[Deed] = [
            self.kill_postgres,
            self.crash_postgres_backend,
            self.restart_postgres,
            self.lose_answers_to_commits,
        ]
        if self._wire is not None:
            servers += [self.cut_off_elasticsearch, self.lose_bulk_answers]
        due = [*processes, *servers]
        while due or time.monotonic() < until:
            turn = until if self._elasticsearch is None else min(time.monotonic() + TURN_SECONDS, until)
            goes_on = partial(_is_before, turn)
            await asyncio.gather(self._do(processes, due, goes_on), self._do(servers, due, goes_on))
            if self._elasticsearch is not None:
                await self._kill_elasticsearch(self._elasticsearch, processes, servers, due)

    async def _kill_elasticsearch(
        self, server: RestartableElasticsearch, processes: list[Deed], servers: list[Deed], due: list[Deed]
    ) -> None:
        """It takes long to come back. Meanwhile the rest goes on: an API that is killed starts without it."""
        self._note("kill Elasticsearch")
        await asyncio.to_thread(server.kill)
        back = asyncio.create_task(asyncio.to_thread(server.start_again))
        try:
            await asyncio.gather(*(self._do(kinds, due, lambda: not back.done()) for kinds in (processes, servers)))
        finally:
            await back

    async def _do(self, kinds: list[Deed], due: list[Deed], goes_on: Callable[[], bool]) -> None:
        """One after another, first what is due, in a random order."""
        while goes_on() or any(each in due for each in kinds):
            await asyncio.sleep(self._random.uniform(*PAUSES_SECONDS))
            deed = self._random.choice([each for each in kinds if each in due] or kinds)
            if deed in due:
                due.remove(deed)
            await deed()
            await self._some_api_is_ready()

    async def _some_api_is_ready(self) -> None:
        """So that on a slow machine, too, there is somebody at work who can be hurt."""
        waiting = [asyncio.create_task(each.ready()) for each in self._apis]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await end_tasks(waiting)

    def _note(self, name: str) -> None:
        self.done.append(Done(round(time.monotonic() - self._begun, 1), name))

    async def _down(self) -> None:
        await asyncio.sleep(self._random.uniform(*DOWN_SECONDS))

    # --- deeds

    async def kill_api(self) -> None:
        """One of the two; clients go on at the other."""
        self._note("kill an API")
        await self._kill([self._random.choice(self._apis)])

    async def kill_both_apis(self) -> None:
        """Nobody answers for a while."""
        self._note("kill both APIs")
        await self._kill(self._apis)

    async def freeze_api(self) -> None:
        """It may hold the log, and wakes with old aggregates in memory."""
        self._note("freeze an API")
        await self._random.choice(self._apis).freeze(self._random.uniform(*FROZEN_SECONDS))

    async def stop_api(self) -> None:
        """As for a new version."""
        self._note("stop an API")
        program = self._random.choice(self._apis)
        await program.terminate()
        await program.start()
        await program.ready()

    async def kill_worker(self) -> None:
        """The other one takes its partitions over."""
        self._note("kill a worker")
        await self._kill([self._random.choice(self._workers)])

    async def kill_all_workers(self) -> None:
        """Nobody moves the read models for a while."""
        self._note("kill all workers")
        await self._kill(self._workers)

    async def freeze_worker(self) -> None:
        """It loses its leases, and wakes as a zombie."""
        self._note("freeze a worker")
        await self._random.choice(self._workers).freeze(FROZEN_SECONDS[1])

    async def kill_postgres(self) -> None:
        """kill -9 of the server."""
        self._note("kill Postgres")
        await asyncio.to_thread(self._postgres.kill)
        await self._down()
        await asyncio.to_thread(self._postgres.start_again)

    async def crash_postgres_backend(self) -> None:
        """kill -9 of the session that writes: the server ends all others and recovers."""
        self._note("crash a session of Postgres")
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            writers = [process for (process,) in connection.execute(WRITERS).fetchall()]
        if not writers:
            return
        writer = self._random.choice(writers)
        self._postgres.kill_backend(writer)
        await eventually(lambda: not psutil.pid_exists(writer), timeout_seconds=GONE_SECONDS)
        await asyncio.to_thread(self._postgres.start_again)

    async def restart_postgres(self) -> None:
        """With the other ways to stop it."""
        self._note("restart Postgres")
        await asyncio.to_thread(self._postgres.restart, self._random.choice(["fast", "immediate"]))

    async def lose_answers_to_commits(self) -> None:
        """Batches of one of the APIs are durable, and it does not hear of it."""
        self._note("lose answers to commits")
        self._postgres_wire.cut_at(every(3, _makes_durable), "delivered", times=LOST_COMMITS)

    async def cut_off_elasticsearch(self) -> None:
        """All connections break, and none can be made."""
        assert self._wire is not None
        self._note("cut off Elasticsearch")
        await self._wire.cut()
        await asyncio.sleep(self._random.uniform(*FROZEN_SECONDS))
        await self._wire.mend()

    async def lose_bulk_answers(self) -> None:
        """Documents are written, and nobody hears of it."""
        assert self._wire is not None
        self._note("lose answers of Elasticsearch")
        self._wire.fault(bulk_writes, cutting("delivered"), times=LOST_BULKS)

    async def _kill(self, programs: list[Program]) -> None:
        for program in programs:
            await program.kill()
        await self._down()
        for program in programs:
            await program.start()
        for program in programs:
            await program.ready()
