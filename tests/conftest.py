"""Quick tests first: unit, contract, integration, acceptance, faults."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.ledger_model")

ORDER = ("unit", "contract", "integration", "acceptance", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(root).parts[0]))
