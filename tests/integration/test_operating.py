"""The commands that look after projections, as real processes: what they print, change, and exit with."""

import asyncio
import json
import os
import pty
import signal
from uuid import uuid4

import psycopg
import pytest

from cqrskit.checkpoints import GenerationState
from cqrskit.testing import eventually
from cqrskit.testing.leases import leased
from tests.integration.counting import Count, Counts, Grow, counting
from tests.integration.operating import COUNTING, MENDED, Operator, read_terminal
from tests.integration.running_processes import finish, start


@pytest.fixture
def operator(postgres_dsn: str) -> Operator:
    return Operator(postgres_dsn)


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
        shown = json.loads((await operator.types("status", "counts", "--json")).out)
        assert (shown["reactions"], shown["due_commands"]) == ([], None)
        (status,) = shown["projections"]
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
    assert [json.loads(line)["projections"][0]["name"] for line in lines] == ["counts", "counts"]
    assert [json.loads(line)["due_commands"]["waiting"] for line in lines] == [0, 0]
    process.send_signal(signal.SIGINT)
    finished = await finish(process)
    assert (finished.code, finished.err) == (0, "")


async def test_status_draws_over_itself_on_a_terminal_and_leaves_it_clean(operator: Operator) -> None:
    await operator.project()
    ours, theirs = pty.openpty()
    variables = {**operator.variables, "TERM": "xterm-256color", "COLUMNS": "160"}
    process = await start("status", "--app", COUNTING, "--watch", stdout=theirs, variables=variables)
    os.close(theirs)
    said = b""
    while said.count(b"1 (live)") < 2:
        said += await read_terminal(ours)
    assert b"\x1b[2K" in said, "it is not drawn over"
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    said += os.read(ours, 65536)
    os.close(ours)
    assert said.rstrip().endswith(b"\x1b[?25h"), "the cursor is still hidden"
