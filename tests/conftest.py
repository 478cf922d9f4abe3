"""Quick tests first: unit, contract, integration, acceptance, faults. What they log has plain tracebacks."""

from pathlib import Path

import pytest
import structlog

pytest.register_assert_rewrite("tests.ledger_model")

ORDER = ("unit", "contract", "integration", "acceptance", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(root).parts[0]))


@pytest.fixture(autouse=True, scope="session")
def plain_tracebacks() -> None:
    """By default structlog draws all variables into a traceback, which takes seconds where many commands wait."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )
