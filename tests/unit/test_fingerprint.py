"""Fingerprints: a change of what folds do changes them, any other change of the code does not."""

import compileall
import importlib
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from cqrskit import Projection
from cqrskit.fingerprint import Fingerprint, fingerprint_of
from tests.unit.folding_bank import Balances

MONEY = '''
"""Money."""

from enum import Enum

import msgspec

RATE = 3
TABLE = {"eur": 1, "usd": 2}
SIDES = frozenset({"debit", "credit"})


class Side(Enum):
    """A side."""

    DEBIT = "debit"
    CREDIT = "credit"


class Scale(msgspec.Struct, frozen=True):
    """How much."""

    factor: int = 10

    def of(self, amount: int) -> int:
        """Scaled."""
        return amount * self.factor


NOTHING = Scale(factor=1)


def rated(amount: int) -> int:
    """With the rate."""
    return deeper(amount) * RATE


def deeper(amount: int) -> int:
    # Far away.
    return amount + 1


def unrelated() -> int:
    """Nobody calls it."""
    return 1
'''
BOOKS = '''
"""Books."""

from typing import Any

import msgspec

from cqrskit import Aggregate, Projection, RecordedEvent, on, upcasts

from . import money
from .money import NOTHING, SIDES, TABLE, Scale, Side, rated

LIMIT = 100


class Account(Aggregate):
    """An account."""

    class Moved(Aggregate.Event):
        """Money moved."""

        amount: int

        def doubled(self) -> int:
            """Twice."""
            return self.amount * 2

        def apply(self, account: Any) -> None:
            account.amount = self.amount

    class Closed(Aggregate.Event, version=2):
        """The end."""

    def decide(self) -> int:
        """A decision."""
        return 1


@upcasts(Account.Closed, from_version=1)
def closed_v1(data: dict[str, Any]) -> dict[str, Any]:
    """The first version had a reason."""
    return {"because": data["reason"]}


class Row(msgspec.Struct, frozen=True):
    """A row."""

    amount: int = 0
    side: str = "debit"

    def more(self, amount: int) -> "Row":
        """The row with more."""
        return Row(self.amount + amount, self.side)


class Base(Projection):
    """What all have."""

    document = Row

    def inherited(self, amount: int) -> int:
        """A method of a base."""
        return min(amount, LIMIT)

    @on(Account.Closed)
    def closed(self, row: Row | None, event: Account.Closed, at: RecordedEvent) -> None:
        """Gone."""
        return None


class Rows(Base):
    """The rows."""

    step = 1

    @on(Account.Moved, key=lambda event, at: str(at.stream_id) + "x")
    def one(self, row: Row | None, event: Account.Moved, at: RecordedEvent) -> Row:
        """First."""
        return (row or Row()).more(rated(event.doubled()) + self.step)

    @on(Account.Moved, key=lambda event, at: "all")
    def two(self, row: Row | None, event: Account.Moved, at: RecordedEvent) -> Row:
        """Second."""
        amount = self.inherited(event.amount) + TABLE["eur"] + NOTHING.of(1) + Scale().of(1) + money.RATE
        return (row or Row()).more(amount if Side.DEBIT.value in SIDES else 0)
'''
BEGIN_ONE = "    @on(Account.Moved, key=lambda event, at: str"
BEGIN_TWO = '    @on(Account.Moved, key=lambda event, at: "all")'
ONE = BEGIN_ONE + BOOKS.partition(BEGIN_ONE)[2].partition(BEGIN_TWO)[0]
TWO = BEGIN_TWO + BOOKS.partition(BEGIN_TWO)[2]
numbers = count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def made(folder: Path, books: str, money: str, *, source: bool = True) -> Fingerprint:
    """The fingerprint of Rows in a package of its own, which has these two modules."""
    package = folder / f"books_{next(numbers)}"
    package.mkdir()
    for name, text in (("__init__", ""), ("books", books), ("money", money)):
        (package / f"{name}.py").write_text(text)
    if not source:
        compileall.compile_dir(package, quiet=1, legacy=True)
        for path in package.glob("*.py"):
            path.unlink()
    importlib.invalidate_caches()
    rows: type[Projection] = importlib.import_module(f"{package.name}.books").Rows
    return fingerprint_of(rows)


MATTERS = [
    ("RATE = 3", "RATE = 4"),
    ('"eur": 1', '"eur": 7'),
    ('{"debit", "credit"}', '{"debit"}'),
    ('DEBIT = "debit"', 'DEBIT = "d"'),
    ("factor: int = 10", "factor: int = 11"),
    ("amount * self.factor", "amount + self.factor"),
    ("Scale(factor=1)", "Scale(factor=2)"),
    ("deeper(amount) * RATE", "deeper(amount) - RATE"),
    ("return amount + 1", "return amount + 2"),
    ("LIMIT = 100", "LIMIT = 101"),
    ('{"because": data["reason"]}', '{"because": "no " + data["reason"]}'),
    ("self.amount * 2", "self.amount * 3"),
    ("amount: int = 0", "amount: int = 1"),
    ("Row(self.amount + amount", "Row(self.amount - amount"),
    ("min(amount, LIMIT)", "max(amount, LIMIT)"),
    ("    step = 1", "    step = 2"),
    ('str(at.stream_id) + "x"', 'str(at.stream_id) + "y"'),
    ('key=lambda event, at: "all"', 'key=lambda event, at: "every"'),
    ("    document = Row", "    document = Row\n    revision = 2"),
    ("        return None", '        return Row(0, "gone")'),
    ("@on(Account.Closed)", "@on(Account.Closed, creates=True)"),
    (ONE + TWO, TWO.rstrip() + "\n\n" + ONE.rstrip() + "\n"),
]
DOES_NOT_MATTER = [
    ('    """The first version had a reason."""\n', ""),
    ('"""First."""', '"""Another docstring."""'),
    ('        """Second."""\n', ""),
    ("    # Far away.\n", "    # Another comment.\n\n"),
    (
        "    return deeper(amount) * RATE",
        "    return (\n        deeper(\n            amount,\n        )\n        * RATE\n    )",
    ),
    ("def rated(amount: int) -> int", "def rated(amount: float) -> float"),
    ('    """Nobody calls it."""\n    return 1', "    return 2"),
    ('        """A decision."""\n        return 1', "        return 2"),
    ("account.amount = self.amount", "account.amount = -self.amount"),
    (
        "        amount: int\n\n        def doubled",
        "        amount: int\n        note: str = ''\n\n        def doubled",
    ),
    ('"""Books."""', '"""Books."""\n\nOTHER = 1\n'),
]


@pytest.mark.parametrize(("old", "new"), MATTERS)
def test_a_change_of_what_folds_do_changes_the_fingerprint(folder: Path, old: str, new: str) -> None:
    assert (old in BOOKS) != (old in MONEY)
    before = made(folder, BOOKS, MONEY)
    after = made(folder, BOOKS.replace(old, new), MONEY.replace(old, new))
    assert after.folds != before.folds
    assert after.shape == before.shape


@pytest.mark.parametrize(("old", "new"), DOES_NOT_MATTER)
def test_a_change_of_nothing_that_folds_do_leaves_the_fingerprint(folder: Path, old: str, new: str) -> None:
    assert (old in BOOKS) != (old in MONEY)
    before = made(folder, BOOKS, MONEY)
    assert made(folder, BOOKS.replace(old, new), MONEY.replace(old, new)) == before


def test_a_change_of_the_document_changes_both(folder: Path) -> None:
    before = made(folder, BOOKS, MONEY)
    after = made(folder, BOOKS.replace('    side: str = "debit"\n', '    side: str = "debit"\n    x: int = 0\n'), MONEY)
    assert after.shape != before.shape
    assert after.folds != before.folds


def test_without_source_the_bytecode_tells(folder: Path) -> None:
    before = made(folder, BOOKS, MONEY, source=False)
    assert made(folder, BOOKS, MONEY, source=False) == before
    for old, new in [
        ("min(amount, LIMIT)", "max(amount, LIMIT)"),
        ("RATE = 3", "RATE = 4"),
        ("+ amount, s", "- amount, s"),
    ]:
        assert made(folder, BOOKS.replace(old, new), MONEY.replace(old, new), source=False).folds != before.folds
    assert made(folder, BOOKS.replace('"""First."""', '"""Other."""'), MONEY, source=False) == before


def test_the_fingerprint_is_the_same_in_all_processes() -> None:
    program = (
        "from cqrskit.fingerprint import fingerprint_of\n"
        "from tests.unit.folding_bank import Balances\n"
        "print(fingerprint_of(Balances).folds)"
    )
    for seed in ("0", "1", "17"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert told.stdout.strip() == fingerprint_of(Balances).folds, told.stderr


def test_the_fingerprint_is_the_same_in_all_versions_of_python() -> None:
    """Written down: whoever changes how it is made tells every projection that a rebuild is due."""
    assert fingerprint_of(Balances) == Fingerprint(shape="0ea254936e281d83", folds="f35807706258af44")
