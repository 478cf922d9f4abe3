"""A wrong value over HTTP: the field is named, and what it must be is said in the words of whoever declared it."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated

import httpx
import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.params import FromQuery, JSONBody

from cqrskit import Command, InvalidField, Settings
from cqrskit.web import CqrskitPlugin
from tests.integration.bank import bank
from tests.integration.running_processes import bank_client
from tests.integration.test_web import problem

Plate = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Z]{2}'\d{4}$", extra={"in_words": "two capital letters, ' and four digits"})
]
Colour = Annotated[str, msgspec.Meta(pattern="^[a-z]+$")]


class Book(Command):
    """Book a car."""

    plate: Plate
    first: date
    last: date
    colour: Colour | None = None

    def __post_init__(self) -> None:
        """Refuse a booking that ends before it begins."""
        if self.last < self.first:
            raise InvalidField("last", "must not be before `first`")


class BookAll(msgspec.Struct):
    """Several at once."""

    bookings: list[Book]


@post("/bookings")
async def book_route(data: JSONBody[Book]) -> None:
    """Book a car."""


@post("/bookings/several")
async def book_all_route(data: JSONBody[BookAll]) -> None:
    """Book cars."""


class Wish(msgspec.Struct):
    """A body of its own, of which the route makes the command."""

    plate: str
    first: date
    last: date


@post("/bookings/by-hand")
async def book_by_hand_route(data: JSONBody[Wish]) -> None:
    """Book a car."""
    Book(plate=data.plate, first=data.first, last=data.last)


@get("/cars")
async def cars_route(plate: FromQuery[Plate | None] = None) -> None:
    """Find cars."""


@pytest.fixture(params=[True, False], ids=["only known parameters", "any parameters"])
async def client(postgres_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(database_url=postgres_dsn, port=0)
    plugin = CqrskitPlugin(bank, settings, only_known_parameters=request.param)
    async with bank_client(
        settings, Litestar([book_route, book_all_route, book_by_hand_route, cars_route], plugins=[plugin])
    ) as client:
        yield client


GOOD = {"plate": "AB'1234", "first": "2026-05-01", "last": "2026-05-02"}
IN_WORDS = "must be two capital letters, ' and four digits"
TOO_EARLY = "must not be before `first`"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"plate": "AB 1234"}, "plate", IN_WORDS),
        ({"last": "2026-04-30"}, "last", TOO_EARLY),
        ({"colour": "RED"}, "colour", "Expected `str` matching regex '^[a-z]+$'"),
    ],
)
async def test_a_body_is_told_the_field_and_in_words_what_it_must_be(
    client: httpx.AsyncClient, change: dict[str, str], field: str, message: str
) -> None:
    wrong = {**GOOD, **change}
    for path, body, place in (
        ("/bookings", wrong, field),
        ("/bookings/several", {"bookings": [GOOD, wrong]}, f"bookings[1].{field}"),
    ):
        found = problem(await client.post(path, json=body), 400, "invalid_request")
        assert found["errors"] == [{"field": place, "in": "body", "message": message}]
        assert found["detail"] == f"{place}: {message}"


async def test_a_command_that_a_route_makes_of_its_body_is_told_the_field_too(client: httpx.AsyncClient) -> None:
    found = problem(await client.post("/bookings/by-hand", json={**GOOD, "last": "2026-04-30"}), 400, "invalid_request")
    assert found["errors"] == [{"field": "last", "in": "body", "message": TOO_EARLY}]


@pytest.mark.parametrize("client", [True], indirect=True)
async def test_a_query_parameter_is_told_the_same_words(client: httpx.AsyncClient) -> None:
    found = problem(await client.get("/cars", params={"plate": "AB 1234"}), 400, "invalid_request")
    assert found["errors"] == [{"field": "plate", "in": "query", "message": IN_WORDS}]
    assert (await client.get("/cars", params={"plate": "AB'1234"})).status_code == 200
