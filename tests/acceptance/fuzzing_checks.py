"""What the fuzzer holds the ledger's replies to, beside its own checks; schemathesis loads this as its hooks."""

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.generation import GenerationMode

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def documented_codes() -> frozenset[str]:
    """All codes of problems that the reference names."""
    errors = (REFERENCE / "http-errors.md").read_text(encoding="utf-8")
    ledger = (REFERENCE / "http-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [\d, ]+ \|", ledger, re.MULTILINE)
    return frozenset([*re.findall(r"^\| (?:`\w+` \| )?\d+ \| `(\w+)` \|", errors, re.MULTILINE), *rows])


CODES = documented_codes()


def problem_of(response: Response) -> dict[str, object] | None:
    """The problem in a reply that is one."""
    media_type = response.headers.get("content-type", [""])[0].partition(";")[0]
    if media_type != "application/problem+json":
        return None
    problem: dict[str, object] = json.loads(response.content)
    return problem


@schemathesis.check
def every_refusal_carries_a_known_code(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is refused is a problem with a code that the reference lists."""
    if response.status_code < 400 or case.method == "HEAD" or case.path == "/health/ready":
        return
    problem = problem_of(response)
    assert problem is not None, f"a refusal that is no problem: {response.content[:200]!r}"
    assert problem["code"] in CODES, f"{problem['code']} is in no page of the reference"
    assert problem["status"] == response.status_code


@schemathesis.check
def what_fits_the_document_is_not_called_malformed(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A 400 for a request that fits says something that a schema cannot: a cursor, the log's end, 5.0 for 5."""
    if response.status_code != 400 or case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    problem = problem_of(response)
    assert problem is not None
    if problem["code"] == "invalid_cursor":
        return
    errors = problem.get("errors")
    assert isinstance(errors, list), problem
    unexpected = [
        each for each in errors if not any(said in each["message"] for said in ("is beyond the log", "got `float`"))
    ]
    assert errors, problem
    assert not unexpected, unexpected


ACCOUNTS = [str(UUID(int=number + 1, version=4)) for number in range(6)]
"""Accounts in EUR that are there from the beginning, and take part in most requests: ids by chance would find none."""
TRANSFERS = [str(UUID(int=number + 100, version=4)) for number in range(4)]
"""Transfers and holds that are there from the beginning."""


def with_known_things(name: str, value: Any) -> Any:
    """The same content with ids of things that are there, and their currency, in most places where there is one."""
    if isinstance(value, dict):
        return {each: with_known_things(each, inner) for each, inner in value.items()}
    if isinstance(value, list):
        found = [with_known_things(name, inner) for inner in value]
        return balanced(found) if name == "legs" else found
    if name == "amount" and type(value) is int and 1_000 < value < 2**63 and value % 4:
        return value % 1_000 + 1
    if not isinstance(value, str):
        return value
    number = crc32(b"14 " + value.encode("utf-8", "surrogatepass"))  # by which the fuzzer's first ids are known ones
    if name == "currency":
        return "EUR" if number % 4 and re.fullmatch("[A-Z0-9]{3,12}", value) else value
    if number % 4 == 0 or not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return value
    if name.endswith("account_id"):
        return ACCOUNTS[number % len(ACCOUNTS)]
    return TRANSFERS[number % len(TRANSFERS)] if name in ("transfer_id", "hold_id") else value


def balanced(legs: list[Any]) -> list[Any]:
    """The legs of an entry with equal amounts on alternating sides, where they are well-formed and even in number."""
    amounts = [each.get("amount") if isinstance(each, dict) else None for each in legs]
    if len(legs) % 2 or any(type(amount) is not int or not 0 < amount < 2**63 for amount in amounts):
        return legs
    directions = [each.get("direction") for each in legs]
    if any(each not in ("debit", "credit") for each in directions):
        return legs
    return [{**each, "amount": 7, "direction": ("debit", "credit")[place % 2]} for place, each in enumerate(legs)]


NEW = {"account_id", "transfer_id", "hold_id", "entry_id", "reversal_id"}
"""Ids of what a body asks to make, which stay as they are."""


@schemathesis.hook
def map_case(context: HookContext, case: Case[Any]) -> Case[Any]:
    """Most requests are about things that are there, and have an idempotency key of their own.

    Only the last two accounts are closed or frozen. The few keys that a fuzzer thinks of would nearly all be conflicts.
    """
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[ -~]{1,100}", key):
        number = crc32(repr((case.path_parameters, case.body)).encode("utf-8", "backslashreplace"))
        if number % 8:
            case.headers["Idempotency-Key"] = f"{key} {number}"
    if isinstance(case.body, dict):
        case.body = {
            name: value if name in NEW else with_known_things(name, value) for name, value in case.body.items()
        }
    if isinstance(case.path_parameters, dict):
        found = with_known_things("", case.path_parameters)
        if case.path.endswith(("/close", "/freeze")) and found.get("account_id") in ACCOUNTS:
            found["account_id"] = ACCOUNTS[4 + crc32(str(case.path_parameters).encode()) % 2]
        case.path_parameters = found
    return case


@schemathesis.hook
def filter_case(context: HookContext, case: Case[Any]) -> bool:
    """Leave requests out that differ by a header which nobody knows: any request may have more headers."""
    return "x-schemathesis-unknown-property" not in case.headers
