"""What the commands about generations say to people when something is in the way."""

import signal
from pathlib import Path
from uuid import uuid4

import pytest

from cqrskit import Settings
from cqrskit.checkpoints import GenerationState
from cqrskit.fingerprint import Fingerprint
from cqrskit.testing import eventually
from tests.integration.counting import Grow, opened
from tests.integration.running_processes import cqrskit, finish, start

COUNTING = "tests.integration.counting:counting"


@pytest.fixture
def settings(postgres_dsn: str, index_prefix: str) -> Settings:
    return Settings(database_url=postgres_dsn, index_prefix=index_prefix)


@pytest.fixture
def variables(postgres_dsn: str, index_prefix: str) -> dict[str, str]:
    return {"CQRSKIT_DATABASE_URL": postgres_dsn, "CQRSKIT_INDEX_PREFIX": index_prefix}


async def test_an_interrupted_rebuild_says_how_to_go_on_and_nothing_else(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with opened(settings) as runtime:
        await runtime.executor.execute(Grow(counter_id=uuid4()))
        code = Fingerprint("0" * 16, "0" * 16)
        await runtime.checkpoints.create_generation("counts", GenerationState.LIVE, code, 1)
        process = await start("rebuild", "counts", "--app", COUNTING, "--slices", "1", variables=variables)

        async def held() -> bool:
            found = await runtime.checkpoints.generations()
            if not any(each.number == 2 for each in found):
                return False
            return await runtime.checkpoints.claim("somebody", "counts", 2, 0, seconds=60) is not None

        await eventually(held, timeout_seconds=20)  # so the slice waits
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        await eventually(lambda: children.read_text().split(), timeout_seconds=20)
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == "run `cqrskit rebuild counts` again to go on where it stopped\n"


async def test_documents_of_other_fields_are_verified_by_the_code_that_made_them_only(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with opened(settings) as runtime:
        code = Fingerprint("0" * 16, "0" * 16)
        await runtime.checkpoints.create_generation("counts", GenerationState.LIVE, code, 1)
    for more in ((), ("--generation", "1")):
        refused = await cqrskit("verify", "counts", "--app", COUNTING, *more, variables=variables)
        assert (refused.code, "other fields" in refused.err) == (2, True), refused.err


async def test_a_document_that_no_event_is_behind_is_explained_in_a_line(
    settings: Settings, variables: dict[str, str]
) -> None:
    async with opened(settings, projecting=True):
        pass
    explained = await cqrskit("explain", "counts", "nobody", "--app", COUNTING, variables=variables)
    assert explained.code == 0, explained.err
    assert explained.out.startswith("counts nobody: no event is behind it\n")
