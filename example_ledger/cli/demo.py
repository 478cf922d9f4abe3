"""``ledger demo``: serve the ledger with a generated sample in it."""

import csv
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import rich_click as click
from litestar import Litestar

from cqrskit import Runtime, Scope, Settings, load_settings
from cqrskit.cli.progress import ProgressBar
from cqrskit.cli.running import common_options, serve_application
from cqrskit.testing import ElasticsearchServer
from cqrskit.web import plugin_of
from example_ledger.app import create_app
from example_ledger.cli.import_file import wait_until_level
from example_ledger.files import RowReader, generate, id_of
from example_ledger.importing import import_file

__all__ = ["demo_command"]

ACCOUNTS, TRANSFERS, SEED = 200, 10_000, 1
NAME = "demo"
"""Of the API key, and so the actor of what is done with it."""


@click.command("demo")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks a free one (default: CQRSKIT_PORT, 8000).")
@click.option(
    "--read-models",
    type=click.Choice(["postgres", "elasticsearch"]),
    default="postgres",
    show_default=True,
    help="Where read models are kept; Elasticsearch is fetched and started if CQRSKIT_ELASTICSEARCH_URL is not set.",
)
@common_options
def demo_command(port: int | None, read_models: str) -> None:
    """Serve the ledger on an embedded Postgres, import a generated sample, and say what to try, with an API key.

    It stays until Ctrl-C or SIGTERM and leaves no process behind; its files are in the folder CQRSKIT_DATA_FOLDER
    (.cqrskit), so that the next start finds what was there.

    \b
    Examples:
      ledger demo
      ledger demo --port 9000 --read-models elasticsearch
    """
    with _elasticsearch(read_models == "elasticsearch") as elasticsearch_url:
        settings = load_settings(port=port, elasticsearch_url=elasticsearch_url)
        app = create_app(settings, on_startup=[_make_key])

        async def fill(address: str) -> None:
            await _fill(plugin_of(app).runtime)
            print(_advice(address, settings, app.state.demo_key), flush=True)

        serve_application(app, settings, on_listening=fill)


@contextmanager
def _elasticsearch(wanted: bool) -> Iterator[str | None]:
    """An Elasticsearch of our own where none is configured."""
    if not wanted or load_settings().elasticsearch_url is not None:
        yield None
        return
    print("starting Elasticsearch (the first time it is fetched, about 600 MB)", flush=True)
    server = ElasticsearchServer().start()
    try:
        yield server.url
    finally:
        server.stop()


async def _fill(runtime: Runtime) -> None:
    """Import the sample; one that is there already is only recognised."""
    async with _sample() as path:
        reader = RowReader(path)
        with ProgressBar("importing the sample", reader.size) as bar:
            report = await import_file(
                reader,
                runtime.executor,
                open_accounts=True,
                on_progress=lambda report: bar.show(reader.bytes_read, f"{report.rows_per_second:,.0f} rows/s"),
            )
    await wait_until_level(runtime)
    print(f"sample: {report.posted:,} transfers posted, {report.replayed:,} known already", flush=True)


async def _make_key(app: Litestar) -> None:
    """A new API key for the demo; those of earlier demos in this folder end, since nobody can show them again."""
    keys = plugin_of(app).runtime.api_keys
    for key in await keys.all():
        if key.name == NAME:
            await keys.revoke(key.id)
    app.state.demo_key = (await keys.make(NAME, [Scope.READ, Scope.WRITE])).text


@asynccontextmanager
async def _sample() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ledger-demo-") as folder:
        path = Path(folder) / "sample.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(generate(ACCOUNTS, TRANSFERS, "zipf", SEED))
        yield path


def _advice(address: str, settings: Settings, key: str) -> str:
    _, first = itertools.islice(generate(ACCOUNTS, TRANSFERS, "zipf", SEED), 2)
    debit, credit = id_of(first[1]), id_of(first[2])
    body = (
        f'{{"debit_account_id": "{debit}", "credit_account_id": "{credit}", "amount": 1250, "currency": "EUR", '
        '"description": "lunch"}'
    )
    shown = '-H "Authorization: Bearer $KEY"'
    where = "" if settings.data_folder == ".cqrskit" else f"CQRSKIT_DATA_FOLDER={settings.data_folder} "
    return f"""
The ledger answers at {address} those who show an API key. This one was made for you, and is shown only now:

  KEY={key}

Try:

  curl -s {address}/trial-balance {shown}
  curl -s '{address}/accounts?q=customer&sort=-balance&limit=3' {shown}
  curl -s {address}/accounts/{debit} {shown}
  curl -s '{address}/accounts/{debit}/statement?limit=3' {shown}
  curl -s '{address}/transfers?q=coffee&min_amount=5000&limit=3' {shown}
  curl -si {address}/transfers {shown} -H 'Content-Type: application/json' -d '{body}'
  curl -s {address}/schema/openapi.json {shown}
  curl -s {address}/health/ready

In another terminal, from this folder:

  {where}.venv/bin/cqrskit events --type Transfer.Posted --limit 3

Ctrl-C stops it.
"""
