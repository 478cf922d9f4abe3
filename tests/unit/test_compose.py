"""compose.yaml and the Dockerfile, checked as far as this goes without a container engine."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rich_click as click
import yaml

from cqrskit import Settings
from cqrskit.cli import cqrskit_group
from cqrskit.cli.wiring import application_of
from example_ledger.cli import ledger_group

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "projector", "api")
PROGRAMS: dict[str, click.Group] = {"cqrskit": cqrskit_group, "ledger": ledger_group}
KEYS = {
    *("build", "command", "depends_on", "environment", "healthcheck", "image", "mem_limit", "ports", "read_only"),
    *("restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "volumes"),
}


def test_it_has_the_services_and_nothing_that_compose_does_not_know() -> None:
    assert set(SERVICES) == {"postgres", "elasticsearch", *OURS}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_limited_pinned_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    if name not in OURS:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?", service["image"]), "an image has an exact version"
    if name == "migrate":
        assert service["restart"] == "no"
    else:
        assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
        assert service["restart"] == "unless-stopped"


def test_dependencies_and_volumes_exist_and_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for other, wish in service.get("depends_on", {}).items():
            condition = wish["condition"]
            assert condition in ("service_healthy", "service_started", "service_completed_successfully")
            assert condition != "service_healthy" or "healthcheck" in SERVICES[other]
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], "data live in named volumes only"


@pytest.mark.parametrize("name", OURS)
def test_our_settings_and_commands_are_real(name: str) -> None:
    service = SERVICES[name]
    fields = {f"CQRSKIT_{field.name.upper()}" for field in msgspec.structs.fields(Settings)}
    assert set(service["environment"]) <= fields
    commands = [service["command"]]
    test = service.get("healthcheck", {}).get("test", ["CMD", "python"])
    if test[1] in PROGRAMS:
        commands.append(test[1:])
    for program, *arguments in commands:
        command = PROGRAMS[program].commands[arguments[0]]
        context = command.make_context(arguments[0], arguments[1:], resilient_parsing=False)
        if context.params.get("app"):
            assert application_of(context.params["app"]).name == "ledger"


def test_the_dockerfile_copies_what_is_there_and_what_the_context_has() -> None:
    build = COMPOSE["services"]["api"]["build"]
    dockerfile = (ROOT / build["dockerfile"]).read_text()
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    assert set(copied) == kept
    for source in copied:
        assert (ROOT / source).exists()
    assert dockerfile.rindex("USER ledger") < dockerfile.rindex("CMD")
