"""Projections: what is declared wrongly is said at import."""

import msgspec
import pytest

from cqrskit import Aggregate, Application, DefinitionError, Projection, RecordedEvent, on
from cqrskit.projection import folds_of


class Thing(Aggregate):
    """Something."""

    class Made(Aggregate.Created):
        """It is there."""

    class Seen(Aggregate.Event):
        """It was seen."""


class Row(msgspec.Struct, frozen=True):
    """A document."""

    count: int


class SeenThings(Projection):
    """How often things were seen."""

    document = Row

    @on(Thing.Made, Thing.Seen)
    def seen(self, row: Row | None, event: object, at: RecordedEvent) -> Row:
        """Count."""
        return Row(1 if row is None else row.count + 1)


def test_a_projection_has_a_name_and_one_fold_for_each_event() -> None:
    assert SeenThings.name == "seen_things"
    assert sorted(folds_of(SeenThings())) == ["Thing.Made", "Thing.Seen"]


def test_a_projection_of_events_that_the_application_lacks_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"SeenThings folds Thing\.Made"):
        Application("x", aggregates=[], handlers=[], projections=[SeenThings])
    with pytest.raises(DefinitionError, match="two projections are named"):
        Application("x", aggregates=[Thing], handlers=[], projections=[SeenThings, SeenThings])


def test_a_projection_needs_a_document() -> None:
    with pytest.raises(DefinitionError, match="needs `document"):

        class Lacking(Projection):
            @on(Thing.Made)
            def made(self, row: None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)


def test_a_projection_folds_something() -> None:
    with pytest.raises(DefinitionError, match="folds nothing"):

        class Idle(Projection):
            document = Row


def test_an_event_is_folded_once() -> None:
    with pytest.raises(DefinitionError, match=r"folds Thing\.Made twice"):

        class Twice(Projection):
            document = Row

            @on(Thing.Made)
            def one(self, row: None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)

            @on(Thing.Made)
            def two(self, row: None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(2)


def test_a_fold_takes_what_it_is_given() -> None:
    with pytest.raises(DefinitionError, match="must take"):

        class Short(Projection):
            document = Row

            @on(Thing.Made)
            def made(self, row: None) -> Row:
                return Row(1)


def test_a_name_is_one_for_tables_and_indexes() -> None:
    with pytest.raises(DefinitionError, match="Bad-Name"):

        class Named(Projection):
            name = "Bad-Name"
            document = Row

            @on(Thing.Made)
            def made(self, row: None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)


def test_only_events_can_be_folded() -> None:
    with pytest.raises(DefinitionError, match="is not an event"):

        class Wrong(Projection):
            document = Row

            @on(Row)
            def made(self, row: None, event: Row, at: RecordedEvent) -> Row:
                return Row(1)
