"""Due commands in Postgres: one statement each, so that a pooler may stand between."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from cqrskit.due_commands import ClaimedCommand, DueCommand, DueCommandsStatus
from cqrskit.postgres.connections import AsyncPool, connection_errors
from cqrskit.postgres.sql import statement
from cqrskit.postgres.stored_text import storable
from cqrskit.reactions import PARKED, StoredCommand

__all__ = ["PostgresDueCommands"]


class PostgresDueCommands:
    """The commands that wait in one database. See the port, `cqrskit.due_commands.DueCommands`."""

    def __init__(self, pool: AsyncPool, url: str) -> None:
        self._pool = pool
        self._url = url

    async def claim(
        self, now: datetime, count_max: int, names: Sequence[str], *, seconds: float
    ) -> list[ClaimedCommand]:
        """See the port."""
        values = {"now": now, "count": count_max, "names": list(names), "seconds": seconds}
        found = await self._fetch("claim_due_commands", values)
        return sorted((ClaimedCommand(*row) for row in found), key=lambda each: (each.due_at, each.id))

    async def next_run_at(self, names: Sequence[str]) -> datetime | None:
        """See the port."""
        ((found,),) = await self._fetch("find_next_due_command", {"names": list(names)})
        next_at: datetime | None = found
        return next_at

    async def remove(self, ids: Sequence[int]) -> None:
        """See the port."""
        await self._change("remove_due_commands", {"ids": list(ids)})

    async def put_off(self, claimed: ClaimedCommand, *, attempts: int, run_at: datetime, error: str | None) -> None:
        """See the port."""
        values: dict[str, object] = {"id": claimed.id, "attempts": attempts, "run_at": run_at, "park": False}
        values["error"] = None if error is None else storable(error)
        await self._change("put_off_due_command", values)

    async def park(self, claimed: ClaimedCommand, *, attempts: int, error: str) -> None:
        """See the port."""
        values: dict[str, object] = {"id": claimed.id, "attempts": attempts, "run_at": claimed.due_at, "park": True}
        values["error"] = storable(error)
        await self._change("put_off_due_command", values)

    # --- for reactions

    async def register(self, name: str, types: Sequence[str], *, from_start: bool) -> None:
        """See `cqrskit.reactions.ReactionStore`."""
        await self._change("register_reaction", {"name": name, "types": list(types), "from_start": from_start})

    async def positions(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """See `cqrskit.reactions.ReactionStore`."""
        return dict(await self._fetch("list_reactions", {"names": list(names)}))

    async def advance(
        self,
        name: str,
        types: Sequence[str],
        after: int,
        until: int,
        now: datetime,
        commands: Sequence[StoredCommand],
    ) -> bool:
        """See `cqrskit.reactions.ReactionStore`."""
        values = {
            "name": name,
            "types": list(types),
            "after": after,
            "until": until,
            "now": now,
            "keys": [each.key for each in commands],
            "commands": [each.command for each in commands],
            "contents": [each.content for each in commands],
            "metadata": [each.metadata for each in commands],
            "errors": [None if each.error is None else storable(each.error) for each in commands],
        }
        ((moved,),) = await self._fetch("advance_reaction", values)
        return bool(moved)

    async def parked_events(self, names: Sequence[str]) -> dict[str, int]:
        """See `cqrskit.reactions.ReactionStore`."""
        found = await self._fetch("count_parked_events", {"names": [PARKED + each for each in names]})
        return {command.removeprefix(PARKED): count for command, count in found}

    # --- for operators

    async def list_all(self, *, only_parked: bool, count_max: int) -> list[DueCommand]:
        """Stored commands, those first that are due first."""
        found = await self._fetch("list_due_commands", {"only_parked": only_parked, "count": count_max})
        return [DueCommand(*row) for row in found]

    async def stored_keys(self, keys: Sequence[str]) -> set[str]:
        """Those of these keys under which a command waits, or is parked."""
        return {key for (key,) in await self._fetch("find_due_commands", {"keys": list(keys)})}

    async def status(
        self, names: Sequence[str] | None = None, *, patience_seconds: float = 0.0, count: bool = True
    ) -> DueCommandsStatus:
        """See the port."""
        values = {"names": None if names is None else list(names), "patience": patience_seconds, "count": count}
        ((waiting, parked, oldest, unknown),) = await self._fetch("measure_due_commands", values)
        overdue_seconds = 0.0 if oldest is None else max((datetime.now(UTC) - oldest).total_seconds(), 0.0)
        return DueCommandsStatus(waiting, parked, overdue_seconds, tuple(unknown or ()))

    async def retry(self, key: str) -> bool:
        """Have a parked command tried again, at once; False if none is parked under this key."""
        return await self._change("retry_due_command", {"key": key}) > 0

    async def drop(self, key: str) -> bool:
        """Delete a parked command; False if none is parked under this key."""
        return await self._change("drop_due_command", {"key": key}) > 0

    # --- connections

    async def _fetch(self, name: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        cursor = await self._execute(name, values)
        return await cursor.fetchall()

    async def _change(self, name: str, values: Mapping[str, object]) -> int:
        return (await self._execute(name, values)).rowcount

    async def _execute(self, name: str, values: Mapping[str, object]) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                return await connection.execute(statement(name), values)
