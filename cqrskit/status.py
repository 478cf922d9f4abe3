"""How projections are: positions, lag, parked keys, and what somebody should look at."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from cqrskit.checkpoints import Generation
from cqrskit.errors import IndexMissing, RebuildRequired
from cqrskit.event_store import EventStore
from cqrskit.fingerprint import fingerprint_of
from cqrskit.generations import coming_generation, generation_for, live_generation
from cqrskit.projection import Projection
from cqrskit.read_store import ReadStore
from cqrskit.settings import Settings

__all__ = ["PartitionStatus", "ProjectionStatus", "statuses"]


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition: how far it is and who moves it (None: nobody)."""

    number: int
    position: int
    visible_position: int
    worker: str | None
    failure: str | None


class ProjectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one projection is. `lag_seconds` is the age of the oldest event that it has not folded.

    `documents` is None where they were not counted, or cannot be. `generation` 0: nothing was ever folded; `state` is
    then None, else ``live``, or ``retired`` where newer code has replaced it. `rebuild_due` says why its documents
    should be built anew, `coming` is the number of a generation that is being built. `problems` are what somebody
    should look at, each a sentence: lag or parked keys beyond the limits in the settings, a partition that nobody
    moves, a failure.
    """

    name: str
    generation: int
    state: str | None
    position: int
    visible_position: int
    head: int
    lag_events: int
    lag_seconds: float
    documents: int | None
    parked_keys: int
    paused: bool = False
    rebuild_due: str | None = None
    coming: int | None = None
    failure: str | None = None
    partitions: tuple[PartitionStatus, ...] = ()
    problems: tuple[str, ...] = ()


async def statuses(
    projections: Sequence[type[Projection]],
    generations: Sequence[Generation],
    *,
    event_store: EventStore,
    read_store: ReadStore,
    settings: Settings,
    failures: Mapping[str, str],
    count_documents: bool,
) -> list[ProjectionStatus]:
    """The status of each projection; `failures` are what this process knows of why some cannot go on."""
    head = await event_store.head()
    found = []
    for projection in projections:
        own = [each for each in generations if each.projection == projection.name]
        generation, rebuild_due = _generation(projection, own)
        position = 0 if generation is None else generation.position
        documents = 0 if count_documents else None
        failure = failures.get(projection.name)
        if count_documents and generation is not None and rebuild_due != OTHER_FIELDS:
            try:
                documents = await read_store.count(projection.index(generation.number))
            except IndexMissing as error:
                documents, failure = None, failure or str(error)
        lag_seconds = await _lag_seconds(event_store, position, head)
        found.append(
            _status(
                projection,
                generation,
                head=head,
                lag_seconds=lag_seconds,
                documents=documents,
                rebuild_due=rebuild_due,
                coming=coming_generation(own),
                failure=failure,
                settings=settings,
            )
        )
    return found


OTHER_FIELDS = "its documents have other fields than the code: run `cqrskit rebuild`"
OTHER_FOLDS = (
    "its documents were folded by other code: run `cqrskit rebuild`, or `cqrskit verify` if nothing is changed"
)


def _generation(projection: type[Projection], own: Sequence[Generation]) -> tuple[Generation | None, str | None]:
    """The generation that this code works with, and why it should be built anew."""
    code = fingerprint_of(projection)
    try:
        generation = generation_for(projection, code, own)
    except RebuildRequired:
        return live_generation(own), OTHER_FIELDS
    return generation, None if generation is None or generation.fits(code) else OTHER_FOLDS


def _status(
    projection: type[Projection],
    generation: Generation | None,
    *,
    head: int,
    lag_seconds: float,
    documents: int | None,
    rebuild_due: str | None,
    coming: Generation | None,
    failure: str | None,
    settings: Settings,
) -> ProjectionStatus:
    partitions = () if generation is None else generation.partitions
    recorded = next((each.failure for each in partitions if each.failure is not None), None)
    position = 0 if generation is None else generation.position
    status = ProjectionStatus(
        name=projection.name,
        generation=0 if generation is None else generation.number,
        state=None if generation is None else generation.state.value,
        position=position,
        visible_position=0 if generation is None else generation.visible_position,
        head=head,
        lag_events=max(head - position, 0),
        lag_seconds=lag_seconds,
        documents=documents,
        parked_keys=0 if generation is None else generation.parked_keys,
        paused=generation is not None and generation.paused,
        rebuild_due=rebuild_due,
        coming=None if coming is None else coming.number,
        failure=failure or recorded,
        partitions=tuple(
            PartitionStatus(
                each.number,
                each.position,
                each.visible_position,
                each.worker if (each.leased_seconds or 0) > 0 else None,
                each.failure,
            )
            for each in partitions
        ),
    )
    return msgspec.structs.replace(status, problems=tuple(_problems(status, settings)))


def _problems(status: ProjectionStatus, settings: Settings) -> list[str]:
    """What passes the limits; a projection that nobody has measured is a problem, not a healthy one."""
    problems = []
    if status.failure is not None:
        problems.append(status.failure)
    if status.generation == 0:
        problems.append("it was never started: run `cqrskit project`")
    unattended = [str(each.number) for each in status.partitions if each.worker is None]
    if status.paused:
        problems.append("it is paused: `cqrskit resume` lets it go on")
    elif unattended:
        problems.append(f"nobody moves partition {', '.join(unattended)}: run `cqrskit project`")
    if status.lag_events > settings.health_lag_max_events:
        problems.append(f"it lags by {status.lag_events:,} events, more than {settings.health_lag_max_events:,}")
    if status.lag_seconds > settings.health_lag_max_seconds:
        problems.append(f"it lags by {status.lag_seconds:,.0f} s, more than {settings.health_lag_max_seconds:,g} s")
    if status.parked_keys > settings.health_parked_keys_max:
        keys = "key" if status.parked_keys == 1 else "keys"
        problems.append(f"it has {status.parked_keys:,} parked {keys}: see `cqrskit parked list {status.name}`")
    return problems


async def _lag_seconds(event_store: EventStore, position: int, head: int) -> float:
    if position >= head:
        return 0.0
    block = await event_store.read(position, 1)
    if not block.events:
        return 0.0
    return max((datetime.now(UTC) - block.events[0].recorded_at).total_seconds(), 0.0)
