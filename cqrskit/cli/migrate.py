"""``cqrskit migrate``: bring the database's tables up to date."""

import asyncio

import rich_click as click

from cqrskit.cli.running import common_options, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.postgres.connections import address_of
from cqrskit.postgres.migrate import migrate
from cqrskit.servers import database_url
from cqrskit.settings import load_settings
from cqrskit.telemetry import configure_logging

__all__ = ["migrate_command"]


@click.command("migrate")
@app_option
@common_options
def migrate_command(app: str | None) -> None:
    """Create or update the tables of the log in CQRSKIT_DATABASE_URL; safe to run at any time, and by several at once.

    It needs no application; one that is named is checked.

    \b
    Examples:
      cqrskit migrate
      CQRSKIT_DATABASE_URL=postgresql://me@localhost/bank cqrskit migrate
    """
    if app:
        application_of(app)
    run(_migrate)


async def _migrate() -> None:
    settings = load_settings()
    configure_logging(settings.log_level)
    async with database_url(settings) as url:
        names = await asyncio.to_thread(migrate, url, settings.connect_timeout_seconds)
        for name in names:
            print(f"applied {name}")
        print(f"{address_of(url)} is up to date")
