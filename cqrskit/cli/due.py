"""``cqrskit due``: commands that wait for their time, and those that were parked."""

import msgspec
import rich_click as click

from cqrskit.cli.operating import confirm, opened, show_table, yes_option
from cqrskit.cli.running import common_options, json_option, run
from cqrskit.cli.wiring import app_option, application_of
from cqrskit.errors import ConfigurationError

__all__ = ["due_group"]

HEADINGS = ("key", "command", "due at", "attempts", "parked at", "error")


@click.group("due")
def due_group() -> None:
    """Look at commands that wait for their time, and mend those that failed.

    \b
    Examples:
      cqrskit due list --app bank:app --parked
      cqrskit due retry reminder:17 --app bank:app
      cqrskit due drop reminder:17 --app bank:app --yes
    """


@due_group.command("list")
@app_option
@click.option("--parked", is_flag=True, help="Only those that failed too often.")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@json_option("Write one JSON array; errors are JSON too.")
@common_options
def list_command(app: str | None, parked: bool, count: int, as_json: bool) -> None:
    """List commands that wait for their time, the earliest first, parked ones among them.

    \b
    Examples:
      cqrskit due list --app bank:app
      cqrskit due list --app bank:app --parked --json
    """
    application = application_of(app)

    async def show() -> None:
        async with opened(application) as runtime:
            found = await runtime.due_commands.list_all(only_parked=parked, count_max=count)
        if as_json:
            print(msgspec.json.encode(found).decode())
            return
        rows = [(each.key, each.command, each.due_at, each.attempts, each.parked_at, each.error) for each in found]
        show_table(HEADINGS, rows)

    run(show)


@due_group.command("retry")
@click.argument("key")
@app_option
@common_options
def retry_command(key: str, app: str | None) -> None:
    """Have a parked command tried again, by the next process that takes commands.

    \b
    Examples:
      cqrskit due retry reminder:17 --app bank:app
    """
    application = application_of(app)

    async def retry() -> None:
        async with opened(application) as runtime:
            _require(await runtime.due_commands.retry(key), key)
            print(f"{key} will be tried again within a second or so")

    run(retry)


@due_group.command("drop")
@click.argument("key")
@app_option
@yes_option
@common_options
def drop_command(key: str, app: str | None, yes: bool) -> None:
    """Give a parked command up, for good.

    \b
    Examples:
      cqrskit due drop reminder:17 --app bank:app --yes
    """
    application = application_of(app)

    async def drop() -> None:
        async with opened(application) as runtime:
            await confirm(f"The command under {key!r} will never run; this cannot be undone. Give it up?", yes=yes)
            _require(await runtime.due_commands.drop(key), key)
            print(f"{key} is given up")

    run(drop)


def _require(found: bool, key: str) -> None:
    if not found:
        raise ConfigurationError(f"no command is parked under {key!r}: see `cqrskit due list --parked`")
