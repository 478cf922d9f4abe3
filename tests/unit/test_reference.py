"""The reference pages say what the code does: every setting, every command and option, every error."""

import inspect
import re
from pathlib import Path

import msgspec
import pytest
import rich_click as click

from cqrskit import All, Condition, Query, Settings, Summary
from cqrskit import Any as AnyOf
from cqrskit.cli import cqrskit_group
from cqrskit.schema.frozen import FINDING_CODES
from cqrskit.spans import SPANS
from cqrskit.telemetry import LOG_EVENTS
from cqrskit.verification import DifferenceKind
from cqrskit.web.problems import HTTP_PROBLEMS, PROBLEMS
from example_ledger.cli import ledger_group
from example_ledger.findings import KINDS
from tests.unit.http_reference import anchor_of, http_reference

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    """A reference page's text."""
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_every_setting_is_documented_with_its_default_and_unit() -> None:
    rows = dict(re.findall(r"^\| `(CQRSKIT_\w+)` \| ([^|]+) \|", page("settings.md"), re.MULTILINE))
    expected = {}
    for field in msgspec.structs.fields(Settings):
        unit = next((f" {unit}" for unit in ("seconds", "bytes") if field.name.endswith(f"_{unit}")), "")
        default = "unset" if field.default is None else f"`{field.default}`{unit}"
        expected[f"CQRSKIT_{field.name.upper()}"] = default
    assert rows == expected


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """All commands that people call, those of a group inside the group under both names."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if command.hidden:
            continue
        inner = commands_of(command) if isinstance(command, click.Group) else {}
        found.update({f"{name} {each}": below for each, below in inner.items()} or {name: command})
    return found


PROGRAMS: dict[str, click.Group] = {"cli.md": cqrskit_group, "ledger.md": ledger_group}
COMMANDS = [(name, command) for name, group in PROGRAMS.items() for command in commands_of(group)]


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_every_command_is_documented(name: str) -> None:
    assert re.findall(r"^## \w+ ([\w ]+)$", page(name), re.MULTILINE) == list(commands_of(PROGRAMS[name]))


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_option_of_a_command_is_documented(name: str, command: str) -> None:
    section = page(name).partition(f"## {PROGRAMS[name].name} {command}\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `(--[\w-]+)[^`]*` \| (.+) \|$", section, re.MULTILINE))
    options = [each for each in commands_of(PROGRAMS[name])[command].params if isinstance(each, click.Option)]
    assert documented == {each.opts[0]: each.help for each in options}


def test_every_log_event_is_documented_with_its_level_fields_meaning_and_remedy() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| (\w+) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", page("log-events.md"), re.MULTILINE
    )
    expected = [
        (name, each.level, ", ".join(f"`{field}`" for field in each.fields), each.meaning, each.remedy)
        for name, each in LOG_EVENTS.items()
    ]
    assert rows == expected
    assert list(LOG_EVENTS) == sorted(LOG_EVENTS)


def test_every_span_is_documented_with_its_attributes() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", page("traces.md"), re.MULTILINE)
    expected = [
        (name, each.kind, each.parent, ", ".join(f"`{attribute}`" for attribute in each.attributes), each.meaning)
        for name, each in SPANS.items()
    ]
    assert rows == expected


def test_every_finding_of_the_schema_check_is_documented() -> None:
    section = page("cli.md").partition("| `code` | what was found |")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)) == FINDING_CODES


def test_every_kind_of_violation_that_the_ledgers_check_finds_is_documented() -> None:
    section = page("ledger.md").partition("| `kind` | invariant | what is wrong |")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", section, re.MULTILINE)
    assert {kind: (int(number), text) for kind, number, text in rows} == KINDS


def test_every_kind_of_difference_is_documented() -> None:
    section = page("cli.md").partition("| `kind` | how the document differs |")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == sorted(DifferenceKind)


def test_every_error_is_documented_with_its_status_code_and_retry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (yes|no) \|", page("http-errors.md"), re.MULTILINE)
    expected = [
        (kind.error.__name__, str(kind.status), kind.code, "yes" if kind.retry_after else "no") for kind in PROBLEMS
    ]
    assert rows == expected


def test_every_condition_is_documented_with_its_arguments() -> None:
    section = page("queries.md").partition("## Conditions\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", section, re.MULTILINE)
    expected = {
        condition.__name__: "..." if condition in (All, AnyOf) else ", ".join(inspect.signature(condition).parameters)
        for condition in Condition.__subclasses__()
    }
    assert dict(documented) == expected


@pytest.mark.parametrize("query", [Query, Summary])
def test_every_part_of_a_query_is_documented(query: type[Query] | type[Summary]) -> None:
    section = page("queries.md").partition(f"## {query.__name__}\n")[2].partition("\n## ")[0]
    table = section.partition("| default |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(query.__dataclass_fields__)


def test_every_problem_of_a_request_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", page("http-errors.md"), re.MULTILINE)
    assert rows == [(str(status), code, title) for status, (code, title) in HTTP_PROBLEMS.items()]


def test_the_reference_of_the_ledgers_http_api_is_what_its_openapi_document_says() -> None:
    assert page("http-api.md") == http_reference(), "write it anew with `make reference`"


def test_no_prose_of_the_http_reference_is_indented_like_code() -> None:
    lines = page("http-api.md").splitlines()
    assert [line for line in lines if line.startswith("    ")] == []


def test_the_reference_of_the_ledgers_http_api_begins_with_links_to_all_its_sections() -> None:
    text = page("http-api.md")
    contents, _, sections = text.partition("\n## ")
    linked = re.findall(r"\[([^\]]+)\]\(#([\w-]+)\)", contents)
    headings = re.findall(r"^##+ (.+)$", f"## {sections}", re.MULTILINE)
    assert [name for name, _ in linked] == headings
    anchors = [anchor_of(heading) for heading in headings]
    assert [anchor for _, anchor in linked] == anchors
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#([\w-]+)\)", sections)) <= set(anchors)
