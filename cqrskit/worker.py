"""Workers: they share the partitions of all projections among them, by leases.

Each worker says that it is alive, takes partitions that nobody holds up to its fair share, gives back what it has
beyond that, and runs a projector for each that it holds. A worker that dies renews nothing, and a few seconds later the
others take over. All of it is done by short statements: no session, no open transaction, no lock that a pooler between
could lose.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from uuid import uuid4

import msgspec
import structlog

from cqrskit.checkpoints import Checkpoints, Generation, GenerationState, Lease, WorkerSeen
from cqrskit.errors import CqrskitError, LeaseLost, ProjectionStopped, ServerUnavailable
from cqrskit.fingerprint import Fingerprint, fingerprint_of
from cqrskit.generations import generation_for
from cqrskit.projection import Projection
from cqrskit.projector import Projector
from cqrskit.read_store import ReadStore
from cqrskit.settings import Settings
from cqrskit.tasks import end_tasks

__all__ = ["Worker", "worker_name"]

log = structlog.get_logger(__name__)

BEATS_PER_LEASE = 3
POINT_AGAIN_SECONDS = 30.0
Place = tuple[str, int, int]
"""Projection, generation and number of a partition."""
MakeProjector = Callable[[Projection, Lease], Projector]


def worker_name() -> str:
    """A name that no other worker has, and that tells people where it runs."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def _announced(place: Place) -> str:
    """What a worker says of itself: the generation that it moves."""
    return f"{place[0]}:{place[1]}"


class _Running(msgspec.Struct):
    lease: Lease
    projector: Projector
    task: "asyncio.Task[None]"


class Worker:
    """Moves partitions of these projections. `start` it, and `stop` it in the end; in between it goes on by itself."""

    def __init__(
        self,
        projections: Sequence[type[Projection]],
        *,
        read_store: ReadStore,
        checkpoints: Checkpoints,
        settings: Settings,
        make_projector: MakeProjector,
        on_retry: Callable[[], None],
    ) -> None:
        """`make_projector` makes the projector of a partition for which a lease is held.

        `on_retry` is called when a round could not be made because a server does not answer.
        """
        self._on_retry = on_retry
        self.name = worker_name()
        self.failures: dict[str, str] = {}
        """Why partitions of a projection, by its name, cannot go on here."""
        self._projections = {projection.name: projection for projection in projections}
        self._codes: dict[str, Fingerprint] = {name: fingerprint_of(each) for name, each in self._projections.items()}
        self._read_store = read_store
        self._checkpoints = checkpoints
        self._settings = settings
        self._make_projector = make_projector
        self._running: dict[Place, _Running] = {}
        self._given_up: dict[Place, int] = {}
        self._resumptions: dict[str, int] = {}
        self._prepared: set[tuple[str, int]] = set()
        self._moved: dict[str, int] = {}
        self._pointed: dict[str, tuple[int, float]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make what is missing (the first generation of a projection, its index), and begin to work.

        Raises RebuildRequired if documents were made for other fields. A server that is away is waited for, and what
        is found out then is among the `failures`.
        """
        try:
            for projection in self._projections.values():
                await self._prepare(projection, await self._checkpoints.generations())
            await self._beat()
        except ServerUnavailable as error:
            self._waits(error)
        self._task = asyncio.create_task(self._run(), name="cqrskit-worker")

    async def stop(self) -> None:
        """End the projectors and give their partitions back."""
        if self._task is not None:
            await end_tasks([self._task])
        await self._end(list(self._running))
        if self._task is not None:
            try:
                await self._checkpoints.leave(self.name)
            except CqrskitError as error:
                log.warning("worker.not_signed_off", worker=self.name, reason=str(error))

    def projectors(self, projection: str) -> list[Projector]:
        """The projectors at work here for a projection."""
        return [running.projector for place, running in self._running.items() if place[0] == projection]

    # --- what there is to do

    async def _prepare(self, projection: type[Projection], generations: Sequence[Generation]) -> Generation:
        """The generation to work on, with its index; the very first one is made, and lives from the beginning."""
        code = self._codes[projection.name]
        generation = generation_for(projection, code, generations)
        if generation is None:
            await self._checkpoints.create_generation(
                projection.name, GenerationState.LIVE, code, projection.partitions
            )
            return await self._prepare(projection, await self._checkpoints.generations())
        place = (projection.name, generation.number)
        if not generation.fits(code):
            await self._accept(projection, generation)
        if place in self._prepared:
            await self._point_at(projection, generation)
            return generation
        index = projection.index(generation.number)
        identity = await self._read_store.prepare(index)
        await self._checkpoints.set_index(projection.name, generation.number, identity)
        await self._checkpoints.set_partitions(projection.name, generation.number, projection.partitions)
        self._prepared.add(place)
        self._moved[projection.name] = generation.number
        return await self._prepare(projection, await self._checkpoints.generations())

    async def _accept(self, projection: type[Projection], generation: Generation) -> None:
        """Other code has folded this generation: note that ours goes on with it.

        One that came after the one that we have moved is left to the code that built it: ours is the older one.
        """
        if generation.number > self._moved.get(projection.name, generation.number):
            raise ProjectionStopped(
                f"other code has built generation {generation.number} of projection {projection.name!r}: start this "
                "program again with that code"
            )
        if not generation.mixed:
            log.warning("projection.rebuild_due", projection=projection.name, generation=generation.number)
            await self._checkpoints.set_mixed(projection.name, generation.number)

    async def _point_at(self, projection: type[Projection], generation: Generation) -> None:
        """Let the alias (or view) name the live generation, also if whoever swapped it in has died before."""
        if generation.state is not GenerationState.LIVE:
            return
        number, at = self._pointed.get(projection.name, (0, 0.0))
        if number != generation.number or time.monotonic() - at > POINT_AGAIN_SECONDS:
            await self._read_store.make_live(projection.index(generation.number))
            self._pointed[projection.name] = (generation.number, time.monotonic())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / BEATS_PER_LEASE)
            try:
                await self._beat()
            except ServerUnavailable as error:
                self._waits(error)
            except CqrskitError as error:
                log.error("worker.failed", worker=self.name, reason=str(error))

    def _waits(self, error: ServerUnavailable) -> None:
        log.warning("worker.waits_for_server", worker=self.name, reason=str(error))
        self._on_retry()

    async def _beat(self) -> None:
        """One look at what there is: renew, give back, take."""
        await self._settle()
        await self._renew()  # before all that may take long
        seconds = self._settings.lease_seconds
        generations = await self._checkpoints.generations()
        self._note_resumptions(generations)
        wanted: dict[Place, float | None] = {}
        for projection in self._projections.values():
            wanted.update(await self._wanted(projection, generations))
        moved = sorted({_announced(place) for place in wanted if place not in self._given_up})
        workers = await self._checkpoints.beat(self.name, moved, seconds=seconds)
        await self._end([place for place in self._running if place not in wanted])
        for places, share in self._shares(list(wanted), workers):
            await self._end([place for place in places if place in self._running][share:])
            for place in places:
                free = (wanted[place] or 0) <= 0 and place not in self._running and place not in self._given_up
                if free and sum(each in self._running for each in places) < share:
                    await self._take(place)

    def _note_resumptions(self, generations: Sequence[Generation]) -> None:
        """Partitions that were given up before somebody resumed the projection are tried again, from their index on."""
        self._resumptions.update((each.projection, each.resumptions) for each in generations)
        for place, before in list(self._given_up.items()):
            if before < self._resumptions[place[0]]:
                del self._given_up[place]
                self._prepared.discard(place[:2])

    async def _wanted(
        self, projection: type[Projection], generations: Sequence[Generation]
    ) -> dict[Place, float | None]:
        """The partitions that somebody should move, each with what is left of its lease."""
        try:
            generation = await self._prepare(projection, generations)
        except ServerUnavailable:
            raise
        except CqrskitError as error:
            self.failures[projection.name] = str(error)
            return {}
        if all(place[0] != projection.name for place in self._given_up):
            self.failures.pop(projection.name, None)
        if generation.paused:
            return {}
        return {
            (projection.name, generation.number, each.number): each.leased_seconds for each in generation.partitions
        }

    def _shares(self, wanted: Sequence[Place], workers: Sequence[WorkerSeen]) -> list[tuple[list[Place], int]]:
        """Places that the same workers want, ours among them, each with how many of them are ours.

        All have as many, and the first ones by name one more if some are left. Workers of other code, of another read
        store, or of other projections want other generations, and leave ours to us.
        """
        groups: dict[tuple[str, ...], list[Place]] = {}
        for place in sorted(wanted):
            others = {each.worker for each in workers if _announced(place) in each.projections}
            groups.setdefault(tuple(sorted(others | {self.name})), []).append(place)
        found = []
        for alike, places in groups.items():
            each_has, left_over = divmod(len(places), len(alike))
            found.append((places, each_has + (alike.index(self.name) < left_over)))
        return found

    # --- leases

    async def _renew(self) -> None:
        running = list(self._running.values())
        if not running:
            return
        renewed = await self._checkpoints.renew([each.lease for each in running], seconds=self._settings.lease_seconds)
        lost = [place for (place, _), mine in zip(list(self._running.items()), renewed, strict=True) if not mine]
        await self._end(lost)

    async def _take(self, place: Place) -> None:
        name, generation, number = place
        lease = await self._checkpoints.claim(self.name, name, generation, number, seconds=self._settings.lease_seconds)
        if lease is None:
            return
        projector = self._make_projector(self._projections[name](), lease)
        await projector.open()
        task = asyncio.create_task(projector.run(), name=f"cqrskit-{name}-{number}")
        self._running[place] = _Running(lease, projector, task)
        self.failures.pop(name, None)
        log.info("worker.took_partition", projection=name, generation=generation, partition=number)

    async def _end(self, places: Sequence[Place]) -> None:
        """Stop these projectors and give their partitions back."""
        running = [self._running.pop(place) for place in places]
        await end_tasks([each.task for each in running])
        for each in running:
            if not each.task.cancelled():
                each.task.exception()  # known already, or of no interest any more
        if not running:
            return
        try:
            await self._checkpoints.release([each.lease for each in running])
        except ServerUnavailable as error:
            log.warning("worker.waits_for_server", worker=self.name, reason=str(error))

    async def _settle(self) -> None:
        """Look after projectors that have ended: who lost the lease may get it again, who failed stays where it is."""
        for place, running in list(self._running.items()):
            if not running.task.done():
                continue
            error = running.task.exception()
            if error is not None and not isinstance(error, LeaseLost):
                reason = str(error) if isinstance(error, CqrskitError) else f"{type(error).__name__}: {error}"
                self.failures[place[0]] = reason
                self._given_up[place] = self._resumptions[place[0]]
                log.error("projector.stopped", projection=place[0], reason=reason, exc_info=error)
                await self._checkpoints.fail(running.lease, reason)
            await self._end([place])
