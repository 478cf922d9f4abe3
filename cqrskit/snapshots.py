"""Snapshots: an aggregate's state as JSON, so that a long stream loads without replaying it.

The state is that of the class's annotated attributes::

    class Account(Aggregate):
        owner: str
        balance: int

An aggregate class without annotations has no snapshots. One whose instances hold an attribute that is not annotated
has none either, since it would come back without it; the log says so once. The fingerprint of the attributes and their
types goes with each snapshot: one of another shape is never trusted. When only the folding has changed, raise the
class's `snapshot_version`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, ClassVar, get_origin, get_type_hints
from uuid import UUID

import msgspec
import structlog

from cqrskit.aggregate import Aggregate
from cqrskit.errors import DefinitionError
from cqrskit.event_store import Snapshot

__all__ = ["SnapshotCodec", "SnapshotSaver"]

log = structlog.get_logger(__name__)

FINISH_TIMEOUT_SECONDS = 5.0
OWN_ATTRIBUTES = {"_id", "_version", "_created_on", "_modified_on", "_pending_events"}
"""What every aggregate has beside its own state."""


class _Place(msgspec.Struct, frozen=True):
    created_on: datetime
    modified_on: datetime


class _Shape(msgspec.Struct):
    """How the instances of one class are kept."""

    aggregate_class: type[Aggregate]
    names: frozenset[str]
    fingerprint: str
    decoder: msgspec.json.Decoder[Any]
    usable: bool = True


class SnapshotCodec:
    """Makes snapshots of aggregates and aggregates of snapshots, for the classes of one application."""

    def __init__(self, aggregate_classes: Iterable[type[Aggregate]]) -> None:
        """An annotation that JSON cannot hold raises DefinitionError."""
        found = [_shape_of(each) for each in aggregate_classes]
        self._by_class = {each.aggregate_class: each for each in found if each is not None}
        self._by_fingerprint = {each.fingerprint: each for each in self._by_class.values()}
        self._encode = msgspec.json.Encoder().encode

    @property
    def shapes(self) -> list[str]:
        """The fingerprints that `restore` knows."""
        return list(self._by_fingerprint)

    def take(self, aggregate: Aggregate, position: int) -> Snapshot | None:
        """The aggregate as it is now; None if its class cannot be kept. The caller sees to its being durable."""
        shape = self._by_class.get(type(aggregate))
        if shape is None or not shape.usable:
            return None
        state = {name: value for name, value in vars(aggregate).items() if name not in OWN_ATTRIBUTES}
        try:
            snapshot = self._snapshot_of(aggregate, state, shape, position)
            restored = vars(self.restore(snapshot))
            unlike = [name for name, value in state.items() if restored[name] != value]
            reason = f"these come back from JSON otherwise: {', '.join(unlike)}" if unlike else ""
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if not reason:
            return snapshot
        shape.usable = False
        log.warning("snapshots.impossible", aggregate=type(aggregate).__name__, reason=reason)
        return None

    def _snapshot_of(self, aggregate: Aggregate, state: dict[str, Any], shape: _Shape, position: int) -> Snapshot:
        not_both = ", ".join(sorted(state.keys() ^ shape.names))
        if not_both:
            raise TypeError(f"not annotated, or not set: {not_both}")
        place = _Place(aggregate.created_on, aggregate.modified_on)
        encoded = self._encode({"place": place, "state": state})
        return Snapshot(aggregate.id, aggregate.version, position, shape.fingerprint, encoded)

    def restore(self, snapshot: Snapshot) -> Aggregate:
        """The aggregate that a snapshot was taken of; its shape must be one of `shapes`."""
        shape = self._by_fingerprint[snapshot.shape]
        kept = shape.decoder.decode(snapshot.state)
        aggregate = shape.aggregate_class.__new__(shape.aggregate_class)
        aggregate.__base_init__(snapshot.stream_id, snapshot.stream_version, kept.place.created_on)
        aggregate.__dict__["_modified_on"] = kept.place.modified_on
        for name in shape.names:
            aggregate.__dict__[name] = getattr(kept.state, name)
        return aggregate


class SnapshotSaver:
    """Saves snapshots behind the callers' backs: late ones, or lost ones, cost nothing but time."""

    def __init__(self, save: Callable[[Sequence[Snapshot]], Awaitable[None]]) -> None:
        self._save = save
        self._due: dict[UUID, Snapshot] = {}
        self._wake = asyncio.Event()

    def add(self, snapshot: Snapshot) -> None:
        """Save this one soon; a newer one of the same stream takes its place."""
        self._due[snapshot.stream_id] = snapshot
        self._wake.set()

    async def run(self) -> None:
        """Save what is due whenever there is something, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.save()

    async def finish(self) -> None:
        """Save what is due, but let nobody wait for it for long: a stop is more than a snapshot."""
        due = len(self._due)
        try:
            async with asyncio.timeout(FINISH_TIMEOUT_SECONDS):
                await self.save()
        except TimeoutError:
            log.warning("snapshots.not_saved", snapshots=due, reason=f"not within {FINISH_TIMEOUT_SECONDS:g} s")

    async def save(self) -> None:
        """Save what is due now. What is cancelled meanwhile is due again."""
        due, self._due = self._due, {}
        if due:
            try:
                await self._save(list(due.values()))
            except asyncio.CancelledError:
                self._due = {**due, **self._due}
                raise
            except Exception as error:
                log.warning("snapshots.not_saved", snapshots=len(due), reason=str(error))


def _shape_of(aggregate_class: type[Aggregate]) -> _Shape | None:
    try:
        hints = _state_of(aggregate_class)
        if not hints:
            return None
        state = msgspec.defstruct("State", list(hints.items()))
        decoder = msgspec.json.Decoder(msgspec.defstruct("Kept", [("place", _Place), ("state", state)]))
        schema = msgspec.json.schema(state)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            f"the annotated attributes of {aggregate_class.__name__} cannot be kept in a snapshot: {error}; annotate "
            "them with types that JSON can hold, or with none"
        ) from error
    text = msgspec.json.encode([aggregate_class.__name__, aggregate_class.snapshot_version, schema], order="sorted")
    fingerprint = blake2b(text, digest_size=16).hexdigest()
    return _Shape(aggregate_class, frozenset(hints), fingerprint, decoder)


def _state_of(aggregate_class: type[Aggregate]) -> dict[str, Any]:
    """The attributes that are annotated in the body of the class or of its bases, up to Aggregate."""
    own = get_type_hints(Aggregate)
    return {
        name: hint
        for name, hint in get_type_hints(aggregate_class).items()
        if name not in own and get_origin(hint) is not ClassVar and not name.startswith("_")
    }
