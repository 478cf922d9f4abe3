"""``cqrskit serve``: the HTTP API, and by default the projections in the same process."""

import rich_click as click

from cqrskit.cli.running import common_options, serve_application
from cqrskit.cli.wiring import litestar_app_of, litestar_app_option
from cqrskit.settings import load_settings

__all__ = ["serve_command"]


@click.command("serve")
@litestar_app_option
@click.option("--host", help="Address to listen on (default: CQRSKIT_HOST, 127.0.0.1).")
@click.option("--port", help="Port; 0 picks a free one (default: CQRSKIT_PORT, 8000).")
@click.option("--no-projections", is_flag=True, help="Serve requests only; run `cqrskit project` elsewhere.")
@common_options
def serve_command(app: str | None, host: str | None, port: str | None, no_projections: bool) -> None:
    """Serve the Litestar app that --app names, with its projections, until SIGINT or SIGTERM.

    A stop finishes the requests in flight; a second signal ends the process at once.

    \b
    Examples:
      cqrskit serve --app bank:app
      cqrskit serve --app bank:app --port 0
      cqrskit serve --app bank:app --no-projections
    """
    settings = load_settings(host=host, port=port)
    serve_application(litestar_app_of(app), settings, projections=() if no_projections else None)
