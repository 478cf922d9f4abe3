"""Every code that the ledger refuses with is in its reference, with a status and a meaning."""

import re
from pathlib import Path

import pytest

from cqrskit import Rejected
from example_ledger import refusals

# That of an aborted batch is never a problem of its own: docs/reference/ledger.md tells of it.
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"
CODES = sorted(
    each.code
    for each in vars(refusals).values()
    if isinstance(each, type) and issubclass(each, Rejected) and each not in (Rejected, refusals.BatchAborted)
)


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_a_row_with_its_status_and_meaning(code: str) -> None:
    _, _, text = REFERENCE.read_text().partition("## Codes")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    found = [cells for cells in rows if len(cells) == 3 and f"`{code}`" in cells[0]]
    assert found, f"{code} is not in {REFERENCE.name}"
    for _, status, meaning in found:
        assert re.fullmatch("(404|409|422)(, (404|409|422))*", status)
        assert meaning
