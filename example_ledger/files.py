"""Files of transfers, CSV or NDJSON: reading them row by row, and generating a sample."""

import csv
import itertools
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args
from uuid import UUID, uuid5

import msgspec

from cqrskit import ConfigurationError
from example_ledger.money import CURRENCY_IN_WORDS, AccountType
from example_ledger.transfers import PostTransfer

__all__ = ["COLUMNS", "BadRow", "Row", "RowReader", "Skew", "generate", "id_of", "type_named_by"]

COLUMNS = ("transfer_id", "debit_account", "credit_account", "amount", "currency", "effective_at", "description")
REQUIRED = COLUMNS[:5]
NAMED = COLUMNS[:3]
Skew = Literal["uniform", "zipf"]

NAMES = UUID("8d7a9f9e-7c0e-4a0b-9d4f-0c6f7a4e2d11")
"""Namespace of ids that are made from names."""
DEFAULT_TYPE: AccountType = "liability"
ZIPF_EXPONENT = 1.1
_DIGITS = re.compile("[0-9]{1,40}")
"""Python would take `1_000`, `+5` and other scripts' digits for whole numbers too. What is too long is too much."""


def id_of(text: str) -> UUID:
    """A UUID as it stands, or the stable id of any other text."""
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMES, text)


def type_named_by(account: str) -> AccountType:
    """``asset:cash`` names its account's type; without such a prefix it is a liability: money that we owe somebody."""
    prefix = account.partition(":")[0]
    return cast(AccountType, prefix) if prefix in get_args(AccountType) else DEFAULT_TYPE


class Row(msgspec.Struct, frozen=True):
    """A row that can be posted; `line` is where it begins, counted from 1."""

    line: int
    debit_account: str
    credit_account: str
    transfer: PostTransfer


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be posted, and why."""

    line: int
    code: str
    message: str


class RowReader:
    """Reads a file once; iterate over it. `bytes_read` of `size` tell how far it is."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError if the file cannot be read or its columns are not those of transfers."""
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
            self.size = path.stat().st_size
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
        self.bytes_read = 0
        self._line = 0
        first = next(self._lines(), "")
        if not first.strip():
            raise ConfigurationError(f"{path} is empty: it should begin with the header {','.join(COLUMNS)}")
        self._json = first.lstrip("\ufeff").startswith("{")
        if self._json:
            self._first: list[str] = [first]
            return
        self._first = []
        self._header = [name.strip() for name in next(csv.reader([first.lstrip("\ufeff")]))]
        missing = [name for name in REQUIRED if name not in self._header]
        unknown = [name for name in self._header if name not in COLUMNS]
        if missing or unknown:
            what = f"lacks the columns {', '.join(missing)}" if missing else f"has unknown columns {', '.join(unknown)}"
            raise ConfigurationError(f"{path} {what}: its first line should be {','.join(COLUMNS)}")

    def __iter__(self) -> Iterator[Row | BadRow]:
        with self._file:
            yield from self._json_rows() if self._json else self._csv_rows()

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            self.bytes_read += len(line)
            self._line += 1
            yield line.decode("utf-8", "surrogateescape")

    def _csv_rows(self) -> Iterator[Row | BadRow]:
        reader = csv.reader(self._lines(), strict=True)
        while True:
            begin = self._line + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(begin, "malformed_row", str(error))
                continue
            if values:
                yield self._csv_row(begin, values)

    def _csv_row(self, line: int, values: list[str]) -> Row | BadRow:
        if len(values) != len(self._header):
            return BadRow(line, "malformed_row", f"{len(values)} values for {len(self._header)} columns")
        return _row(line, dict(zip(self._header, values, strict=True)))

    def _json_rows(self) -> Iterator[Row | BadRow]:
        line = 0
        for line, text in enumerate(itertools.chain(self._first, self._lines()), start=1):
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except ValueError as error:
                yield BadRow(line, "malformed_row", f"not JSON: {error}")
                continue
            if not isinstance(values, dict):
                yield BadRow(line, "malformed_row", "not a JSON object")
                continue
            yield _row(line, values)


def _row(line: int, values: dict[str, Any]) -> Row | BadRow:
    unknown = [name for name in values if name not in COLUMNS]
    if unknown:
        return BadRow(line, "malformed_row", f"unknown columns {', '.join(map(str, unknown))}")
    missing = [name for name in REQUIRED if _is_blank(values.get(name))]
    if missing:
        return BadRow(line, "malformed_row", f"{', '.join(missing)} is missing")
    amount = values["amount"]
    if isinstance(amount, str):
        if _DIGITS.fullmatch(amount.strip()) is None:
            return BadRow(line, "invalid_amount", f"the amount {amount!r} is not a whole number of minor units")
        amount = int(amount)
    try:
        transfer_id, debit_account, credit_account = (_name(name, values[name]) for name in NAMED)
        fields = {
            "transfer_id": id_of(transfer_id),
            "debit_account_id": id_of(debit_account),
            "credit_account_id": id_of(credit_account),
            "amount": amount,
            "currency": values["currency"],
            "effective_at": values.get("effective_at") or None,
            "description": values.get("description") or None,
        }
        str(fields["description"]).encode()
        return Row(line, debit_account, credit_account, msgspec.convert(fields, PostTransfer))
    except msgspec.ValidationError as error:
        if "$.currency" in str(error):
            return BadRow(line, "malformed_row", f"the currency {values['currency']!r} must be {CURRENCY_IN_WORDS}")
        code = "invalid_amount" if "$.amount" in str(error) else "malformed_row"
        return BadRow(line, code, str(error))
    except UnicodeEncodeError:
        return BadRow(line, "malformed_row", "the line is not UTF-8")


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _name(column: str, value: object) -> str:
    """The text that names something. ValidationError for what is none, or cannot be stored."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise msgspec.ValidationError(f"{column} must be a text, not {type(value).__name__}")
    text = str(value).strip()
    text.encode()
    if "\0" in text:
        raise msgspec.ValidationError(f"{column} contains the character NUL")
    return text


# --- generating

WORDS = ("rent", "salary", "groceries", "coffee", "invoice", "refund", "energy", "books", "travel", "insurance")
KINDS: tuple[tuple[str, int], ...] = (
    ("liability:customer", 90),
    ("asset:bank", 4),
    ("income:fees", 3),
    ("expense:costs", 3),
)


def generate(accounts: int, transfers: int, skew: Skew, seed: int) -> Iterator[tuple[str, ...]]:
    """Rows of a sample, the header first; the same numbers give the same rows. Takes at least two accounts."""
    randomness = random.Random(seed)
    names = _account_names(accounts, randomness)
    weights = [1 / (rank**ZIPF_EXPONENT) if skew == "zipf" else 1.0 for rank in range(1, accounts + 1)]
    cumulative = list(itertools.accumulate(weights))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    yield COLUMNS
    for number in range(transfers):
        debit, credit = randomness.choices(names, cum_weights=cumulative, k=2)
        while credit == debit:
            credit = randomness.choices(names, cum_weights=cumulative)[0]
        amount = max(1, round(randomness.lognormvariate(8, 1.5)))
        moment = begin + timedelta(seconds=number * 37)
        description = f"{randomness.choice(WORDS)} {number + 1}"
        transfer_id = UUID(int=randomness.getrandbits(128), version=4)
        yield str(transfer_id), debit, credit, str(amount), "EUR", f"{moment:%Y-%m-%dT%H:%M:%SZ}", description


def _account_names(accounts: int, randomness: random.Random) -> list[str]:
    kinds = randomness.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS], k=accounts)
    return [f"{kind}-{number}" for number, kind in enumerate(kinds, start=1)]
