"""``ledger serve``: the HTTP API."""

import rich_click as click

from cqrskit import load_settings
from cqrskit.cli.running import common_options, serve_application
from cqrskit.web import plugin_of
from example_ledger.app import create_app

__all__ = ["serve_command"]

NO_KEYS = "nobody can get in yet: `ledger keys create NAME --scopes read,write` makes a key"


@click.command("serve")
@click.option("--host", help="Address to listen on (default: CQRSKIT_HOST, 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks a free one (default: CQRSKIT_PORT, 8000).")
@click.option(
    "--no-projections",
    is_flag=True,
    help="Only the API; run `cqrskit project --app example_ledger.application:ledger` elsewhere.",
)
@common_options
def serve_command(host: str | None, port: int | None, no_projections: bool) -> None:
    """Serve the ledger's API until SIGINT or SIGTERM, with its projections in the same process.

    Only those get in who show an API key, which `ledger keys` makes.

    \b
    Examples:
      ledger serve
      ledger serve --host 0.0.0.0 --port 80
      CQRSKIT_ELASTICSEARCH_URL=http://localhost:9200 ledger serve --no-projections
    """
    settings = load_settings(host=host, port=port)
    app = create_app(settings)

    async def tell(address: str) -> None:
        print(f"listening on {address}", flush=True)
        if not await plugin_of(app).runtime.api_keys.has_usable():
            print(NO_KEYS, flush=True)

    serve_application(app, settings, projections=() if no_projections else None, on_listening=tell)
