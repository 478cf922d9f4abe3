"""Stored versions of events, frozen in files and checked, so that no event changes unnoticed.

`freeze` writes one file per stored version: its fields and golden payloads. `check` holds the application to them: the
fields are unchanged, and every payload becomes an event of the current class. `cqrskit schema` runs both;
docs/how-to/change-an-event.md shows the way.
"""

from cqrskit.schema.checking import CheckReport, check, check_log
from cqrskit.schema.examples import examples_of
from cqrskit.schema.freezing import FreezeReport, freeze, payloads_of_log
from cqrskit.schema.frozen import Finding, FrozenVersion
from cqrskit.schema.shape import shape_of

__all__ = [
    "CheckReport",
    "Finding",
    "FreezeReport",
    "FrozenVersion",
    "check",
    "check_log",
    "examples_of",
    "freeze",
    "payloads_of_log",
    "shape_of",
]
