"""Aims the fuzzer's requests: most of them at things that are there, so that they are accepted.

Only what is well-formed is put in the place of what is well-formed, so that nothing malformed is mended. Everything
follows from the request alone: the same request is aimed at the same thing in each run.
"""

import re
from typing import Any
from uuid import UUID
from zlib import crc32

from schemathesis import Case

from tests.acceptance.fuzzing_ledger import ACCOUNTS, BESIDE, CLOSED, EMPTY, FULL, HOLDS, OPEN, RESTLESS, TRANSFERS

__all__ = ["aim", "keep_to_what_cannot_be_written_down"]

Things = list[str]
KNOWN_POSITION = 100
"""The log is longer than this."""
KNOWN = frozenset([*ACCOUNTS, *TRANSFERS, *HOLDS])
ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CURRENCY = re.compile("[A-Z][A-Z0-9]{2,11}")
NEW = ("transfer_id", "hold_id", "entry_id", "reversal_id")
"""Ids of what a body asks to make; so is the account's at the top of one."""
AT: dict[str, tuple[Things, Things]] = {
    "close": (EMPTY, FULL),
    "freeze": (RESTLESS, CLOSED),
    "unfreeze": (RESTLESS, CLOSED),
    "overdraft-limit": (RESTLESS, BESIDE),
    "capture": (HOLDS, TRANSFERS),
    "void": (HOLDS, TRANSFERS),
    "reverse": (TRANSFERS, HOLDS),
    "{transfer_id}": (TRANSFERS, HOLDS),
}
"""What a path that ends so is about, and what a few are about instead. All others are about any account."""


def number_of(*values: object) -> int:
    """A number by which requests go different ways, the same in each run."""
    return crc32(repr(values).encode("utf-8", "backslashreplace"))


def aim(case: Case[Any]) -> None:
    """Aim one request. One in 16 stays as it is, and of the others one in 4 is for the domain to refuse.

    None stays that is about a known thing by chance: an account that others need might be frozen.
    """
    body = case.body if isinstance(case.body, dict) else None
    number = number_of(case.path, case.path_parameters, case.query, sorted(case.headers.items()), body)
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[ -~]{1,255}", key) and number % 8:
        case.headers["Idempotency-Key"] = f"{number} {key}"[:255]  # the few that a fuzzer thinks of would be conflicts
    if number % 16 == 0 and not any(is_id(each) and each in KNOWN for each in case.path_parameters.values()):
        return
    number, usual = number // 16, number % 4 != 0
    if body is not None:
        case.body = aimed_body(body, number, usual=usual)
    if case.path_parameters:
        place = 0 if usual else 1
        things = AT.get(case.path.rpartition("/")[2], (ACCOUNTS, ACCOUNTS))[place]
        found = {
            name: things[number % len(things)] if is_id(value) else value
            for name, value in case.path_parameters.items()
        }
        if found != case.path_parameters:
            case.path_parameters = found
    if is_id(case.query.get("account_id")):
        case.query = {**case.query, "account_id": ACCOUNTS[number % len(ACCOUNTS)]}


def aimed_body(body: dict[str, Any], number: int, *, usual: bool) -> dict[str, Any]:
    """The same body about other things."""
    found: dict[str, Any] = aimed("", body, number, usual=usual)
    if is_id(body.get("account_id")):
        found["account_id"] = new_id(number) if usual else OPEN[0]
    if usual and isinstance(body.get("legs"), list):
        found["legs"] = balanced(body["legs"], number)
    return found


def aimed(name: str, value: Any, number: int, *, usual: bool) -> Any:
    """The same value with ids of what is there, ids that are new, amounts and a currency that the accounts have."""
    if isinstance(value, dict):
        return {each: aimed(each, inner, number, usual=usual) for each, inner in value.items()}
    if isinstance(value, list):
        return [aimed(name, inner, number + place, usual=usual) for place, inner in enumerate(value)]
    if name == "amount" and is_amount(value) and usual:
        return value % 100 + 1
    if name == "currency" and isinstance(value, str) and CURRENCY.fullmatch(value):
        return "EUR" if usual or number % 2 else value
    return thing_for(name, number, usual=usual) if name.endswith("_id") and is_id(value) else value


def thing_for(name: str, number: int, *, usual: bool) -> str:
    """The id that a field gets."""
    if name in NEW:
        return new_id(number) if usual else TRANSFERS[number % len(TRANSFERS)]
    accounts = OPEN if usual else BESIDE
    return accounts[(number + (name != "debit_account_id")) % len(accounts)]


def balanced(legs: list[Any], number: int) -> list[Any]:
    """The legs of an entry from one account to two others, where they are well-formed."""
    if len(legs) < 2 or not all(map(is_leg, legs)):
        return legs
    credits_ = [
        {**leg, "account_id": OPEN[(number + 1 + place % 2) % 3], "direction": "credit", "amount": 7}
        for place, leg in enumerate(legs[1:])
    ]
    debit = {**legs[0], "account_id": OPEN[number % 3], "direction": "debit", "amount": 7 * len(credits_)}
    return [debit, *credits_]


def is_leg(value: Any) -> bool:
    """Whether this is a well-formed leg, perhaps with more in it."""
    if not isinstance(value, dict):
        return False
    return (
        is_id(value.get("account_id"))
        and is_amount(value.get("amount"))
        and value.get("direction") in ("debit", "credit")
    )


def is_id(value: Any) -> bool:
    """Whether this is a well-formed id."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def is_amount(value: Any) -> bool:
    """Whether this is a well-formed amount."""
    return type(value) is int and 0 < value < 2**63


def new_id(number: int) -> str:
    """An id that nothing else has, unless the same request is sent again."""
    return str(UUID(int=(number << 64) + 1, version=4))


def keep_to_what_cannot_be_written_down(case: Case[Any], cursors: dict[str, str]) -> None:
    """Make a request that fits the document keep to three things that its schemas cannot say.

    A cursor is one that a page had, for the query that it came from. A position is within the log. A whole number is
    written as one: to a schema 5.0 is an integer too.
    """
    if isinstance(case.body, dict):
        case.body = with_integers(case.body)
    if "Consistency-Position" in case.headers:
        case.headers["Consistency-Position"] = str(int(case.headers["Consistency-Position"]) % KNOWN_POSITION)
    query = dict(case.query)
    if "min_position" in query:
        query["min_position"] = int(query["min_position"]) % KNOWN_POSITION
    if "cursor" in query:
        kept = {name: value for name, value in query.items() if name in ("limit", "min_position")}
        query = {**kept, "cursor": cursors[case.path]}
        if case.path_parameters:
            case.path_parameters = {"account_id": OPEN[0]}
    if query != case.query:
        case.query = query


def with_integers(value: Any) -> Any:
    """The same value with 5 in the place of 5.0."""
    if isinstance(value, dict):
        return {name: with_integers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_integers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
