"""Freezing: write the files of versions that have none, and never change what a file says about the past."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cqrskit.event_store import EventStore
from cqrskit.event_versions import stored_names_of
from cqrskit.events import EventRegistry
from cqrskit.schema.checking import change_of, findings_of_payload
from cqrskit.schema.examples import examples_of
from cqrskit.schema.frozen import Finding, FrozenVersion, read_folder, write
from cqrskit.schema.shape import adds_only_defaults, shape_of

__all__ = ["PAYLOADS_OF_LOG_MAX", "FreezeReport", "freeze", "payloads_of_log"]

PAYLOADS_OF_LOG_MAX = 3
"""Real payloads that a version keeps."""


class FreezeReport(msgspec.Struct):
    """Stored names whose files were written or were right already, and what could not be frozen."""

    written: list[str] = []
    unchanged: list[str] = []
    refused: list[Finding] = []


def freeze(
    registry: EventRegistry,
    folder: Path,
    *,
    compatible: bool = False,
    payloads: Mapping[str, Sequence[bytes]] | None = None,
) -> FreezeReport:
    """Write a file for each declared version that has none; a version that was changed is refused, its file stays.

    `compatible`: take a version over whose class only got fields with defaults since; its old payloads stay and are
    checked ever after. `payloads`: real ones by stored name (see `payloads_of_log`), which are added.
    ConfigurationError if a file cannot be written, DefinitionError if no example can be made.
    """
    frozen, unreadable = read_folder(folder)
    report = FreezeReport(refused=unreadable)
    untouched = {finding.stored_name for finding in unreadable}
    for event_class in registry.event_classes:
        for stored_name in stored_names_of(event_class):
            if stored_name in untouched:
                continue
            before = frozen.get(stored_name)
            if stored_name == event_class.stored_name:
                version = _current(event_class, before, compatible, report)
            else:
                version = before or FrozenVersion(stored_name=stored_name)
            if version is None:
                continue
            version = _with_payloads(registry, version, (payloads or {}).get(stored_name, ()), report)
            if before is not None and msgspec.json.encode(version) == msgspec.json.encode(before):
                report.unchanged.append(stored_name)
            elif version.payloads or version.fields is not None:
                write(folder, version)
                report.written.append(stored_name)
    return report


def _current(
    event_class: type[Any], before: FrozenVersion | None, compatible: bool, report: FreezeReport
) -> FrozenVersion | None:
    """What the file of the current version should hold; None if that must not be written."""
    stored_name, shape = event_class.stored_name, shape_of(event_class)
    if before is None:
        return FrozenVersion(stored_name=stored_name, fields=shape, examples=_raw(examples_of(event_class)))
    if before.fields == shape:
        return before
    if not (compatible and before.fields is not None and adds_only_defaults(before.fields, event_class)):
        report.refused.append(change_of(event_class, before))
        return None
    examples = _added(before.examples, examples_of(event_class))
    return FrozenVersion(stored_name=stored_name, fields=shape, examples=examples, from_log=before.from_log)


def _with_payloads(
    registry: EventRegistry, version: FrozenVersion, payloads: Sequence[bytes], report: FreezeReport
) -> FrozenVersion:
    """The version with real payloads added, as many as it may have; one that cannot be read is refused."""
    found = [(payload, findings_of_payload(registry, version.stored_name, payload)) for payload in payloads]
    report.refused += [finding for _, findings in found for finding in findings]
    good = [payload for payload, findings in found if not findings]
    from_log = _added(version.from_log, good)[:PAYLOADS_OF_LOG_MAX]
    return msgspec.structs.replace(version, from_log=from_log)


def _added(before: Sequence[msgspec.Raw], payloads: Sequence[bytes]) -> list[msgspec.Raw]:
    """The payloads of before and those further ones that they lack."""
    found = {_normal(bytes(each)): each for each in before}
    for payload in payloads:
        found.setdefault(_normal(payload), msgspec.Raw(payload))
    return list(found.values())


def _raw(payloads: Sequence[bytes]) -> list[msgspec.Raw]:
    return [msgspec.Raw(payload) for payload in payloads]


def _normal(payload: bytes) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(payload), order="sorted")


async def payloads_of_log(
    registry: EventRegistry,
    event_store: EventStore,
    *,
    block_size: int,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, list[bytes]]:
    """The first payloads of every declared version in the log, different ones, at most `PAYLOADS_OF_LOG_MAX` each.

    They may hold personal data. Reading ends as soon as all versions have enough. `on_progress` is told the position
    and the head.
    """
    found: dict[str, list[bytes]] = {
        name: [] for event_class in registry.event_classes for name in stored_names_of(event_class)
    }
    position, head = 0, await event_store.head()
    while position < head:
        lacking = [name for name, payloads in found.items() if len(payloads) < PAYLOADS_OF_LOG_MAX]
        if not lacking:
            break
        block = await event_store.read(position, min(block_size, head - position), lacking)
        for recorded in block.events:
            # A name without a version brings other versions with it, perhaps some that this code does not know.
            payloads = found.get(recorded.type, [])
            if len(payloads) < PAYLOADS_OF_LOG_MAX and recorded.data not in payloads:
                payloads.append(recorded.data)
        position = block.until
        on_progress(position, head)
    return found
