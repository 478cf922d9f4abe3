"""Checkpoints and parked keys in Postgres; the port is `cqrskit.consistency.Checkpoints`."""

from collections.abc import Mapping, Sequence
from typing import Any

from cqrskit.consistency import Checkpoint, ParkedKey
from cqrskit.postgres.connections import AsyncPool, connection_errors
from cqrskit.postgres.sql import statement

__all__ = ["PostgresCheckpoints"]


class PostgresCheckpoints:
    """Where projections keep how far they are."""

    def __init__(self, pool: AsyncPool, url: str) -> None:
        self._pool = pool
        self._url = url

    async def register(self, name: str, generation: int, index_identity: str) -> Checkpoint:
        """The checkpoint of a projection for this index, made at position 0 if it has none."""
        values = {"name": name, "generation": generation, "identity": index_identity}
        ((position, visible_position),) = await self._fetch("register_projection", values)
        if position == 0:
            await self._execute("forget_parked_keys", {"name": name, "generation": generation})
        return Checkpoint(name, generation, index_identity, position, visible_position)

    async def save(self, checkpoint: Checkpoint) -> None:
        """Move forward to these positions; never back, and not if the projection's index is another one now."""
        values = {
            "name": checkpoint.name,
            "generation": checkpoint.generation,
            "identity": checkpoint.index_identity,
            "position": checkpoint.position,
            "visible": checkpoint.visible_position,
        }
        await self._execute("save_checkpoint", values)

    async def all(self) -> Sequence[Checkpoint]:
        """Every projection's checkpoint."""
        return [Checkpoint(*row) for row in await self._fetch("list_checkpoints", {})]

    async def park(self, name: str, generation: int, parked: ParkedKey) -> None:
        """Remember a parked key; a key parked already keeps its first position."""
        values = {
            "name": name,
            "generation": generation,
            "key": parked.key,
            "position": parked.position,
            "error": parked.error,
        }
        await self._execute("park_key", values)

    async def parked_keys(self, name: str, generation: int) -> Sequence[ParkedKey]:
        """The parked keys of a projection."""
        rows = await self._fetch("list_parked_keys", {"name": name, "generation": generation})
        return [ParkedKey(*row) for row in rows]

    async def count_skipped(self, name: str, generation: int, skipped: dict[str, int]) -> None:
        """Add to the number of events that each parked key has missed."""
        values = {
            "name": name,
            "generation": generation,
            "keys": list(skipped),
            "counts": list(skipped.values()),
        }
        await self._execute("count_skipped_events", values)

    async def _execute(self, name: str, values: Mapping[str, object]) -> None:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                await connection.execute(statement(name), values)

    async def _fetch(self, name: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement(name), values)
                return await cursor.fetchall()
