"""A school: an application of the eventsourcing library, as its users write them."""

from functools import singledispatchmethod
from uuid import UUID

from eventsourcing.application import Application, ProcessingEvent
from eventsourcing.domain import Aggregate, DomainEventProtocol, event
from eventsourcing.persistence import Tracking
from eventsourcing.projection import EventSourcedProjection, Projection

from cqrskit.postgres.recorder import TrackingTableRecorder


class Dog(Aggregate):
    """A dog learns."""

    @event("Registered")
    def __init__(self, name: str) -> None:
        self.name = name
        self.tricks: list[str] = []

    @event("TrickAdded")
    def add_trick(self, trick: str) -> None:
        """Learn one more."""
        self.tricks.append(trick)


class School(Application[UUID]):
    """Keeps dogs; takes a snapshot of each second version."""

    snapshotting_intervals = {Dog: 2}

    def register(self, name: str) -> UUID:
        """A new dog."""
        dog = Dog(name)
        self.save(dog)
        return dog.id

    def add_trick(self, dog_id: UUID, trick: str) -> int:
        """Teach it; the position of the event."""
        dog: Dog = self.repository.get(dog_id)
        dog.add_trick(trick)
        (recording,) = self.save(dog)
        return recording.notification.id

    def tricks_of(self, dog_id: UUID) -> list[str]:
        """What it knows."""
        dog: Dog = self.repository.get(dog_id)
        return dog.tricks


TRICK_ADDED = "tests.integration.school:Dog.TrickAdded"


class Diploma(Aggregate):
    """What a dog gets for a trick."""

    @event("Awarded")
    def __init__(self, trick: str) -> None:
        self.trick = trick


class Diplomas(EventSourcedProjection[UUID]):
    """Awards a diploma for each trick, recorded together with the notification that it came from."""

    topics = (TRICK_ADDED,)

    @singledispatchmethod
    def policy(self, domain_event: DomainEventProtocol[UUID], processing_event: ProcessingEvent[UUID]) -> None:
        """Answer an event."""
        processing_event.collect_events(Diploma(trick=domain_event.trick))  # type: ignore[attr-defined]


class TricksView(TrackingTableRecorder):
    """A view of a user's own: here only the tracking, counted."""


class Tricks(Projection[TricksView]):
    """Follows the tricks."""

    topics = (TRICK_ADDED,)

    def process_event(self, domain_event: object, tracking: Tracking) -> None:
        """Record that it was seen."""
        self.view.insert_tracking(tracking)
