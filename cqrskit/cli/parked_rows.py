"""Parked keys as they are shown: in tables, one by one, and as JSON."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from cqrskit.checkpoints import Generation, ParkedKey
from cqrskit.cli.events import event_fields
from cqrskit.cli.operating import counted, show_table
from cqrskit.events import RecordedEvent

__all__ = ["ParkedRow", "row_of", "show_key", "show_list"]

ERROR_LENGTH_MAX = 200


class ParkedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One parked key, for machines."""

    projection: str
    generation: int
    key: str
    position: int
    error: str
    events_waiting: int
    parked_at: datetime | None
    retry_requested: bool


def row_of(generation: Generation, key: ParkedKey) -> ParkedRow:
    """A parked key as a row."""
    fields = msgspec.structs.asdict(key)
    del fields["owner"]  # says nothing to people
    return ParkedRow(projection=generation.projection, generation=generation.number, **fields)


def show_list(rows: Sequence[ParkedRow], as_json: bool) -> None:
    """Print the keys as a table, or as JSON."""
    if as_json:
        print(msgspec.json.encode(rows).decode())
        return
    if not rows:
        print("no key is parked")
        return
    show_table(
        ("projection", "generation", "key", "position", "events waiting", "parked at", "error"),
        (
            (
                row.projection,
                row.generation,
                row.key,
                row.position,
                row.events_waiting,
                _moment(row.parked_at),
                f"{row.error[:ERROR_LENGTH_MAX]}{' (a retry is asked for)' if row.retry_requested else ''}",
            )
            for row in rows
        ),
    )


def show_key(row: ParkedRow, event: RecordedEvent | None, as_json: bool) -> None:
    """Print one key with the event that failed, as text or as JSON."""
    fields = None if event is None else event_fields(event)
    if as_json:
        print(msgspec.json.encode({**msgspec.structs.asdict(row), "event": fields}).decode())
        return
    lines = [
        ("projection", f"{row.projection}, generation {row.generation}"),
        ("key", row.key),
        ("error", row.error),
        ("parked at", _moment(row.parked_at)),
        ("waiting", f"about {counted(row.events_waiting, 'event')} behind it"),
        ("retry", "asked for" if row.retry_requested else "not asked for"),
        ("position", str(row.position)),
    ]
    if fields is not None:
        lines += [(name, _text(fields[name])) for name in ("type", "stream_id", "stream_version", "recorded_at")]
        data = "data" if fields["data"] is not None else "data_base64"
        lines += [(name, _text(fields[name])) for name in (data, "metadata")]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _text(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text.strip('"') if not isinstance(value, msgspec.Raw) else text


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
