"""Every code block of the documentation runs, or says why it does not."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cqrskit.testing.servers import PostgresServer
from tests.integration.documents import Page, blocks_of
from tests.integration.running_processes import ROOT
from tests.unit.http_reference import anchor_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that the embedded Postgres can use."""
    with tempfile.TemporaryDirectory(prefix="cqrskit-docs-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_the_blocks_of_a_page_do_what_they_say(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    variables = {}
    if "$DATABASE_URL" in page.read_text(encoding="utf-8"):
        server: PostgresServer = request.getfixturevalue("postgres_server")
        variables["DATABASE_URL"] = dsn = server.create_database(migrated=False)
        request.addfinalizer(lambda: server.drop_database(dsn))
    running = Page(folder, variables=variables)
    try:
        for block in blocks_of(page):
            await running.run(block)
    finally:
        await running.close()


def test_no_fence_is_overlooked() -> None:
    for page in PAGES:
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("```")]
        assert len(fences) == 2 * len(blocks_of(page)), page


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target, place in re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            if place:
                headings = re.findall(r"^##* (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                assert place in map(anchor_of, headings), f"{page.name} links to {target}#{place}"
