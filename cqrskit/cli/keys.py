"""``cqrskit keys``: API keys, for `CqrskitPlugin(..., api_keys=True)`. Your own CLI may have the same group:

::

    from cqrskit.cli.keys import keys_group_of

    bank_group.add_command(keys_group_of("bank"))    # bank keys create | list | revoke
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import rich_click as click

from cqrskit.access import ApiKey, ApiKeys, Scope, key_id_in
from cqrskit.cli.operating import show_table
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.errors import ConfigurationError
from cqrskit.postgres.api_keys import PostgresApiKeys
from cqrskit.postgres.connections import open_pool
from cqrskit.postgres.migrate import migrate, require_migrated
from cqrskit.servers import database_url
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["keys_group_of"]

GROUP_HELP = """Make and revoke the API keys that open the service.

    A key is for what its scopes say and nothing else: `read` asks, `write` commands, `admin` operates. Its name is the
    actor in the metadata of every event that it causes. The database keeps only its hash.

    \b
    Examples:
      {program} keys create shop --scopes read,write
      {program} keys list
      {program} keys revoke 0f3a9c51d2e84b76
    """
CREATE_HELP = """Make a key for NAME and write it on standard output; nobody can show it again.

    NAME is who acts with the key. Several keys may have one name, so that a new one can take over before the old one is
    revoked. A key works at once.

    \b
    Examples:
      {program} keys create shop --scopes read,write
      {program} keys create auditor --scopes read,admin --expires-in-days 30 --json
      KEY=$({program} keys create shop --scopes write)
    """
LIST_HELP = """List all keys that were ever made, the oldest first, without the keys themselves.

    \b
    Examples:
      {program} keys list
      {program} keys list --json
    """
REVOKE_HELP = """Let the key with this ID open nothing any more, for good; running services notice within a second.

    A service that cannot ask the database lets it in until a minute after it last could; a restarted one does not.

    ID is what `keys list` shows; a whole key does too, such as one that was found where it should not be.

    \b
    Examples:
      {program} keys revoke 0f3a9c51d2e84b76
    """


class KeyRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key for machines. `key` is there only when it was just made."""

    id: str
    name: str
    scopes: list[Scope]
    state: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    key: str | None = None


def keys_group_of(program: str) -> click.Group:
    """The group ``keys`` for the program of this name, which its examples show."""

    @click.group("keys", help=GROUP_HELP.format(program=program))
    def keys_group() -> None: ...

    keys_group.add_command(_create_command(program))
    keys_group.add_command(_list_command(program))
    keys_group.add_command(_revoke_command(program))
    return keys_group


def _create_command(program: str) -> click.Command:
    @click.command("create", help=CREATE_HELP.format(program=program))
    @click.argument("name")
    @click.option(
        "--scopes", required=True, metavar="SCOPES", help="Some of read, write and admin, with commas between."
    )
    @click.option(
        "--expires-in-days",
        type=click.FloatRange(min=0, min_open=True, max=36_500),
        metavar="DAYS",
        help="When it stops working by itself (default: never).",
    )
    @json_option("Write the key as JSON; errors are JSON too.")
    @common_options
    def create_command(name: str, scopes: str, expires_in_days: float | None, as_json: bool) -> None:
        wanted = _scopes_in(scopes)
        expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)

        async def create() -> None:
            async with _opened() as keys:
                made = await keys.make(name, wanted, expires_at=expires_at)
            if as_json:
                print(msgspec.json.encode(_row(made.key, made.text)).decode())
                return
            what = f"key {made.key.id} of {name} for {', '.join(sorted(wanted))}"
            print(f"{what}; it is shown only now. Send it as `Authorization: Bearer KEY`:", file=sys.stderr)
            print(made.text)

        run(create)

    return create_command


def _list_command(program: str) -> click.Command:
    @click.command("list", help=LIST_HELP.format(program=program))
    @json_option("Write one JSON array; errors are JSON too.")
    @common_options
    def list_command(as_json: bool) -> None:
        async def show() -> None:
            async with _opened() as keys:
                rows = [_row(key) for key in await keys.all()]
            if as_json:
                print(msgspec.json.encode(rows).decode())
            elif rows:
                _show(rows)
            else:
                print(f"there is no key yet: `{program} keys create NAME --scopes read,write` makes one")

        run(show)

    return list_command


def _revoke_command(program: str) -> click.Command:
    @click.command("revoke", help=REVOKE_HELP.format(program=program))
    @click.argument("key_id", metavar="ID")
    @json_option("Write the revoked key as JSON; errors are JSON too.")
    @common_options
    def revoke_command(key_id: str, as_json: bool) -> None:
        async def revoke() -> None:
            async with _opened() as keys:
                revoked = await keys.revoke(key_id_in(key_id) or key_id)
            if revoked is None:  # what was given is not shown, since it may be a key with a slip in it
                raise ConfigurationError(f"there is no key with this id: `{program} keys list` shows those there are")
            if as_json:
                print(msgspec.json.encode(_row(revoked)).decode())
            else:
                print(f"key {revoked.id} of {revoked.name} opens nothing any more")

        run(revoke)

    return revoke_command


def _scopes_in(text: str) -> list[Scope]:
    wanted = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in wanted if each not in list(Scope)]
    if unknown:
        raise ConfigurationError(f"there is no scope {unknown[0]!r}; the scopes are {', '.join(Scope)}")
    return [Scope(each) for each in wanted]


@asynccontextmanager
async def _opened() -> AsyncIterator[ApiKeys]:
    """The keys of the configured database, or of the embedded one, which is migrated if it is new."""
    settings = load_settings()
    configure_logging(settings.log_level if settings.log_level == "debug" else "warning")
    timeout_seconds = settings.connect_timeout_seconds
    async with database_url(settings) as url:
        prepare = migrate if settings.database_url is None else require_migrated
        await asyncio.to_thread(prepare, url, timeout_seconds)
        pool = await open_pool(url, connections_max=1, timeout_seconds=timeout_seconds)
        try:
            yield PostgresApiKeys(pool, url)
        finally:
            await pool.close()


def _row(key: ApiKey, text: str | None = None) -> KeyRow:
    state = "usable" if key.is_usable(datetime.now(UTC)) else "expired" if key.revoked_at is None else "revoked"
    scopes = [scope for scope in Scope if scope in key.scopes]
    return KeyRow(key.id, key.name, scopes, state, key.created_at, key.expires_at, key.revoked_at, text)


def _show(rows: Sequence[KeyRow]) -> None:
    show_table(
        ("id", "name", "scopes", "state", "created", "expires"),
        (
            (each.id, each.name, ", ".join(each.scopes), each.state, _day(each.created_at), _day(each.expires_at))
            for each in rows
        ),
    )


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
