"""API keys in Postgres; the port is `cqrskit.access`."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from cqrskit.access import ApiKey, MadeKey, Scope, make_api_key
from cqrskit.postgres.connections import AsyncPool, connection_errors
from cqrskit.postgres.sql import statement

__all__ = ["PostgresApiKeys"]


class PostgresApiKeys:
    """The keys of one database; times are those of its clock."""

    def __init__(self, pool: AsyncPool, url: str) -> None:
        self._pool = pool
        self._url = url

    async def make(self, name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None) -> MadeKey:
        """Make a key and keep its hash. Raises ConfigurationError for an unusable name, or no scope."""
        made = make_api_key(name, scopes, expires_at=expires_at)
        values = {
            "key_id": made.key.id,
            "name": name,
            "scopes": sorted(made.key.scopes),
            "hash": made.key.hash,
            "expires_at": expires_at,
        }
        ((created_at,),) = await self._fetch("add_api_key", values)
        return MadeKey(msgspec.structs.replace(made.key, created_at=created_at), made.text)

    async def find(self, key_ids: Sequence[str]) -> Sequence[ApiKey]:
        """Those of these ids that there are, revoked and expired ones too."""
        return [_key(row) for row in await self._fetch("find_api_keys", {"key_ids": list(key_ids)})]

    async def all(self) -> Sequence[ApiKey]:
        """Every key that was ever made, the oldest first."""
        return [_key(row) for row in await self._fetch("list_api_keys", {})]

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Let a key open nothing any more, for good; None if there is none of this id."""
        rows = await self._fetch("revoke_api_key", {"key_id": key_id})
        return _key(rows[0]) if rows else None

    async def has_usable(self) -> bool:
        """Whether anybody can enter."""
        ((found,),) = await self._fetch("has_usable_api_key", {})
        return bool(found)

    async def _fetch(self, name: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with connection_errors(self._url):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement(name), values)
                return await cursor.fetchall()


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, scopes, digest, created_at, expires_at, revoked_at = row
    return ApiKey(
        id=key_id,
        name=name,
        scopes=frozenset(map(Scope, scopes)),
        hash=bytes(digest),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
