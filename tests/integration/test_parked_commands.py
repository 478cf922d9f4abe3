"""``cqrskit parked``, as real processes: what it prints, changes, and exits with."""

import asyncio
import json
import os
import pty
import sys

import psycopg
import pytest

from cqrskit.cli.operating import WIDTH_IN_FILES
from cqrskit.testing import eventually
from tests.integration import mended_counting
from tests.integration.counting import POISON, Count
from tests.integration.operating import COUNTING, MENDED, Operator, own_terminal, read_terminal
from tests.integration.running_processes import ROOT, environment


@pytest.fixture
def operator(postgres_dsn: str) -> Operator:
    return Operator(postgres_dsn)


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
    assert "about 2 events behind it" in shown.out
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
        preexec_fn=lambda: own_terminal(theirs),
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        said += await read_terminal(ours)
    os.write(ours, answer.encode() if answer == "\x03" else f"{answer}\n".encode())
    async with asyncio.timeout(30):
        await process.communicate()
    os.close(ours)
    codes = {"y": 0, "n": 1, "\x03": 130}
    assert process.returncode == codes[answer]
    assert await operator.document(key) == (Count(12, 4) if answer == "y" else Count(1, 2))


async def test_a_mistyped_key_is_answered_with_the_one_that_was_meant(operator: Operator) -> None:
    key, _ = await operator.park()
    finished = await operator.types("parked", "show", "counts", key[:-1])
    assert (finished.code, f"did you mean '{key}'?" in finished.err) == (2, True)
