"""Orders in two versions of the code, and counters with two of one reaction, as while a new version is deployed."""

from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from cqrskit import Aggregate, Application, Command, Reaction, RecordedEvent, Repository, event, handles, on, upcasts
from tests.integration.counting import Counter, Grow, grow, label, require

GROWN, LABELLED = 1_000, 1_000_000


def echo_of(counter_id: UUID) -> UUID:
    """The counter that grows by GROWN when this one has grown, and by LABELLED when it was given a name."""
    return uuid5(NAMESPACE_OID, str(counter_id))


def _echo(event: Counter.Grown, at: RecordedEvent) -> Command | None:
    return None if event.by in (GROWN, LABELLED) else Grow(counter_id=echo_of(at.stream_id), by=GROWN)


class OldEcho(Reaction):
    """Reacts to growth only."""

    name = "echo"
    begin = "start"

    @on(Counter.Grown)
    def grown(self, event: Counter.Grown, at: RecordedEvent) -> Command | None:
        """Say so."""
        return _echo(event, at)


class NewEcho(Reaction):
    """Reacts to names too."""

    name = "echo"
    begin = "start"

    @on(Counter.Grown)
    def grown(self, event: Counter.Grown, at: RecordedEvent) -> Command | None:
        """Say so."""
        return _echo(event, at)

    @on(Counter.Labelled)
    def labelled(self, event: Counter.Labelled, at: RecordedEvent) -> Command:
        """Say so."""
        return Grow(counter_id=echo_of(at.stream_id), by=LABELLED)


old_echoing = Application("echoing", aggregates=[Counter], handlers=[grow, label, require], reactions=[OldEcho])
new_echoing = Application("echoing", aggregates=[Counter], handlers=[grow, label, require], reactions=[NewEcho])


class Place(Command):
    """Place an order; with `ship` it is shipped by a due command."""

    order_id: UUID
    ship: bool = False


class Ship(Command):
    """Ship an order, once."""

    order_id: UUID


def ordering(version: int, *, reacts: bool) -> Application:
    """The code that makes orders of this version; with `reacts` each is shipped because it was placed."""

    class Order(Aggregate):
        class Placed(Aggregate.Created, version=version):
            version: int

        class Shipped(Aggregate.Event):
            pass

        @event(Placed)
        def __init__(self, version: int) -> None:
            self.shipped = False

        @event(Shipped)
        def ship(self) -> None:
            self.shipped = True

    @handles(Place)
    def place(command: Place, repository: Repository) -> None:
        repository.create(Order, command.order_id, version=version)
        if command.ship:
            repository.schedule(Ship(order_id=command.order_id), at=repository.now, key=str(command.order_id))

    @handles(Ship)
    def ship(command: Ship, repository: Repository) -> bool:
        order = repository.get(Order, command.order_id)
        if not order.shipped:
            order.ship()
        return order.shipped

    class Shipping(Reaction):
        begin = "start"

        @on(Order.Placed)
        def placed(self, event: Order.Placed, at: RecordedEvent) -> Command:
            return Ship(order_id=at.stream_id)

    @upcasts(Order.Placed, from_version=1)
    def placed_v1(data: dict[str, Any]) -> dict[str, Any]:
        return data

    return Application(
        "ordering",
        aggregates=[Order],
        handlers=[place, ship],
        reactions=[Shipping] if reacts else [],
        upcasters=[placed_v1] if version > 1 else [],
    )
