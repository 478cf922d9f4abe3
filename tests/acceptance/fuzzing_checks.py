"""What the fuzzer sends and what it holds the ledger's replies to, beside its own; schemathesis loads this as hooks."""

import atexit
import json
import os
import re
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.generation import GenerationMode

from tests.acceptance.fuzzing_requests import aim, is_amount, keep_to_what_cannot_be_written_down

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
REPLIES = Path(os.environ["LEDGER_FUZZ_REPLIES"])
"""Where to write which replies there were."""
CURSORS: dict[str, str] = json.loads(os.environ["LEDGER_FUZZ_CURSORS"])
"""A good cursor for each list."""


# --- what is sent


@schemathesis.hook
def map_case(context: HookContext, case: Case[Any]) -> Case[Any]:
    """Most requests are about things that are there."""
    is_positive = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    aim(case)
    if is_positive:
        keep_to_what_cannot_be_written_down(case, CURSORS)
    return case


@schemathesis.hook
def before_add_examples(context: HookContext, examples: list[Case[Any]]) -> None:
    """So are those that are made of the document's own examples."""
    for case in examples:
        map_case(context, case)


# Of all years few are from 1970 to 2261: a fuzzer that had to guess them would give up.
moments = strategies.datetimes(datetime(1970, 1, 2), datetime(2261, 12, 30), timezones=strategies.just(UTC))
schemathesis.openapi.format("date-time", moments.map(datetime.isoformat))
schemathesis.openapi.format("date", moments.map(lambda moment: moment.date().isoformat()))


@schemathesis.hook
def filter_case(context: HookContext, case: Case[Any]) -> bool:
    """Leave requests out that differ by a header which nobody knows: any request may have more headers."""
    return "x-schemathesis-unknown-property" not in case.headers


# --- what is expected


def known_codes() -> frozenset[str]:
    """All codes of problems that the reference names."""
    errors = (REFERENCE / "http-errors.md").read_text(encoding="utf-8")
    ledger = (REFERENCE / "http-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [\d, ]+ \|", ledger, re.MULTILINE)
    return frozenset([*re.findall(r"^\| (?:`\w+` \| )?\d+ \| `(\w+)` \|", errors, re.MULTILINE), *rows])


CODES = known_codes()


@schemathesis.check
def every_refusal_carries_a_documented_code(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """Whatever is refused is a problem with a code that the operation has for this status, and the reference lists."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    problem = problem_in(response)
    assert problem is not None, f"a refusal that is no problem: {response.content[:200]!r}"
    assert problem["status"] == response.status_code
    assert problem["code"] in CODES, f"{problem['code']} is in no page of the reference"
    expected = documented_codes(case, response.status_code)
    assert problem["code"] in expected, f"{case.operation.label} has {sorted(expected)} for {response.status_code}"


def documented_codes(case: Case[Any], status: int) -> set[str]:
    """The codes that the document has for a status of the operation. OPTIONS, which it has not, is a request too."""
    if case.method.lower() != case.operation.method.lower():
        return {405: {"method_not_allowed"}, 400: {"invalid_request"}}.get(status, set())
    reply = case.operation.definition.raw["responses"].get(str(status), {})
    schema = reply.get("content", {}).get("application/problem+json", {}).get("schema", {})
    return {
        code for part in schema.get("allOf", ()) for code in part.get("properties", {}).get("code", {}).get("enum", ())
    }


def problem_in(response: Response) -> dict[str, Any] | None:
    """The problem in a reply that is one."""
    if media_type_of(response) != "application/problem+json":
        return None
    problem: dict[str, Any] = json.loads(response.content)
    return problem


def media_type_of(response: Response) -> str:
    return str(response.headers.get("content-type", [""])[0].partition(";")[0])


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """A batch is 200 though an amount in it fits no schema, if that transfer is rejected: the domain has the bounds."""
    if not isinstance(failure, AcceptedNegativeData) or case.operation.label != "POST /transfers/batch":
        return True
    results = json.loads(response.content)["results"]
    body: Any = case.body
    places = [place for place, sent in enumerate(body["transfers"]) if not is_amount(sent["amount"])]
    return not places or any(results[place]["status"] != "rejected" for place in places)


# --- which replies there were

seen: defaultdict[str, Counter[str]] = defaultdict(Counter)


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Count the replies of each operation."""
    if case.method.lower() == case.operation.method.lower():
        seen[case.operation.label][outcome_of(response)] += 1


def outcome_of(response: Response) -> str:
    """`accepted`, or the status and why it is not.

    A retry's reply, an empty page and a batch of refusals are not taken for accepted: they have too little in them.
    """
    problem = problem_in(response)
    if problem is not None:
        return f"{response.status_code} {problem['code']}"
    if response.status_code // 100 != 2:
        return f"{response.status_code} without a problem"
    if "idempotent-replay" in response.headers:
        return "200 again"
    content = json.loads(response.content) if media_type_of(response) == "application/json" else {}
    if not content.get("items", content.get("currencies", ["not a list"])):
        return "200 nothing found"
    if not any(each["status"] == "posted" for each in content.get("results", [{"status": "posted"}])):
        return "200 all rejected"
    return "accepted"


atexit.register(lambda: REPLIES.write_text(json.dumps(seen, indent=1)))
