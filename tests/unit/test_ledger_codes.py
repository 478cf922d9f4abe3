"""Every code that the ledger refuses with is in its reference, with a status and a meaning."""

import re
from pathlib import Path

import pytest

from cqrskit import Rejected
from example_ledger import refusals

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "ledger.md"
CODES = sorted(
    each.code
    for each in vars(refusals).values()
    if isinstance(each, type) and issubclass(each, Rejected) and each is not Rejected
)


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_a_row_with_its_status_and_meaning(code: str) -> None:
    _, _, text = REFERENCE.read_text().partition("## Over HTTP")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    found = [cells for cells in rows if len(cells) == 3 and f"`{code}`" in cells[0]]
    assert found, f"{code} is not in {REFERENCE.name}"
    for _, status, meaning in found:
        assert re.fullmatch("200" if code == "batch_aborted" else "404|409|422", status)
        assert meaning
