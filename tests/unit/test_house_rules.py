"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from cqrskit.telemetry import LOG_EVENTS

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    *("pyproject.toml", "cqrskit", "example_ledger", "migrations", "compose.yaml", "tests", "docs"),
    *("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "requirements.lock"),
}
LINES_MAX, FUNCTION_LINES_MAX = 400, 60


def tracked() -> list[Path]:
    """Files of the project, as git knows them; without git, those of a source archive."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if found.returncode != 0:
        return [path for name in TOP_LEVEL for path in [ROOT / name, *(ROOT / name).rglob("*")] if path.is_file()]
    return [ROOT / line for line in found.stdout.splitlines() if (ROOT / line).is_file()]


FILES = tracked()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]


def test_the_top_level_holds_what_it_should() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in FILES}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in PYTHON_FILES:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > LINES_MAX:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.append(f"{path}:{node.name} has {lines} lines")
    assert long == []


def test_nothing_names_a_machine_or_a_package_registry() -> None:
    words = ["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "/" + "work/", "/" + "root/"]
    unwanted = re.compile("|".join(words))
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {line}" for line in text.splitlines() if unwanted.search(line)]
    assert found == []


LEVELS = {
    **{level: level for level in ("debug", "info", "warning", "error")},
    "exception": "error",
    "log": "varies",
}


def logged_in(path: Path) -> list[tuple[str, str, set[str]]]:
    """The log events of a file: name, level, fields."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        names = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
            fields = {str(each.arg) for each in node.keywords} - {"exc_info"}
            found.append((str(names[0]), LEVELS[node.func.attr], fields))
    return found


def test_every_log_event_is_listed_with_its_level_and_fields_and_every_listed_one_is_written() -> None:
    written = [each for path in (ROOT / "cqrskit").rglob("*.py") for each in logged_in(path)]
    assert {name for name, _, _ in written} == set(LOG_EVENTS)
    for name, level, fields in written:
        assert (level, fields) == (LOG_EVENTS[name].level, set(LOG_EVENTS[name].fields)), name


def test_fault_tests_end_with_a_check_of_the_log_or_of_all_documents() -> None:
    names = "assert_books|assert_log_tells|assert_projection_exact|assert_exact|assert_in_order|check_books"
    checks = re.compile(rf"{names}|import WAIT_SECONDS, at_work|count\(\*\)")
    modules = (ROOT / "tests" / "faults").glob("test_*.py")
    assert [path.name for path in modules if not checks.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("package", ["cqrskit", "example_ledger"])
def test_public_modules_say_what_they_offer(package: str) -> None:
    lacking = []
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.stem.startswith("__") or "__all__" in text:
            continue
        lacking.append(str(path))
    assert lacking == []
