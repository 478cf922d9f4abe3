"""The command line: ``cqrskit``, one file per command."""

from importlib.metadata import PackageNotFoundError, version

import rich_click as click

from cqrskit.cli.audit import audit_command
from cqrskit.cli.due import due_group
from cqrskit.cli.events import events_command
from cqrskit.cli.explain import explain_command
from cqrskit.cli.generations import generations_command
from cqrskit.cli.keys import keys_group_of
from cqrskit.cli.migrate import migrate_command
from cqrskit.cli.parked import parked_group
from cqrskit.cli.pause import pause_command, resume_command
from cqrskit.cli.project import project_command
from cqrskit.cli.prune import prune_command
from cqrskit.cli.rebuild import rebuild_command, rebuild_slice_command, rollback_command
from cqrskit.cli.reset import reset_command
from cqrskit.cli.running import run_group
from cqrskit.cli.schema import schema_group
from cqrskit.cli.serve import serve_command
from cqrskit.cli.status import status_command
from cqrskit.cli.verify import verify_command

__all__ = ["cqrskit_group", "main"]


def _version() -> str:
    try:
        return version("cqrskit")
    except PackageNotFoundError:
        return "unknown (not installed)"


@click.group("cqrskit", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="cqrskit")
def cqrskit_group() -> None:
    """Event sourcing and CQRS on Postgres and Elasticsearch: run and look after an application.

    Settings come from CQRSKIT_* variables; docs/reference/settings.md lists them. Exit codes: 0 done, 1 the work
    failed, 2 wrong use or configuration, 3 a server cannot be reached.

    \b
    Examples:
      cqrskit migrate
      cqrskit serve --app bank:app
      cqrskit status --app bank:app
    """


for _command in (
    migrate_command,
    serve_command,
    project_command,
    status_command,
    parked_group,
    pause_command,
    resume_command,
    reset_command,
    generations_command,
    prune_command,
    events_command,
    audit_command,
    keys_group_of("cqrskit"),
    schema_group,
    rebuild_command,
    rebuild_slice_command,
    rollback_command,
    verify_command,
    explain_command,
    due_group,
):
    cqrskit_group.add_command(_command)


def main() -> None:
    """The console script."""
    run_group(cqrskit_group)
