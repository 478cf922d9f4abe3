"""What the fuzzer holds the ledger's replies to, beside its own checks; schemathesis loads this as its hooks."""

import json
import re
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.generation import GenerationMode

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
DEPENDS_ON_THE_LOG = {"min_position", "Consistency-Position"}
"""Parameters that may be refused though they are well-formed: a position beyond the end of the log."""


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
        each for each in errors if each["field"] not in DEPENDS_ON_THE_LOG and "got `float`" not in each["message"]
    ]
    assert errors, problem
    assert not unexpected, unexpected


@schemathesis.hook
def filter_case(context: HookContext, case: Case[Any]) -> bool:
    """Leave requests out that differ by a header which nobody knows: any request may have more headers."""
    return "x-schemathesis-unknown-property" not in case.headers
