"""Projections: what is declared wrongly is said at import."""

from typing import Any

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


def test_methods_that_fold_one_event_do_so_in_the_order_of_the_class_those_of_its_bases_first() -> None:
    class Zigzag(Projection):
        document = Row

        @on(Thing.Made)
        def zig(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
            return Row(1)

        @on(Thing.Made)
        def also(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
            return Row(2)

    class More(Zigzag):
        @on(Thing.Made)
        def below(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
            return Row(3)

        @on(Thing.Seen)
        def zig(self, row: Row | None, event: object, at: RecordedEvent) -> Row:
            return Row(4)

    assert [fold.method for fold in folds_of(Zigzag())["Thing.Made"]] == ["zig", "also"]
    assert [fold.method for fold in folds_of(More())["Thing.Made"]] == ["also", "below"]


def test_one_method_does_not_fold_an_event_twice_into_one_document() -> None:
    with pytest.raises(DefinitionError, match=r"Twice\.seen folds Thing\.Made twice"):

        class Twice(Projection):
            document = Row

            @on(Thing.Made)
            @on(Thing.Made, Thing.Seen)
            def seen(self, row: Row | None, event: object, at: RecordedEvent) -> Row:
                return Row(1)


def test_a_document_is_not_begun_by_an_event_that_was_folded_into_it() -> None:
    with pytest.raises(DefinitionError, match=r"Late\.begun begins a document .* which counted has folded"):

        class Late(Projection):
            document = Row

            @on(Thing.Made)
            def counted(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)

            @on(Thing.Made, creates=True)
            def begun(self, row: None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(2)


def test_a_method_that_replaces_a_fold_says_what_it_folds() -> None:
    with pytest.raises(DefinitionError, match=r"Silent\.seen replaces a method that folds events"):

        class Silent(SeenThings):
            def seen(self, row: Row | None, event: object, at: RecordedEvent) -> Row:
                return Row(1)


def test_a_fold_is_a_plain_method_and_may_ask_for_the_key() -> None:
    class Keyed(Projection):
        document = Row

        @on(Thing.Made)
        def made(self, row: Row | None, event: Thing.Made, at: RecordedEvent, key: str) -> Row:
            return Row(len(key))

    assert folds_of(Keyed())["Thing.Made"][0].takes_key
    with pytest.raises(DefinitionError, match="may take `key` after them"):

        class Other(Projection):
            document = Row

            @on(Thing.Made)
            def made(self, row: Row | None, event: Thing.Made, at: RecordedEvent, place: str) -> Row:
                return Row(1)

    with pytest.raises(DefinitionError, match="it waits for nothing"):

        class Waiting(Projection):
            document = Row

            @on(Thing.Made)
            async def made(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)

    with pytest.raises(DefinitionError, match="must be a plain method"):

        class Static(Projection):
            document = Row

            @staticmethod
            @on(Thing.Made)
            def made(row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)


@pytest.mark.parametrize("key", ["name", lambda event: "x"])
def test_a_key_function_takes_the_event_and_its_place(key: Any) -> None:
    with pytest.raises(DefinitionError, match=r"must be a function that takes \(event, at\)"):

        class Keyed(Projection):
            document = Row

            @on(Thing.Made, key=key)
            def made(self, row: Row | None, event: Thing.Made, at: RecordedEvent) -> Row:
                return Row(1)


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
