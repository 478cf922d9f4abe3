"""Checking: does the code still read what was stored, and is what is stored still what the files say?"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from cqrskit.errors import ConfigurationError, EventDecodeError, UnknownEventType
from cqrskit.event_store import EventStore
from cqrskit.event_versions import base_of, stored_names_of
from cqrskit.events import EventRegistry, RecordedEvent
from cqrskit.schema.frozen import Finding, FrozenVersion, path_of, read_folder
from cqrskit.schema.shape import adds_only_defaults, difference, shape_of

__all__ = ["FINDINGS_MAX", "CheckReport", "change_of", "check", "check_log", "findings_of_payload"]

FINDINGS_MAX = 100
"""Most findings in a log that are kept."""
SAMPLED_AT_ONCE_MAX = 100
SHOWN_MAX = 200
"""Characters of a payload that a finding shows."""


class CheckReport(msgspec.Struct):
    """How much was looked at, and what is wrong. `events` are those of the log."""

    versions: int = 0
    payloads: int = 0
    events: int = 0
    findings: list[Finding] = []


def check(registry: EventRegistry, folder: Path) -> CheckReport:
    """Hold an application's events to the frozen versions of a folder; ConfigurationError if there is none."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}: name it with --folder, or run `cqrskit schema freeze`")
    frozen, findings = read_folder(folder)
    report = CheckReport(versions=len(frozen), findings=findings)
    unreadable = {finding.stored_name for finding in findings}
    for event_class in registry.event_classes:
        for stored_name in stored_names_of(event_class):
            if stored_name not in frozen.keys() | unreadable:
                findings.append(_not_frozen(event_class, stored_name, folder))
    for stored_name, version in frozen.items():
        if registry.is_retired(stored_name):
            continue
        if stored_name not in registry:
            findings.append(_unknown(registry, stored_name, path_of(folder, stored_name)))
            continue
        findings += _findings_of_version(registry, version)
        report.payloads += len(version.payloads)
    return report


async def check_log(
    registry: EventRegistry,
    event_store: EventStore,
    *,
    block_size: int,
    sample: int | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> CheckReport:
    """Read a log's events, or about `sample` of them spread evenly over it, as the application would.

    A fault that many events have is one finding, with the position of the first. At most `FINDINGS_MAX` are kept and
    one block of events is held, so that memory stays flat. `on_progress` is told the position and the head.
    """
    report = CheckReport()
    seen = _Distinct()
    head = await event_store.head()
    for after, limit in _blocks(head, block_size, sample):
        block = await event_store.read(after, limit)
        for recorded in block.events:
            report.events += 1
            for finding in _findings_of_event(registry, recorded):
                if len(report.findings) < FINDINGS_MAX and seen.is_new(finding):
                    report.findings.append(msgspec.structs.replace(finding, position=recorded.position))
        on_progress(block.until, head)
    return report


def change_of(event_class: type[Any], frozen: FrozenVersion) -> Finding:
    """The finding that a class is not what was frozen as its version."""
    name, version, before = event_class.__qualname__, event_class.stored_version, frozen.fields or {}
    message = (
        f"{name} has changed since version {version} was frozen ({difference(before, shape_of(event_class))}): give it "
        f"version={version + 1} and write @upcasts({name}, from_version={version})"
    )
    if frozen.fields is not None and adds_only_defaults(before, event_class):
        message += "; or keep the version with `cqrskit schema freeze --compatible`, for only defaults were added"
    return Finding("changed", event_class.stored_name, message)


def findings_of_payload(registry: EventRegistry, stored_name: str, payload: bytes) -> list[Finding]:
    """What is wrong with a payload of a declared version: it cannot be read, loses a field, or is never the same."""
    recorded = RecordedEvent(1, UUID(int=0), 1, stored_name, payload, b"{}", datetime.fromtimestamp(0, UTC))
    findings = list(_findings_of_event(registry, recorded))
    if not findings and registry.decode(recorded) != registry.decode(recorded):
        message = "comes out differently each time: upcasters and defaults must be pure"
        findings.append(Finding("unstable", stored_name, message, _shown(recorded)))
    return findings


def _findings_of_version(registry: EventRegistry, version: FrozenVersion) -> Iterable[Finding]:
    event_class = registry.class_of(version.stored_name)
    if version.stored_name == event_class.stored_name and version.fields != shape_of(event_class):
        yield change_of(event_class, version)
    if not version.payloads:
        message = "has no golden payload, so nothing shows that it can still be read: write one into its examples"
        yield Finding("no_payload", version.stored_name, message)
    seen = _Distinct()
    for payload in version.payloads:
        yield from filter(seen.is_new, findings_of_payload(registry, version.stored_name, payload))


class _Distinct:
    """Tells findings that say the same, be it of another payload."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str]] = set()

    def is_new(self, finding: Finding) -> bool:
        key = (finding.code, finding.stored_name, finding.message)
        new = key not in self._seen
        self._seen.add(key)
        return new


def _findings_of_event(registry: EventRegistry, recorded: RecordedEvent) -> Iterable[Finding]:
    name = recorded.type
    try:
        registry.decode(recorded)
        if not registry.is_retired(name):
            yield from _lost_fields(registry, recorded)
    except UnknownEventType as error:
        yield Finding("unknown_type", name, str(error), _shown(recorded))
    except EventDecodeError as error:
        yield Finding("undecodable", name, error.reason, _shown(recorded))


def _lost_fields(registry: EventRegistry, recorded: RecordedEvent) -> Iterable[Finding]:
    """Fields that silently go: those that the class does not have, and those that it has but the upcasters drop."""
    event_class: Any = registry.class_of(recorded.type)
    known = {*event_class.__struct_encode_fields__, event_class.__struct_config__.tag_field}
    current = registry.upcast(recorded)
    for field in sorted(current.keys() - known):
        message = (
            f"{event_class.stored_name} has no field {field!r}, so its value would be lost: declare it, or remove it "
            "in an upcaster to say that it may go"
        )
        yield Finding("lost_field", recorded.type, message, _shown(recorded))
    stored = msgspec.json.decode(recorded.data, type=dict[str, Any])
    for field in sorted(stored.keys() & known - current.keys()):
        message = f"{event_class.stored_name} has the field {field!r}, but the upcasters drop its value"
        yield Finding("lost_field", recorded.type, message, _shown(recorded))


def _not_frozen(event_class: type[Any], stored_name: str, folder: Path) -> Finding:
    if stored_name == event_class.stored_name:
        message = "is not frozen: run `cqrskit schema freeze` and commit its file"
    else:
        message = (
            "is an old version that is not frozen: freeze it with the code that declared it, or run `cqrskit schema "
            f"freeze --from-log`, or write {path_of(folder, stored_name)} with its stored_name and examples"
        )
    return Finding("not_frozen", stored_name, message)


def _unknown(registry: EventRegistry, stored_name: str, path: Path) -> Finding:
    newest = [each for each in registry.event_classes if base_of(each.stored_name) == base_of(stored_name)]
    if newest:
        message = f"is frozen, but {newest[0].__qualname__} has only version {newest[0].stored_version}"
    else:
        message = (
            "is frozen, but no aggregate declares it: keep the event, name it in Application(retired=[...]), or "
            f"remove {path} if it was never stored"
        )
    return Finding("unknown_type", stored_name, message)


def _blocks(head: int, block_size: int, sample: int | None) -> Iterable[tuple[int, int]]:
    """Where to read and how much: the whole log, or blocks of it at equal distances."""
    size = block_size if sample is None else min(sample, block_size, SAMPLED_AT_ONCE_MAX)
    distance = size if sample is None or sample >= head else max(head * size // sample, size)
    for after in range(0, head, distance):
        yield after, min(size, head - after)


def _shown(recorded: RecordedEvent) -> str:
    text = " ".join(recorded.data.decode("utf-8", "replace").split())
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
