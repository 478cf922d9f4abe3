"""Whether an application still reads what it has stored: `cqrskit schema check` as one line of a test."""

from pathlib import Path

from cqrskit.application import Application
from cqrskit.schema import Finding, check

__all__ = ["schema_findings"]


def schema_findings(application: Application, folder: Path | str) -> list[Finding]:
    """What is wrong with the events of an application beside their frozen versions; nothing, if all is well.

    ConfigurationError if there is no such folder: `cqrskit schema freeze` writes it.
    """
    return check(application.registry, Path(folder)).findings
