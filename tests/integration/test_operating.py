"""The commands that look after projections, as real processes: what they print, change, and exit with."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import sys
import termios
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from cqrskit import Application, Settings
from cqrskit.checkpoints import GenerationState
from cqrskit.cli.operating import WIDTH_IN_FILES
from cqrskit.testing import eventually
from cqrskit.testing.leases import leased
from tests.integration import mended_counting
from tests.integration.counting import POISON, Count, Counts, Grow, counting
from tests.integration.running_processes import ROOT, Finished, cqrskit, environment, finish, start

COUNTING = "tests.integration.counting:counting"
MENDED = "tests.integration.mended_counting:counting"


class Operator:
    """Types commands about one database."""

    def __init__(self, dsn: str) -> None:
        self.settings = Settings(database_url=dsn, lease_seconds=0.5)
        self.variables = {"CQRSKIT_DATABASE_URL": dsn, "CQRSKIT_LEASE_SECONDS": "0.5"}

    async def types(self, *arguments: str, app: str = COUNTING) -> Finished:
        return await cqrskit(*arguments, "--app", app, variables=self.variables)

    async def asks(self, *arguments: str, app: str = COUNTING, code: int = 0) -> object:
        """The JSON that a command answers."""
        finished = await self.types(*arguments, "--json", app=app)
        assert finished.code == code, finished
        return json.loads(finished.out)

    async def project(self, application: Application = counting) -> None:
        """Run the projection until it is level, and stop."""
        async with application.open(self.settings, executor=False, projections=["counts"]) as runtime:
            head = await runtime.event_store.head()
            await runtime.positions.wait(Counts, head, visible=True, timeout_seconds=30)

    async def grow(self, counter_id: UUID, *steps: int) -> int:
        async with counting.open(self.settings) as runtime:
            results = [await runtime.executor.execute(Grow(counter_id=counter_id, by=by)) for by in steps]
        return results[-1].position

    async def park(self) -> tuple[str, int]:
        """A counter that is parked at the position given, with two events behind."""
        counter_id = uuid4()
        await self.grow(counter_id, 1)
        position = await self.grow(counter_id, POISON)
        await self.grow(counter_id, 5, 6)
        await self.project()
        return str(counter_id), position

    async def document(self, key: str, generation: int = 1) -> object:
        async with counting.open(self.settings, executor=False) as runtime:
            stored = await runtime.read_store.get(Counts.index(generation), key)
        return None if stored is None else stored.document


@pytest.fixture
def operator(postgres_dsn: str) -> Operator:
    return Operator(postgres_dsn)


# --- parked keys


async def test_parked_keys_are_listed_with_what_failed_and_how_much_waits(operator: Operator) -> None:
    nothing = await operator.types("parked", "list")
    assert (nothing.code, nothing.out) == (0, "no key is parked\n")
    key, position = await operator.park()
    table = await operator.types("parked", "list", "counts")
    assert table.code == 0
    for word in ("counts", key, str(position), "ValueError: poison"):
        assert word in table.out
    assert max(map(len, table.out.splitlines())) <= WIDTH_IN_FILES
    (row,) = json.loads((await operator.types("parked", "list", "--json")).out)
    assert (row["projection"], row["generation"], row["key"]) == ("counts", 1, key)
    assert (row["position"], row["events_waiting"], row["retry_requested"]) == (position, 2, False)


async def test_a_parked_key_is_shown_with_the_event_that_failed(operator: Operator) -> None:
    key, position = await operator.park()
    shown = await operator.types("parked", "show", "counts", key)
    assert shown.code == 0
    for line in (f"position        {position}", "type            Counter.Grown", 'data            {"by":666}'):
        assert line in shown.out
    assert "2 events behind it" in shown.out
    found = await operator.asks("parked", "show", "counts", key)
    assert isinstance(found, dict)
    assert (found["error"], found["event"]["data"]) == ("ValueError: poison", {"by": POISON})
    assert (found["event"]["stream_id"], found["event"]["position"]) == (key, position)


async def test_a_retry_says_what_became_of_each_key_and_its_exit_code_tells(operator: Operator) -> None:
    key, position = await operator.park()
    other, _ = await operator.park()
    failed = await operator.types("parked", "retry", "counts", key)
    assert failed.code == 1
    assert failed.out == f"{key} failed again at position {position}, 2 events behind it: ValueError: poison\n"
    level = await operator.types("parked", "retry", "counts", key, app=MENDED)
    assert (level.code, level.out) == (0, f"{key} is level again\n")
    assert await operator.document(key) == Count(12 + POISON, 5)
    rest = await operator.asks("parked", "retry", "counts", "--all", app=MENDED)
    assert isinstance(rest, dict)
    assert [(each["key"], each["result"]) for each in rest["keys"]] == [(other, "level")]
    none = await operator.types("parked", "retry", "counts", "--all", app=MENDED)
    assert (none.code, none.out) == (0, "no key is parked\n")


async def test_a_retry_of_a_paused_projection_waits_for_its_resumption(operator: Operator) -> None:
    key, _ = await operator.park()
    await operator.types("pause", "counts")
    waiting = await operator.types("parked", "retry", "counts", key, app=MENDED)
    assert (waiting.code, "still waits" in waiting.out, "cqrskit resume counts" in waiting.err) == (1, True, True)
    await operator.types("resume", "counts")
    async with mended_counting.counting.open(operator.settings, executor=False, projections=["counts"]) as runtime:

        async def unparked() -> bool:
            return not await runtime.checkpoints.parked("counts", 1)

        await eventually(unparked)


async def test_a_dropped_event_is_given_up_for_the_document_and_the_rest_is_folded(operator: Operator) -> None:
    key, position = await operator.park()
    unasked = await operator.types("parked", "drop", "counts", key)
    assert unasked.code == 2
    for words in ("--yes", f"Counter.Grown at position {position}", "will never be in document", "cannot be undone"):
        assert words in unasked.err
    assert await operator.document(key) == Count(1, 2), "it was dropped without a yes"
    dropped = await operator.types("parked", "drop", "counts", key, "--yes")
    assert dropped.code == 0
    assert dropped.out == f"the event at position {position} is given up for this document\n{key} is level again\n"
    assert await operator.document(key) == Count(12, 4)
    with psycopg.connect(str(operator.settings.database_url)) as connection:
        rows = connection.execute("SELECT projection, key, position, error FROM skipped_events").fetchall()
        assert rows == [("counts", key, position, "ValueError: poison")]
    assert (await operator.types("reset", "counts", "--yes")).code == 0
    await operator.project()
    assert await operator.document(key, generation=2) == Count(12, 4), "a new generation has it again"


@pytest.mark.parametrize("answer", ["y", "n", "\x03"], ids=["yes", "no", "Ctrl-C"])
async def test_a_person_at_a_terminal_is_asked_before_an_event_is_dropped(operator: Operator, answer: str) -> None:
    key, _ = await operator.park()
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cqrskit", "parked", "drop", "counts", key, "--app", COUNTING),
        cwd=ROOT,
        env=environment(operator.variables),
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
        preexec_fn=lambda: _own_terminal(theirs),
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += await _read(ours)
    os.write(ours, answer.encode() if answer == "\x03" else f"{answer}\n".encode())
    async with asyncio.timeout(30):
        await process.communicate()
    os.close(ours)
    codes = {"y": 0, "n": 1, "\x03": 130}
    assert process.returncode == codes[answer]
    assert await operator.document(key) == (Count(12, 4) if answer == "y" else Count(1, 2))


async def _read(descriptor: int) -> bytes:
    """What a pseudo-terminal shows next; TimeoutError if that takes too long."""
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, readable.set)
    try:
        async with asyncio.timeout(30):
            await readable.wait()
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
    return os.read(descriptor, 4096)


def _own_terminal(descriptor: int) -> None:
    """Make the pseudo-terminal the process's own, so that Ctrl-C is a signal."""
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parked", "list", "count"), "did you mean 'counts'?"),
        (("parked", "show", "counts", "nothing"), "is not parked in generation 1"),
        (("parked", "retry", "counts"), "say which keys to retry, or --all"),
        (("parked", "retry", "counts", "a", "--all"), "say which keys to retry, or --all"),
        (("parked", "drop", "counts", "nothing", "--yes"), "is not parked"),
        (("parked", "show", "counts", "a", "--generation", "7"), "has no generation 7"),
        (("pause", "cuonts"), "did you mean 'counts'?"),
        (("resume", "cuonts"), "did you mean 'counts'?"),
        (("reset", "cuonts", "--yes"), "did you mean 'counts'?"),
        (("generations", "cuonts"), "did you mean 'counts'?"),
        (("prune", "cuonts"), "did you mean 'counts'?"),
        (("status", "cuonts"), "did you mean 'counts'?"),
        (("status", "--watch", "--check"), "choose one"),
    ],
)
async def test_a_wrong_name_is_explained(operator: Operator, arguments: tuple[str, ...], said: str) -> None:
    await operator.project()
    finished = await operator.types(*arguments)
    assert finished.code == 2
    assert said in finished.err
    assert finished.err.count("\n") == 1


async def test_a_mistyped_key_is_answered_with_the_one_that_was_meant(operator: Operator) -> None:
    key, _ = await operator.park()
    finished = await operator.types("parked", "show", "counts", key[:-1])
    assert (finished.code, f"did you mean '{key}'?" in finished.err) == (2, True)


# --- pause, resume, reset


async def test_a_paused_projection_stands_still_until_it_is_resumed(operator: Operator) -> None:
    counter_id = uuid4()
    async with counting.open(operator.settings, projections=["counts"]) as runtime:
        await runtime.executor.execute(Grow(counter_id=counter_id, by=1))
        await runtime.positions.wait(Counts, 2, visible=True, timeout_seconds=30)
        paused = await operator.asks("pause", "counts")
        assert paused == {"projection": "counts", "paused": True, "workers": []}
        await runtime.executor.execute(Grow(counter_id=counter_id, by=1))
        (status,) = await runtime.status()
        assert (status.paused, status.position, status.lag_events) == (True, 2, 1)
        assert "it is paused: `cqrskit resume` lets it go on" in status.problems
        resumed = await operator.types("resume", "counts")
        assert (resumed.code, resumed.out) == (0, "counts goes on\n")
        await runtime.positions.wait(Counts, 3, visible=True, timeout_seconds=30)


async def test_a_reset_begins_from_nothing_and_keeps_the_old_documents(operator: Operator) -> None:
    counter_id = uuid4()
    await operator.grow(counter_id, 1, 2)
    async with counting.open(operator.settings, projections=["counts"]) as runtime:
        await runtime.positions.wait(Counts, 3, visible=True, timeout_seconds=30)
        unasked = await operator.types("reset", "counts")
        assert (unasked.code, "cqrskit rebuild counts" in unasked.err, "--yes" in unasked.err) == (2, True, True)
        done = await operator.asks("reset", "counts", "--yes")
        assert done == {"projection": "counts", "generation": 2, "retired": 1}
        answer = await runtime.reader.get(Counts, str(counter_id), min_position=3)
        assert answer.value is not None
        assert answer.value.document == Count(3, 3)

        async def is_moved() -> bool:
            (status,) = await runtime.status()
            return (status.generation, status.position, status.problems) == (2, 3, ())

        await eventually(is_moved)
    states = await operator.asks("generations", "counts")
    assert isinstance(states, list)
    assert [(each["generation"], each["state"], each["position"]) for each in states] == [
        (1, "retired", 3),
        (2, "live", 3),
    ]
    assert await operator.document(str(counter_id), generation=1) == Count(3, 3)


async def test_a_reset_projection_is_empty_until_somebody_folds(operator: Operator) -> None:
    counter_id = uuid4()
    await operator.grow(counter_id, 1)
    await operator.project()
    done = await operator.types("reset", "counts", "--yes")
    assert done.out == "generation 2 of counts is live and empty; generation 1 is kept until `cqrskit prune counts`\n"
    async with counting.open(operator.settings, executor=False) as runtime:
        assert (await runtime.reader.get(Counts, str(counter_id))).value is None


# --- generations and prune


async def test_generations_are_listed_and_the_oldest_are_pruned(operator: Operator) -> None:
    await operator.grow(uuid4(), 1)
    nothing = await operator.types("generations")
    assert (nothing.code, nothing.out) == (0, "no projection was ever started\n")
    await operator.project()
    for _ in range(3):
        await operator.types("reset", "counts", "--yes")
    await operator.project()
    table = (await operator.types("generations")).out
    assert table.count("retired") == 4, "three of them, and the heading"
    assert "this code" in table
    dry = await operator.types("prune", "--dry-run")
    assert (dry.code, dry.out.count("would be deleted")) == (0, 2)
    unasked = await operator.types("prune")
    assert (unasked.code, "counts 1 (retired), counts 2 (retired)" in unasked.err) == (2, True)
    deleted = await operator.asks("prune", "counts", "--yes")
    assert isinstance(deleted, list)
    assert [(each["generation"], each["result"]) for each in deleted] == [(1, "deleted"), (2, "deleted")]
    assert await left(operator) == ({3, 4}, {"cqrskit_counts_3", "cqrskit_counts_4"})
    again = await operator.types("prune", "--yes")
    assert (again.code, again.out) == (0, "there is nothing to delete\n")
    await operator.types("prune", "counts", "--keep", "0", "--yes")
    assert await left(operator) == ({4}, {"cqrskit_counts_4"})


async def left(operator: Operator) -> tuple[set[int], set[str]]:
    """The generations and the read models that there are."""
    with psycopg.connect(str(operator.settings.database_url)) as connection:
        generations = {row[0] for row in connection.execute("SELECT generation FROM generations")}
        tables = {
            row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'read_models'")
        }
    return generations, tables


async def test_prune_leaves_alone_what_is_live_or_held(operator: Operator) -> None:
    await operator.project()
    await operator.types("reset", "counts", "--yes")
    async with counting.open(operator.settings, executor=False) as runtime:
        held = await runtime.checkpoints.claim("somebody", "counts", 1, 0, seconds=600)
        assert held is not None
        left_alone = await operator.asks("prune", "--keep", "0", "--yes", code=1)
        assert left_alone == [{"projection": "counts", "generation": 1, "state": "retired", "result": "in_use"}]
        assert await left(operator) == ({1, 2}, {"cqrskit_counts_1", "cqrskit_counts_2"})
        await runtime.checkpoints.release([held])


async def test_prune_deletes_what_is_being_built_only_when_told_so(operator: Operator) -> None:
    await operator.project()
    async with counting.open(operator.settings, executor=False) as runtime:
        await leased(runtime, Counts, seconds=0.01)
        live = (await runtime.checkpoints.generations())[0]
        number = await runtime.checkpoints.create_generation("counts", GenerationState.BUILDING, live.code, 3)
        assert number == 2
    assert (await operator.types("prune", "--yes")).out == "there is nothing to delete\n"
    deleted = await operator.asks("prune", "--building", "--yes")
    assert deleted == [{"projection": "counts", "generation": 2, "state": "building", "result": "deleted"}]


# --- status


async def test_status_shows_what_somebody_should_look_at_and_check_tells_monitoring(operator: Operator) -> None:
    never = await operator.types("status", "--check")
    assert (never.code, "never started" in never.out) == (1, True)
    await operator.park()
    alone = await operator.types("status", "--check")
    assert alone.code == 1
    for words in ("1 (live)", "nobody", "counts: nobody moves partition 0", "counts: it has 1 parked key:"):
        assert words in alone.out
    assert (await operator.types("status")).code == 0
    process = await start("project", "--app", MENDED, variables=operator.variables)
    try:

        async def healthy() -> bool:
            await operator.types("parked", "retry", "counts", "--all", app=MENDED)
            return (await operator.types("status", "--check")).code == 0

        await eventually(healthy, timeout_seconds=30)
        (status,) = json.loads((await operator.types("status", "counts", "--json")).out)
        assert (status["generation"], status["state"], status["problems"]) == (1, "live", [])
        assert status["partitions"][0]["worker"].split(":")[1] == str(process.pid)
    finally:
        process.terminate()
        await finish(process)


async def test_status_watches_until_it_is_stopped(operator: Operator) -> None:
    await operator.project()
    process = await start("status", "--app", COUNTING, "--watch", "--json", variables=operator.variables)
    assert process.stdout is not None
    async with asyncio.timeout(30):
        lines = [await process.stdout.readline() for _ in range(2)]
    assert [json.loads(line)[0]["name"] for line in lines] == ["counts", "counts"]
    process.send_signal(signal.SIGINT)
    finished = await finish(process)
    assert (finished.code, finished.err) == (0, "")


async def test_status_draws_over_itself_on_a_terminal_and_leaves_it_clean(operator: Operator, tmp_path: Path) -> None:
    await operator.project()
    ours, theirs = pty.openpty()
    variables = {**operator.variables, "TERM": "xterm-256color", "COLUMNS": "160"}
    process = await start("status", "--app", COUNTING, "--watch", stdout=theirs, variables=variables)
    os.close(theirs)
    said = b""
    while said.count(b"1 (live)") < 2:
        said += await _read(ours)
    assert b"\x1b[2K" in said, "it is not drawn over"
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    said += os.read(ours, 65536)
    os.close(ours)
    assert said.rstrip().endswith(b"\x1b[?25h"), "the cursor is still hidden"
