"""What is wrong with versions of events and their upcasters is said at start-up."""

from typing import Any

import pytest

from cqrskit import (
    Aggregate,
    DefinitionError,
    upcasts,
)
from cqrskit.event_versions import Upcaster
from tests.unit.versioned_account import (
    STEPS,
    Account,
    Other,
    application,
    credited_v1,
    credited_v2,
    noted_v1,
)


def marked(*classes: type[Any], from_version: int) -> Upcaster:
    @upcasts(*classes, from_version=from_version)
    def step(data: dict[str, Any]) -> dict[str, Any]:
        return data

    return step


async def waits(data: dict[str, Any]) -> dict[str, Any]:
    return data


def takes_two(data: dict[str, Any], more: int) -> dict[str, Any]:
    return data


def with_step(function: Any) -> list[Any]:
    return [upcasts(Account.Credited, from_version=1)(function), credited_v2, noted_v1]


@pytest.mark.parametrize(
    ("upcasters", "message"),
    [
        ([credited_v2, noted_v1], r"no upcaster leads from version 1 to 2: write one with @upcasts\(Account\.Credited"),
        ([credited_v1, noted_v1], "no upcaster leads from version 2 to 3"),
        ([*STEPS, marked(Account.Credited, from_version=1)], "two upcasters from version 1, credited_v1 and marked"),
        ([*STEPS, marked(Account.Credited, from_version=3)], "from version 3, but the class has version 3"),
        ([*STEPS, marked(Account.Credited, from_version=7)], "from version 7, but the class has version 3"),
        ([*STEPS, marked(Account.Credited, from_version=0)], "from version 0"),
        ([*STEPS, marked(Account.Opened, from_version=1)], "which has version 1 only"),
        (
            [*STEPS, marked(Other.Happened, from_version=1)],
            r"Other\.Happened, which is no event of an",
        ),
        ([*STEPS, lambda data: data], "does not say which event it upcasts"),
        (with_step(waits), "waits is a coroutine function"),
        (with_step(takes_two), "takes_two must take one argument"),
    ],
)
def test_a_chain_that_cannot_work_is_refused_at_start_up(upcasters: list[Upcaster], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        application(upcasters=upcasters)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2"])
def test_a_version_counts_from_one(version: Any) -> None:
    with pytest.raises(DefinitionError, match="versions of an event count"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event, version=version):
                pass


def test_a_version_is_said_by_the_class_argument_only() -> None:
    with pytest.raises(DefinitionError, match="the @ separates the version"):

        class Thing(Aggregate):
            class Happened(Aggregate.Event):
                stored_name = "happened@2"

    with pytest.raises(DefinitionError, match="sets stored_version"):

        class Another(Aggregate):
            class Happened(Aggregate.Event):
                stored_version = 2


def test_two_classes_of_one_base_name_are_refused_whatever_their_versions() -> None:
    class Thing(Aggregate):
        class Happened(Aggregate.Event, version=2):
            stored_name = "Account.Opened"

    with pytest.raises(DefinitionError, match=r"two event classes are stored as 'Account\.Opened'"):
        application(aggregates=[Account, Thing], upcasters=[*STEPS, marked(Thing.Happened, from_version=1)])
