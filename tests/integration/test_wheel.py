"""The wheel, installed alone in an empty folder, is enough for the tutorial."""

import asyncio
import shutil
import site
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.documents import Page, blocks_of
from tests.integration.running_processes import ROOT


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    """The wheel, built from a copy so that the tree stays as it is."""
    with tempfile.TemporaryDirectory(prefix="cqrskit-wheel-") as name:
        source = Path(name) / "source"
        source.mkdir()
        for each in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / each, source)
        for each in ("cqrskit", "example_ledger", "migrations"):
            shutil.copytree(ROOT / each, source / each, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", name, str(source)]
        subprocess.run(command, check=True, capture_output=True)
        yield next(Path(name).glob("*.whl"))


@pytest.fixture(scope="module")
def environment_folder(wheel: Path) -> Iterator[Path]:
    """A virtual environment with the wheel in it; the packages that it needs are borrowed from ours."""
    with tempfile.TemporaryDirectory(prefix="cqrskit-venv-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        python = folder / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run(install, check=True, capture_output=True)
        packages = next((folder / "lib").glob("python*")) / "site-packages"
        (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        yield folder


def test_the_wheel_carries_all_that_is_needed_at_run_time(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"cqrskit/migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    wanted |= {f"cqrskit/postgres/sql/{path.name}" for path in (ROOT / "cqrskit" / "postgres" / "sql").glob("*.sql")}
    assert wanted <= names
    assert {"cqrskit/py.typed", "example_ledger/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests")]


async def test_the_tutorial_runs_from_the_wheel_in_an_empty_folder(environment_folder: Path) -> None:
    python = environment_folder / "bin" / "python"
    where = await asyncio.create_subprocess_exec(
        python, "-c", "import cqrskit; print(cqrskit.__file__)", cwd="/", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await where.communicate()
    assert out.decode().startswith(str(environment_folder)), "the test must use the wheel, not the tree"
    with tempfile.TemporaryDirectory(prefix="cqrskit-tutorial-") as name:
        Path(name).chmod(0o755)
        page = Page(Path(name), python=python)
        try:
            for block in blocks_of(ROOT / "docs" / "tutorial.md"):
                await page.run(block)
        finally:
            await page.close()
