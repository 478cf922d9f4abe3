"""Generations, checkpoints, leases and parked keys in Postgres; the port is `cqrskit.checkpoints`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cqrskit.checkpoints import (
    Generation,
    GenerationState,
    Lease,
    ParkedKey,
    PartitionProgress,
    SkippedEvent,
    WorkerSeen,
)
from cqrskit.errors import ProjectionStopped
from cqrskit.fingerprint import Fingerprint
from cqrskit.partition import Partition
from cqrskit.postgres.connections import AsyncPool, connection_errors
from cqrskit.postgres.sql import statement
from cqrskit.postgres.stored_text import storable

__all__ = ["PostgresCheckpoints"]


class _Held(NamedTuple):
    """A partition's checkpoint, held for a swap."""

    generation: int
    state: str
    position: int
    visible_position: int


class PostgresCheckpoints:
    """Where projections keep how far they are. Nothing here holds a session or a transaction open."""

    def __init__(self, pool: AsyncPool, url: str, store: Callable[[], str]) -> None:
        """`store` tells which read store this program uses (`ReadStore.identity`): its generations are all we see.

        As long as nobody knows, it raises ServerUnavailable, and so does whatever is about generations here.
        """
        self._pool = pool
        self._store = store
        self._url = url

    # --- generations

    async def generations(self) -> Sequence[Generation]:
        """All generations of all projections."""
        return [_generation(row) for row in await self._fetch("list_generations", {"store": self._store()})]

    async def create_generation(
        self, projection: str, state: GenerationState, code: Fingerprint, partitions: int
    ) -> int:
        """Begin another generation, unless there is one of this kind; its number."""
        values = {
            "projection": projection,
            "store": self._store(),
            "state": state.value,
            "shape": code.shape,
            "folds": code.folds,
        }
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), values)
            found = await _rows(connection, "find_coming_or_live_generation", values)
            if found:
                return int(found[0][0])
            ((number,),) = await _rows(connection, "create_generation", values)
            made = {"projection": projection, "generation": number, "count": partitions, "position": 0, "visible": 0}
            await connection.execute(statement("create_partitions"), made)
        return int(number)

    async def set_index(self, projection: str, generation: int, index_identity: str) -> None:
        """Say which index it is; positions that speak of another one begin again at 0."""
        values = {"projection": projection, "generation": generation, "identity": index_identity}
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), values)
            if await _rows(connection, "set_index_of_generation", values):
                await connection.execute(statement("restart_partitions"), values)
                await connection.execute(statement("forget_parked_keys"), values)

    async def set_partitions(self, projection: str, generation: int, count: int) -> None:
        """Divide the generation anew, if its number of partitions is another."""
        values = {"projection": projection, "generation": generation}
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), values)
            ((found,),) = await _rows(connection, "count_partitions", values)
            if found == count:
                return
            stood = await _rows(connection, "delete_partitions", values)
            position = min((row[0] for row in stood), default=0)
            visible = min((row[1] for row in stood), default=0)
            made = {**values, "count": count, "position": position, "visible": visible}
            await connection.execute(statement("create_partitions"), made)

    async def set_mixed(self, projection: str, generation: int) -> None:
        """Note that other code than the generation's folds into it."""
        await self._execute("set_generation_mixed", {"projection": projection, "generation": generation})

    async def adopt(self, projection: str, generation: int, code: Fingerprint) -> bool:
        """Note that all its documents are what this code would have folded; False if they have other fields."""
        values = {"projection": projection, "generation": generation, "shape": code.shape, "folds": code.folds}
        return bool(await self._fetch("adopt_generation", values))

    async def set_ready(self, projection: str, generation: int, events_per_second: float) -> None:
        """A generation that was being built is level with the log."""
        values = {"projection": projection, "generation": generation, "rate": events_per_second}
        await self._execute("set_generation_ready", values)

    async def swap(self, projection: str, generation: int, *, rolled_back: bool = False) -> bool:
        """Make the generation live and retire the live one; False if it is behind the live one."""
        values = {
            "projection": projection,
            "store": self._store(),
            "generation": generation,
            "rolled_back": rolled_back,
        }
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), values)
            held = [_Held(*row) for row in await _rows(connection, "lock_checkpoints", values)]
            coming = [each for each in held if each.generation == generation]
            state = coming[0].state if coming else None
            if state is None or state == GenerationState.BUILDING:
                what = "is gone" if state is None else "is still being built"
                raise ProjectionStopped(
                    f"generation {generation} of projection {projection!r} {what}, so it was not swapped in: see "
                    f"`cqrskit generations {projection}`"
                )
            if state == GenerationState.LIVE:
                return True
            if _is_behind(coming, [each for each in held if each.state == GenerationState.LIVE]):
                return False
            for (retired,) in await _rows(connection, "retire_live_generation", values):
                await connection.execute(statement("end_leases"), {"projection": projection, "generation": retired})
            await connection.execute(statement("set_generation_live"), values)
        return True

    async def reset(self, projection: str, code: Fingerprint, partitions: int) -> int:
        """Make an empty generation live and retire the live one; the new one's number."""
        values = {
            "projection": projection,
            "store": self._store(),
            "state": GenerationState.LIVE.value,
            "rolled_back": False,
        }
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), values)
            for (retired,) in await _rows(connection, "retire_live_generation", values):
                await connection.execute(statement("end_leases"), {"projection": projection, "generation": retired})
            coded = {**values, "shape": code.shape, "folds": code.folds}
            ((number,),) = await _rows(connection, "create_generation", coded)
            made = {"projection": projection, "generation": number, "count": partitions, "position": 0, "visible": 0}
            await connection.execute(statement("create_partitions"), made)
        return int(number)

    async def delete_generation(self, projection: str, generation: int) -> bool:
        """Forget a generation that is neither live nor held."""
        return bool(await self._fetch("delete_generation", {"projection": projection, "generation": generation}))

    # --- leases

    async def claim(
        self, worker: str, projection: str, generation: int, partition: int, *, seconds: float
    ) -> Lease | None:
        """Take a partition that nobody holds, or whose lease has run out."""
        values = {
            "worker": worker,
            "projection": projection,
            "generation": generation,
            "partition": partition,
            "seconds": seconds,
        }
        rows = await self._fetch("claim_partition", values)
        if not rows:
            return None
        epoch, position, visible_position, identity, count = rows[0]
        return Lease(
            projection,
            generation,
            identity,
            Partition(partition, count),
            worker,
            epoch,
            position,
            visible_position,
        )

    async def renew(self, leases: Sequence[Lease], *, seconds: float) -> list[bool]:
        """Which of these leases are still theirs; those are renewed."""
        renewed = {place for (place,) in await self._fetch("renew_leases", {**_columns(leases), "seconds": seconds})}
        return [place in renewed for place in range(1, len(leases) + 1)]

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases back."""
        await self._execute("release_leases", _columns(leases))

    async def beat(self, worker: str, projections: Sequence[str], *, seconds: float) -> Sequence[WorkerSeen]:
        """Say that a worker is alive, and hear which ones were."""
        await self._execute("beat_worker", {"worker": worker, "projections": list(projections)})
        rows = await self._fetch("list_workers", {"seconds": seconds})
        return [WorkerSeen(name, tuple(found)) for name, found in rows]

    async def leave(self, worker: str) -> None:
        """Say that a worker has ended."""
        await self._execute("forget_workers", {"worker": worker})

    async def save(self, lease: Lease, position: int, visible_position: int) -> bool:
        """Move forward to these positions; False if the lease is an old one."""
        return bool(
            await self._fetch("save_checkpoint", {**_held(lease), "position": position, "visible": visible_position})
        )

    async def fail(self, lease: Lease, failure: str | None) -> None:
        """Note why a partition cannot go on, or that it can."""
        await self._execute(
            "fail_partition", {**_held(lease), "failure": None if failure is None else storable(failure)}
        )

    # --- parked keys and skipped events

    async def park(self, lease: Lease, parked: Sequence[ParkedKey]) -> None:
        """Remember parked keys."""
        values = {
            **_held(lease),
            "keys": [each.key for each in parked],
            "positions": [each.position for each in parked],
            "errors": [storable(each.error) for each in parked],
            "owners": [each.owner for each in parked],
            "waiting": [each.events_waiting for each in parked],
        }
        await self._execute("park_keys", values)

    async def parked(self, projection: str, generation: int) -> Sequence[ParkedKey]:
        """The parked keys of a generation."""
        rows = await self._fetch("list_parked_keys", {"projection": projection, "generation": generation})
        return [ParkedKey(*row) for row in rows]

    async def count_waiting(self, lease: Lease, waiting: Mapping[str, int]) -> None:
        """Add to the number of events that wait behind each parked key."""
        values = {**_held(lease), "keys": list(waiting), "counts": list(waiting.values())}
        await self._execute("count_waiting_events", values)

    async def request_retry(self, projection: str, generation: int, keys: Sequence[str] | None) -> int:
        """Ask whoever holds the partitions to try these parked keys again; how many that are."""
        values = {
            "projection": projection,
            "generation": generation,
            "keys": None if keys is None else list(keys),
        }
        return await self._execute("request_retry", values)

    async def unpark(self, lease: Lease, keys: Sequence[str]) -> None:
        """These keys are level again."""
        await self._execute("unpark_keys", {**_held(lease), "keys": list(keys)})

    async def repark(self, lease: Lease, parked: ParkedKey) -> None:
        """A retry has failed, at this position."""
        values = {
            **_held(lease),
            "key": parked.key,
            "position": parked.position,
            "error": storable(parked.error),
            "owner": parked.owner,
            "waiting": parked.events_waiting,
        }
        await self._execute("repark_key", values)

    async def skip(self, projection: str, generation: int, key: str, position: int) -> bool:
        """Give up an event for one document, for good; False if it is not parked there any more."""
        values = {"projection": projection, "generation": generation, "key": key, "position": position}
        return bool(await self._fetch("skip_event", values))

    async def skipped(self, projection: str) -> Sequence[SkippedEvent]:
        """The events that were given up."""
        return [SkippedEvent(*row) for row in await self._fetch("list_skipped_events", {"projection": projection})]

    async def pause(self, projection: str, *, paused: bool) -> None:
        """Keep all workers from moving a projection, or let them again, those too that gave it up."""
        async with self._transaction() as connection:
            await connection.execute(statement("register_projection"), {"projection": projection})
            values = {"projection": projection, "paused": paused}
            await connection.execute(statement("pause_projection"), values)

    # --- the connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection, connection.transaction():
                yield connection

    async def _execute(self, name: str, values: Mapping[str, object]) -> int:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                return (await connection.execute(statement(name), values)).rowcount

    async def _fetch(self, name: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                return await _rows(connection, name, values)


def _is_behind(coming: Sequence[_Held], live: Sequence[_Held]) -> bool:
    """Whether a reader would be taken back: by a search, or by an id, which asks one partition only.

    Generations that are divided alike are compared partition by partition; of others, the last with the first.
    """
    if not live:
        return False
    if min(each.visible_position for each in coming) < min(each.visible_position for each in live):
        return True
    if len(coming) == len(live):
        return any(ours.position < theirs.position for ours, theirs in zip(coming, live, strict=True))
    return min(each.position for each in coming) < max(each.position for each in live)


async def _rows(
    connection: AsyncConnection[TupleRow], name: str, values: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(statement(name), values)
    return await cursor.fetchall()


def _held(lease: Lease) -> dict[str, object]:
    return {
        "projection": lease.projection,
        "generation": lease.generation,
        "partition": lease.partition.number,
        "epoch": lease.epoch,
    }


def _columns(leases: Sequence[Lease]) -> dict[str, object]:
    return {
        "projections": [lease.projection for lease in leases],
        "generations": [lease.generation for lease in leases],
        "partitions": [lease.partition.number for lease in leases],
        "epochs": [lease.epoch for lease in leases],
    }


def _generation(row: tuple[Any, ...]) -> Generation:
    projection, number, state, identity, shape, folds, mixed, rolled_back, paused, resumptions, *more = row
    created_at, live_at, retired_at, rate, parked, retries, *columns = more
    return Generation(
        projection=projection,
        number=number,
        state=GenerationState(state),
        index_identity=identity,
        code=Fingerprint(shape, folds),
        mixed=mixed,
        rolled_back=rolled_back,
        paused=paused,
        resumptions=resumptions,
        created_at=created_at,
        live_at=live_at,
        retired_at=retired_at,
        events_per_second=rate,
        parked_keys=parked,
        retries=retries,
        partitions=tuple(PartitionProgress(*each) for each in zip(*(column or [] for column in columns), strict=True)),
    )
