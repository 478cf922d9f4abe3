"""The command line: ``ledger``, one file per command."""

import rich_click as click

from cqrskit.cli.keys import keys_group_of
from cqrskit.cli.running import run_group
from example_ledger.cli.check import check_command
from example_ledger.cli.demo import demo_command
from example_ledger.cli.generate import generate_command
from example_ledger.cli.import_file import import_command
from example_ledger.cli.serve import serve_command

__all__ = ["ledger_group", "main"]


@click.group("ledger", context_settings={"help_option_names": ["-h", "--help"]})
def ledger_group() -> None:
    """A double-entry ledger service, the worked example of cqrskit.

    Settings come from CQRSKIT_* variables, as for `cqrskit` itself. Exit codes: 0 done, 1 the work failed or found
    something wrong, 2 wrong use or configuration, 3 a server cannot be reached.

    \b
    Examples:
      ledger demo
      ledger generate --accounts 1000 --transfers 100000 --skew zipf --seed 1 --out transfers.csv
      ledger import transfers.csv --open-accounts
      ledger keys create shop --scopes read,write
      ledger serve --port 8000
      ledger check
    """


for _command in (
    serve_command,
    demo_command,
    keys_group_of("ledger"),
    generate_command,
    import_command,
    check_command,
):
    ledger_group.add_command(_command)


def main() -> None:
    """The console script."""
    run_group(ledger_group)


if __name__ == "__main__":
    main()
