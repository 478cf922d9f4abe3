"""Frozen versions of events: no event changes unnoticed, and every stored version can still be read."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cqrskit import Application, ConfigurationError
from cqrskit.cli import cqrskit_group
from cqrskit.cli.running import run_group
from cqrskit.schema import FreezeReport, check, freeze
from cqrskit.testing import schema_findings
from example_ledger.application import ledger
from tests.unit.schema_apps import add_currency, bank, changed, plain, second, widened

ROOT = Path(__file__).parents[2]
V1 = "Account.Credited"


def frozen(application: Application, folder: Path, **options: Any) -> FreezeReport:
    return freeze(application.registry, folder, **options)


def found(application: Application, folder: Path) -> list[tuple[str, str]]:
    return [(finding.code, finding.stored_name) for finding in check(application.registry, folder).findings]


def message(application: Application, folder: Path) -> str:
    (finding,) = check(application.registry, folder).findings
    return finding.message


def content(folder: Path, stored_name: str = V1) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"{stored_name}.json").read_text())
    return read


def test_the_events_of_the_ledger_are_as_they_were_frozen() -> None:
    assert schema_findings(ledger, ROOT / "example_ledger" / "schema") == []


# --- freezing


def test_a_frozen_version_is_a_file_for_people_with_fields_and_payloads(tmp_path: Path) -> None:
    report = frozen(second, tmp_path)
    assert report.written == ["Account.Credited@2"]
    read = content(tmp_path, "Account.Credited@2")
    assert read["fields"] == {"amount": "int", "currency": "str"}
    assert read["examples"][0] == {"amount": -(2**63), "currency": ""}
    assert read["examples"][1] == {"amount": 2**63 - 1, "currency": "a"}


def test_freezing_again_changes_nothing(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    before = (tmp_path / f"{V1}.json").read_bytes()
    report = frozen(bank(), tmp_path)
    assert (report.written, report.unchanged, report.refused) == ([], [V1], [])
    assert (tmp_path / f"{V1}.json").read_bytes() == before


def test_an_event_that_has_changed_is_not_frozen_over(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    before = (tmp_path / f"{V1}.json").read_bytes()
    for application in (changed, widened):
        (refused,) = frozen(application, tmp_path).refused
        assert refused.code == "changed"
        assert "give it version=2 and write @upcasts(Account.Credited, from_version=1)" in refused.message
        assert (tmp_path / f"{V1}.json").read_bytes() == before


def test_a_new_version_is_added_beside_the_old_one(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    assert frozen(second, tmp_path).written == ["Account.Credited@2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{V1}.json", f"{V1}@2.json"]
    assert found(second, tmp_path) == []


def test_only_fields_with_defaults_may_be_added_to_a_frozen_version(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    old = content(tmp_path)["examples"]
    assert frozen(widened, tmp_path, compatible=True).written == [V1]
    read = content(tmp_path)
    assert read["fields"] == {"amount": "int", "note": "null | str = null".replace("null | str", "str | null")}
    assert read["examples"][: len(old)] == old
    assert len(read["examples"]) > len(old)
    assert found(widened, tmp_path) == []


@pytest.mark.parametrize(
    "application",
    [
        changed,
        bank({}),
        bank({"amount": int, "note": str}),
        bank({"amount": int | None}),
        bank({"amount": int}, defaults={"amount": 0}),
        bank({"sum": int}),
    ],
)
def test_what_may_not_be_added_needs_a_version(tmp_path: Path, application: Application) -> None:
    frozen(plain, tmp_path)
    assert [each.code for each in frozen(application, tmp_path, compatible=True).refused] == ["changed"]
    assert found(application, tmp_path)[0] == ("changed", V1)


def test_a_changed_default_needs_a_version_since_it_changes_what_old_payloads_mean(tmp_path: Path) -> None:
    fields = {"amount": int, "note": str}
    frozen(bank(fields, defaults={"note": "none"}), tmp_path)
    report = frozen(bank(fields, defaults={"note": "other"}), tmp_path, compatible=True)
    assert [each.code for each in report.refused] == ["changed"]


def test_real_payloads_are_added_once_and_at_most_three(tmp_path: Path) -> None:
    payloads = {V1: [b'{"amount":%d}' % number for number in (5, 5, 6)]}
    frozen(plain, tmp_path, payloads=payloads)
    assert content(tmp_path)["from_log"] == [{"amount": 5}, {"amount": 6}]
    assert frozen(plain, tmp_path, payloads=payloads).unchanged == [V1]
    assert frozen(plain, tmp_path, payloads={V1: [b'{"amount":7}', b'{"amount":8}']}).written == [V1]
    assert content(tmp_path)["from_log"] == [{"amount": 5}, {"amount": 6}, {"amount": 7}]


def test_a_real_payload_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    report = frozen(plain, tmp_path, payloads={V1: [b'{"amount":"5"}', b'{"amount":5}']})
    assert [each.code for each in report.refused] == ["undecodable"]
    assert content(tmp_path)["from_log"] == [{"amount": 5}]


def test_an_old_version_that_nobody_froze_comes_from_the_log(tmp_path: Path) -> None:
    frozen(second, tmp_path)
    assert found(second, tmp_path) == [("not_frozen", V1)]
    assert "--from-log" in message(second, tmp_path)
    frozen(second, tmp_path, payloads={V1: [b'{"amount":5}']})
    assert content(tmp_path) == {"stored_name": V1, "from_log": [{"amount": 5}]}
    assert found(second, tmp_path) == []


# --- checking


def test_events_that_are_as_they_were_frozen_are_in_order(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    report = check(bank().registry, tmp_path)
    assert (report.versions, report.payloads, report.findings) == (1, 4, [])


def test_a_changed_event_is_found_with_what_has_changed(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    assert found(changed, tmp_path) == [("changed", V1), ("undecodable", V1)]
    assert found(widened, tmp_path) == [("changed", V1)]
    assert "note is new: str | null = null" in message(widened, tmp_path)
    assert "--compatible" in message(widened, tmp_path)


def test_an_event_that_is_not_frozen_is_found(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    assert found(bank(more=("Closed",)), tmp_path) == [("not_frozen", "Account.Closed")]


def test_a_frozen_event_that_nobody_declares_is_found_unless_it_is_retired(tmp_path: Path) -> None:
    frozen(bank(more=("Closed",)), tmp_path)
    assert found(plain, tmp_path) == [("unknown_type", "Account.Closed")]
    assert "retired=[...]" in message(plain, tmp_path)
    assert found(bank(retired=("Account.Closed",)), tmp_path) == []


def test_a_version_that_went_back_is_found(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    frozen(second, tmp_path)
    assert found(plain, tmp_path) == [("unknown_type", "Account.Credited@2")]
    assert "has only version 1" in message(plain, tmp_path)


numbers = count()


def fails(data: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("colour")


UPCASTERS = {
    "undecodable": (fails, "upcaster fails failed: KeyError: 'colour'"),
    "does not fit": (dict, "made what does not fit Account.Credited@2"),
    "too much": (lambda data: {**data, "currency": "EUR", "curency": 1}, "has no field 'curency'"),
    "too little": (lambda data: {"currency": "EUR"}, "has the field 'amount', but the upcasters drop its value"),
    "impure": (lambda data: {**data, "currency": str(next(numbers))}, "comes out differently each time"),
}


@pytest.mark.parametrize(("code", "kind"), [("undecodable", "undecodable"), ("undecodable", "does not fit")])
def test_a_payload_that_the_upcasters_cannot_bring_to_the_class_is_found(tmp_path: Path, code: str, kind: str) -> None:
    assert_found(tmp_path, code, kind)


@pytest.mark.parametrize(("code", "kind"), [("lost_field", "too much"), ("lost_field", "too little")])
def test_a_field_that_would_be_lost_is_found(tmp_path: Path, code: str, kind: str) -> None:
    assert_found(tmp_path, code, kind)


def test_an_upcaster_that_is_not_pure_is_found(tmp_path: Path) -> None:
    assert_found(tmp_path, "unstable", "impure")


def assert_found(folder: Path, code: str, kind: str) -> None:
    step, words = UPCASTERS[kind]
    frozen(plain, folder)

    def upcaster(data: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = step(data)  # type: ignore[operator]
        return made

    upcaster.__qualname__ = getattr(step, "__qualname__", kind)
    fields = {"amount": int, "currency": str}
    new = bank(fields, defaults={"amount": 0}, version=2, upcasters={1: upcaster})
    frozen(new, folder)
    assert found(new, folder) == [(code, V1)]
    assert words in message(new, folder)


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", '{"stored_name":"Account.Credited","felds":{}}', '{"stored_name":"Account.Other"}', ""]
)
def test_a_file_that_cannot_be_used_is_found_and_never_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / f"{V1}.json"
    path.write_text(text)
    codes = dict(found(plain, tmp_path))
    assert "unreadable" in codes
    assert "unreadable" in [each.code for each in frozen(plain, tmp_path).refused]
    assert path.read_text() == text


def test_a_version_without_payloads_is_found(tmp_path: Path) -> None:
    frozen(plain, tmp_path)
    path = tmp_path / f"{V1}.json"
    path.write_text(json.dumps({**content(tmp_path), "examples": []}))
    assert found(plain, tmp_path) == [("no_payload", V1)]


def test_a_folder_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder"):
        check(plain.registry, tmp_path / "missing")


def test_a_stored_name_with_signs_of_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    from cqrskit.schema.frozen import path_of

    for name in ("../Account", "a/b", "..", "a\\b"):
        assert path_of(tmp_path, name).parent == tmp_path
        assert path_of(tmp_path, name).suffix == ".json"


# --- the command


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_group(cqrskit_group, ["schema", *arguments])
    return int(ended.value.code or 0)


def app(name: str) -> tuple[str, str]:
    return ("--app", f"tests.unit.schema_apps:{name}")


def test_the_command_freezes_and_checks_and_its_exit_code_says_how_it_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--folder", str(tmp_path / "schema"))
    assert command("check", *app("plain"), *folder) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert command("freeze", *app("plain"), *folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 written, 0 unchanged"
    assert command("check", *app("plain"), *folder) == 0
    assert capsys.readouterr().out == "1 version, 4 payloads: all can be read\n"
    assert command("check", *app("widened"), *folder) == 1
    assert capsys.readouterr().out.startswith("Account.Credited: Account.Credited has changed since version 1")
    assert command("freeze", *app("widened"), *folder) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 written, 0 unchanged, 1 refused"
    assert command("freeze", *app("widened"), *folder, "--compatible") == 0
    assert command("check", *app("widened"), *folder) == 0


def test_the_command_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ("--folder", str(tmp_path))
    assert command("freeze", *app("plain"), *folder, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"written": [V1], "unchanged": [], "refused": []}
    assert command("check", *app("gone"), *folder, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["versions"] == 1
    assert [each["code"] for each in report["findings"]] == ["not_frozen"]
    assert command("check", *app("plain"), *folder, "--sample", "5", "--json") == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "configuration"


def test_a_version_upcast_from_the_frozen_one_is_in_order_for_the_command(tmp_path: Path) -> None:
    folder = ("--folder", str(tmp_path))
    assert command("freeze", *app("plain"), *folder) == 0
    assert command("freeze", *app("second"), *folder) == 0
    assert command("check", *app("second"), *folder) == 0
    assert add_currency({"amount": 1}) == {"amount": 1, "currency": "EUR"}
