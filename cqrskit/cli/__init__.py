"""The command line: ``cqrskit``, one file per command."""
