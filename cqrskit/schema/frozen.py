"""The files of frozen versions: one for each stored name, in a folder that belongs to the code's repository."""

from pathlib import Path
from urllib.parse import quote, unquote

import msgspec

from cqrskit.errors import ConfigurationError

__all__ = ["FINDING_CODES", "Finding", "FrozenVersion", "path_of", "read_folder", "write"]


FINDING_CODES = {
    "changed": "an event's fields are not those that were frozen for its version",
    "lost_field": "reading a payload would lose a field's value",
    "no_payload": "a frozen version has no payload to try",
    "not_frozen": "a declared version has no file",
    "undecodable": "a payload cannot be read: an upcaster fails, or the result does not fit the class",
    "unknown_type": "a frozen or stored version is neither declared nor retired",
    "unreadable": "a file is not that of a frozen version",
    "unstable": "a payload is read differently each time",
}
"""Words for machines, and what was found."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is wrong with a stored version. `payload` is the first one that shows it, shortened.

    `code` is one of `FINDING_CODES`, `position` that of an event of the log.
    """

    code: str
    stored_name: str
    message: str
    payload: str | None = None
    position: int | None = None


class FrozenVersion(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One stored version of an event. `fields` is None if only payloads are known.

    `examples` were made from the annotations or written by hand, `from_log` are real ones.
    """

    stored_name: str
    fields: dict[str, str] | None = None
    examples: list[msgspec.Raw] = []
    from_log: list[msgspec.Raw] = []

    @property
    def payloads(self) -> list[bytes]:
        """All golden payloads, as compact JSON."""
        return [msgspec.json.format(bytes(each), indent=-1) for each in (*self.examples, *self.from_log)]


def path_of(folder: Path, stored_name: str) -> Path:
    """The file of a stored version."""
    return folder / f"{quote(stored_name, safe='@')}.json"


def read_folder(folder: Path) -> tuple[dict[str, FrozenVersion], list[Finding]]:
    """The frozen versions by stored name, and what is wrong with files that cannot be used."""
    versions: dict[str, FrozenVersion] = {}
    findings = []
    for path in sorted(folder.glob("*.json")):
        stored_name = unquote(path.stem)
        try:
            version = msgspec.json.decode(path.read_bytes(), type=FrozenVersion)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            message = f"{path} is not the file of a frozen version: {error}"
            findings.append(Finding("unreadable", stored_name, message))
            continue
        if version.stored_name != stored_name:
            message = f"{path} holds {version.stored_name}: name it {path_of(folder, version.stored_name).name}"
            findings.append(Finding("unreadable", stored_name, message))
            continue
        versions[version.stored_name] = version
    return versions, findings


def write(folder: Path, version: FrozenVersion) -> Path:
    """Write a version's file, indented for people; ConfigurationError if that cannot be done."""
    path = path_of(folder, version.stored_name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(version), indent=2) + b"\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; choose another --folder") from error
    return path
