"""Whether documents are what the model's facts make of them: whole documents, none more and none less."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from tests.ledger_model import documents
from tests.ledger_model.documents import Between
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.words import Words

__all__ = ["assert_documents"]


def assert_documents(model: LedgerModel, words: Words, found: Mapping[str, Sequence[Any]]) -> None:
    """Raise AssertionError unless these documents, by the names of their projections, are all that is due."""
    plain = {name: [_plain(each) for each in rows] for name, rows in found.items()}
    assert by(plain["accounts"], "account_id") == by(documents.accounts(model, words), "account_id")
    expected = documents.transfers(model, words)
    assert by(plain["transfers"], "transfer_id").keys() == by([each for each, _ in expected], "transfer_id").keys()
    shown = by(plain["transfers"], "transfer_id")
    for document, between in expected:
        each = shown[document["transfer_id"]]
        each["legs"].sort(key=lambda leg: (leg["account_id"], leg["direction"], leg["amount"]))
        _assert_same(each, document, between)
    lines, days = plain["statement_lines"], plain["daily_totals"]
    for number in model.accounts:
        account_id = words.account_id(number)
        own = sorted((each for each in lines if each["account_id"] == account_id), key=lambda each: each["position"])
        expected = documents.statement_lines(model, words, number)
        assert len(own) == len(expected), (number, own, expected)
        for each, (document, between) in zip(own, expected, strict=True):
            _assert_same(each, document, between)
        own = sorted((each for each in days if each["account_id"] == account_id), key=lambda each: each["day"])
        assert own == documents.daily_totals(model, words, number)
    assert len(lines) == len(model.lines) == len({each["position"] for each in lines})
    expected_days = [documents.daily_totals(model, words, number) for number in model.accounts]
    assert len(days) == sum(map(len, expected_days))
    assert by(plain["trial_balances"], "currency") == by(documents.trial_balances(model, words), "currency")


def by(rows: Sequence[dict[str, Any]], name: str) -> dict[Any, dict[str, Any]]:
    """Documents by one of their fields, which no two of them share."""
    found = {each[name]: each for each in rows}
    assert len(found) == len(rows)
    return found


def _assert_same(found: dict[str, Any], expected: dict[str, Any], between: Between) -> None:
    position = found["position"]
    assert found == {**expected, "position": position}
    assert between[0] < position <= between[1], (position, between, expected)


def _plain(document: Any) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(document, builtin_types=(UUID, datetime, date))
    return values
