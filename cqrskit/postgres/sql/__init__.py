"""The SQL of the Postgres adapters: one statement a file, named by its verb."""

from functools import cache
from importlib.resources import files
from typing import LiteralString

__all__ = ["statement"]


@cache
def statement(name: str) -> LiteralString:
    """The text of ``<name>.sql``; values are bound by the caller, never put into the text."""
    text: LiteralString = files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    return text
