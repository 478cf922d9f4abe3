"""What is logged: one JSON object a line, readable lines on a terminal, and the lines of libraries in the same form."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from cqrskit.telemetry import configure_logging, correlated

log = structlog.get_logger(__name__)


class Terminal(io.StringIO):
    """Says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Let others log as they did."""
    root = logging.getLogger()
    handlers, config = list(root.handlers), structlog.get_config()
    yield
    structlog.configure(**config)
    root.handlers = handlers


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_elsewhere_each_line_is_a_json_object_also_with_a_traceback() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    log.info("service.listening", address="http://127.0.0.1:1")
    try:
        raise ZeroDivisionError("as told")
    except ZeroDivisionError:
        log.exception("reactions.failed")
    first, second = lines(stream)
    assert (first["event"], first["level"], first["address"]) == ("service.listening", "info", "http://127.0.0.1:1")
    assert first["timestamp"].endswith("Z")
    assert "ZeroDivisionError: as told" in second["exception"]


def test_on_a_terminal_lines_are_for_people() -> None:
    stream = Terminal()
    configure_logging("info", stream)
    log.info("service.listening", address="http://127.0.0.1:1")
    assert "service.listening" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_less_severe_events_than_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging("warning", stream)
    log.info("service.listening", address="a")
    log.warning("reactions.wait_for_server", reason="r")
    assert [line["event"] for line in lines(stream)] == ["reactions.wait_for_server"]


def test_what_libraries_warn_of_is_written_in_the_same_form_once() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    configure_logging("info", stream)
    logging.getLogger("psycopg.pool").warning("error connecting in %r: %s", "cqrskit", "no")
    logging.getLogger("psycopg.pool").info("something else")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("library.message", "warning", "psycopg.pool")
    assert line["message"] == "error connecting in 'cqrskit': no"


def test_lines_about_a_command_have_its_correlation_id_and_others_have_none() -> None:
    stream = io.StringIO()
    configure_logging("info", stream)
    for correlation_id in ("c-1", None):
        with correlated(correlation_id):
            log.error("executor.handler_failed", command="Credit")
    first, second = lines(stream)
    assert first["correlation_id"] == "c-1"
    assert "correlation_id" not in second
