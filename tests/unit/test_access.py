"""API keys, those that are kept in memory, and rate limits."""

import asyncio
import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import structlog

from cqrskit import ConfigurationError, RateLimited, Scope, ServerUnavailable
from cqrskit.access import ApiKey, MadeKey, key_id_in, make_api_key
from cqrskit.known_keys import FRESH_SECONDS, IDS_PER_QUERY, KEPT_SECONDS, KEYS_MAX, KnownKeys
from cqrskit.rate_limit import RateLimits
from cqrskit.telemetry import configure_logging


class KeysInMemory:
    """The port, kept in a dict; `down` makes it unreachable, `open` holds answers back."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}
        self.questions: list[list[str]] = []
        self.down = False
        self.open = asyncio.Event()
        self.open.set()

    async def make(self, name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None) -> MadeKey:
        made = make_api_key(name, scopes, expires_at=expires_at)
        self.keys[made.key.id] = made.key
        return made

    async def find(self, key_ids: Sequence[str]) -> Sequence[ApiKey]:
        self.questions.append(list(key_ids))
        found = [self.keys[each] for each in key_ids if each in self.keys]
        await self.open.wait()
        if self.down:
            raise ServerUnavailable("Postgres", "here", "it is down")
        return found

    async def all(self) -> Sequence[ApiKey]:
        return list(self.keys.values())

    async def revoke(self, key_id: str) -> ApiKey | None:
        self.keys[key_id] = msgspec.structs.replace(self.keys[key_id], revoked_at=datetime.now(UTC))
        return self.keys[key_id]

    async def has_usable(self) -> bool:
        return bool(self.keys)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


# --- keys


def test_a_key_has_a_form_that_is_found_in_files_and_enough_that_nobody_can_guess() -> None:
    texts = {make_api_key("shop", [Scope.READ]).text for _ in range(100)}
    assert len(texts) == 100
    for text in texts:
        assert text.startswith("cqk_")
        assert len(text.rpartition("_" + text[4:20] + "_")[2] or text[21:]) >= 43


def test_only_the_whole_key_fits() -> None:
    made, other = make_api_key("shop", [Scope.READ]), make_api_key("shop", [Scope.READ])
    assert made.key.fits(made.text)
    last = "A" if made.text[-1] != "A" else "B"
    for wrong in (other.text, made.text[:-1], made.text[:-1] + last, f"cqk_{made.key.id}_{other.text[21:]}", ""):
        assert not made.key.fits(wrong)
    assert key_id_in(made.text) == made.key.id
    for malformed in ("", "cqk_", made.text + "x", " " + made.text, made.text.upper(), made.text + "\n", "é" * 64):
        assert key_id_in(malformed) is None


def test_neither_a_key_nor_its_hash_is_in_what_python_shows_of_it() -> None:
    made = make_api_key("shop", [Scope.READ, Scope.WRITE])
    for shown in (repr(made), str(made), repr(made.key), str(made.key), f"{[made]}"):
        assert made.text not in shown
        assert made.text[21:] not in shown
        assert repr(made.key.hash) not in shown
        assert made.key.id in shown


def test_a_key_ends_when_it_is_revoked_or_expires() -> None:
    now = datetime.now(UTC)
    key = make_api_key("shop", [Scope.READ], expires_at=now + timedelta(seconds=5)).key
    assert key.is_usable(now)
    assert not key.is_usable(now + timedelta(seconds=5))
    assert not msgspec.structs.replace(key, revoked_at=now).is_usable(now)


@pytest.mark.parametrize("name", ["", "a b", "@a", "x" * 65, "a\n", "ä"])
def test_names_are_such_that_they_can_stand_beside_other_text(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a key"):
        make_api_key(name, [Scope.READ])
    with pytest.raises(ConfigurationError, match="opens nothing"):
        make_api_key("shop", [])


# --- known keys


async def test_a_known_key_costs_no_query_for_a_second_and_is_then_looked_up_again() -> None:
    keys, clock = KeysInMemory(), Clock()
    made = await keys.make("shop", [Scope.READ])
    known = KnownKeys(keys, clock=clock)
    for _ in range(5):
        assert await known.find(made.key.id) == made.key
    assert len(keys.questions) == 1
    await keys.revoke(made.key.id)
    clock.now += FRESH_SECONDS - 0.01
    assert (await known.find(made.key.id)) == made.key
    clock.now += 0.01
    found = await known.find(made.key.id)
    assert found is not None
    assert found.revoked_at is not None


async def test_the_second_counts_from_before_the_question() -> None:
    keys, clock = KeysInMemory(), Clock()
    made = await keys.make("shop", [Scope.READ])
    known = KnownKeys(keys, clock=clock)
    keys.open.clear()
    finding = asyncio.create_task(known.find(made.key.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    clock.now += FRESH_SECONDS
    keys.open.set()
    await finding
    await known.find(made.key.id)
    assert len(keys.questions) == 2


async def test_keys_that_somebody_makes_up_cost_one_query_at_a_time_and_are_not_kept() -> None:
    keys = KeysInMemory()
    known = KnownKeys(keys)
    made_up = [f"{number:016x}" for number in range(IDS_PER_QUERY + 500)]
    assert set(await asyncio.gather(*(known.find(each) for each in made_up for _ in range(2)))) == {None}
    assert [len(each) for each in keys.questions] == [IDS_PER_QUERY, 500]
    await known.find(made_up[0])
    assert len(keys.questions) == 3


async def test_no_more_keys_are_kept_than_fit() -> None:
    keys = KeysInMemory()
    known = KnownKeys(keys)
    made = [make_api_key("shop", [Scope.READ]).key for _ in range(KEYS_MAX + 1)]
    keys.keys = {key.id: key for key in made}
    await asyncio.gather(*(known.find(key.id) for key in made))
    count = len(keys.questions)
    await known.find(made[-1].id)
    assert len(keys.questions) == count
    await known.find(made[0].id)
    assert len(keys.questions) == count + 1


async def test_known_keys_go_on_while_the_database_is_down_but_not_for_ever() -> None:
    keys, clock = KeysInMemory(), Clock()
    made, other = await keys.make("shop", [Scope.READ]), await keys.make("till", [Scope.READ])
    known = KnownKeys(keys, clock=clock)
    await known.find(made.key.id)
    keys.down = True
    clock.now += FRESH_SECONDS
    for _ in range(3):
        assert await known.find(made.key.id) == made.key
    assert len(keys.questions) == 2  # one second of not asking after each failure
    with pytest.raises(ServerUnavailable):
        await known.find(other.key.id)
    clock.now += KEPT_SECONDS
    with pytest.raises(ServerUnavailable):
        await known.find(made.key.id)
    keys.down = False
    assert await known.find(made.key.id) == made.key


@pytest.mark.parametrize("after_seconds", [KEPT_SECONDS - 0.01, KEPT_SECONDS])
async def test_a_revoked_key_goes_on_for_a_minute_where_nobody_can_ask_and_not_longer(after_seconds: float) -> None:
    keys, clock = KeysInMemory(), Clock()
    made = await keys.make("shop", [Scope.READ])
    known = KnownKeys(keys, clock=clock)
    await known.find(made.key.id)
    await keys.revoke(made.key.id)
    keys.down = True
    clock.now += after_seconds - 0.005
    finding = asyncio.create_task(known.find(made.key.id))
    await asyncio.sleep(0)
    clock.now += 0.005  # while the database is asked
    if after_seconds < KEPT_SECONDS:
        assert await finding == made.key
    else:
        with pytest.raises(ServerUnavailable):
            await finding
    keys.down = False
    clock.now += FRESH_SECONDS
    found = await known.find(made.key.id)
    assert found is not None
    assert found.revoked_at is not None


async def test_a_known_key_does_not_wait_long_for_a_database_that_hangs() -> None:
    keys, clock = KeysInMemory(), Clock()
    made = await keys.make("shop", [Scope.READ])
    known = KnownKeys(keys, clock=clock)
    await known.find(made.key.id)
    keys.open.clear()
    clock.now += FRESH_SECONDS
    async with asyncio.timeout(5):
        assert await known.find(made.key.id) == made.key
    keys.open.set()


async def test_a_caller_that_gives_up_does_not_take_the_answer_from_the_others() -> None:
    keys = KeysInMemory()
    made = await keys.make("shop", [Scope.READ])
    known = KnownKeys(keys)
    keys.open.clear()
    first, second = (asyncio.create_task(known.find(made.key.id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    keys.open.set()
    assert await second == made.key


# --- rate limits


def test_a_limit_lets_a_burst_through_and_then_the_rate_for_each_key_alone() -> None:
    clock = Clock()
    limits = RateLimits(2.0, 3, clock=clock)
    for _ in range(3):
        limits.take("a")
    with pytest.raises(RateLimited) as refused:
        limits.take("a")
    assert refused.value.retry_after_seconds == pytest.approx(0.5)
    limits.take("b")
    clock.now += 0.5
    limits.take("a")
    with pytest.raises(RateLimited):
        limits.take("a")
    clock.now += 3_600
    for _ in range(3):
        limits.take("a")
    with pytest.raises(RateLimited):
        limits.take("a")


def test_refused_requests_do_not_put_the_next_one_off() -> None:
    clock = Clock()
    limits = RateLimits(0.1, 1, clock=clock)
    limits.take("a")
    for _ in range(100):
        clock.now += 0.099
        with pytest.raises(RateLimited):
            limits.take("a")
    clock.now += 0.2
    limits.take("a")


# --- logs


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def structlog_as_it_was() -> Iterator[None]:
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)
    logging.getLogger().handlers.clear()


@pytest.mark.usefixtures("structlog_as_it_was")
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_traceback_in_the_log_shows_no_variables(stream: type[io.StringIO]) -> None:
    output = stream()
    configure_logging("info", output)
    made = make_api_key("shop", [Scope.READ])

    def fail(secret: str) -> None:
        raise ZeroDivisionError("told")

    try:
        fail(made.text)
    except ZeroDivisionError as error:
        structlog.get_logger().error("request.failed", exc_info=error)
    assert "ZeroDivisionError" in output.getvalue()
    assert made.key.id not in output.getvalue()
