"""Commands and their handlers: what is wired wrongly is said at import."""

from uuid import UUID, uuid4

import msgspec
import pytest

from cqrskit import Application, Command, DefinitionError, Repository, handles
from cqrskit.commands import uuids_of
from cqrskit.errors import UnknownCommand


class Leg(msgspec.Struct, frozen=True):
    """Part of a command."""

    account_id: UUID
    amount: int


class Post(Command):
    """With ids in many places."""

    one_id: UUID
    other_id: UUID | None
    legs: tuple[Leg, ...]
    note: str = ""


class Nothing(Command):
    """Without a handler."""


@handles(Post)
def post(command: Post, repository: Repository) -> None:
    """Do nothing."""


def test_ids_are_found_wherever_they_are() -> None:
    one, two, three = uuid4(), uuid4(), uuid4()
    found: set[UUID] = set()
    uuids_of(Post(one_id=one, other_id=None, legs=(Leg(two, 1), Leg(three, 2))), found)
    assert found == {one, two, three}


def test_commands_are_frozen_and_compare_by_content() -> None:
    one = uuid4()
    assert Post(one_id=one, other_id=None, legs=()) == Post(one_id=one, other_id=None, legs=())
    with pytest.raises(AttributeError):
        Nothing().note = "x"  # type: ignore[attr-defined]


def test_an_unknown_field_is_refused_where_a_command_is_read() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.json.decode(b'{"colour":"red"}', type=Nothing)


def test_handlers_are_checked_when_the_application_is_made() -> None:
    def unmarked(command: Post, repository: Repository) -> None: ...

    @handles(Post)
    def second(command: Post, repository: Repository) -> None: ...

    @handles(Nothing)
    async def asynchronous(command: Nothing, repository: Repository) -> None: ...

    for handlers, message in (
        ([unmarked], "add @handles"),
        ([post, second], "Post has two handlers"),
        ([asynchronous], "a plain function"),
    ):
        with pytest.raises(DefinitionError, match=message):
            Application("x", aggregates=[], handlers=handlers)


def test_a_command_without_a_handler_is_named() -> None:
    with pytest.raises(UnknownCommand, match="Nothing"):
        Application("x", aggregates=[], handlers=[post]).handlers.handler_of(Nothing())
