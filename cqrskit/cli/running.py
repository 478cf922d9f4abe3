"""How a command-line program of cqrskit runs: signals, exit codes and errors in one line. For your own CLI too.

::

    import rich_click as click
    from cqrskit.cli.running import common_options, json_option, run, run_group, run_until_stopped

    @click.group()
    def ledger() -> None: ...

    @ledger.command()
    @common_options                    # adds --debug
    @json_option("Write JSON.")        # adds --json (the parameter as_json); errors are JSON then as well
    def check(as_json: bool) -> None:
        run(_check)                    # async def _check() -> int | None: its result is the exit code

    @ledger.command("serve")
    @common_options
    def serve_command() -> None:
        serve_application(app, load_settings())    # a Litestar app with a CqrskitPlugin

    def main() -> None:                # the console script
        run_group(ledger)

- ``run(function)`` runs a coroutine function under uvloop; SIGINT or SIGTERM cancels it (exit code 130 or 143).
- ``run_until_stopped(function)`` gives it an ``asyncio.Event`` that SIGINT and SIGTERM set; it should then finish and
  return (exit code 0). A second signal ends the process at once.
- ``serve_application(app, settings, projections=None, on_listening=None)`` is `cqrskit.web.serve` until a signal.
- ``run_group(group)`` runs a click group and turns errors into one line on stderr and these exit codes: 0 done,
  1 the work failed, 2 wrong use or configuration, 3 a server cannot be reached.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, NoReturn, TextIO, TypeVar

import msgspec
import rich_click as click
import uvloop
from click.exceptions import NoArgsIsHelpError
from litestar import Litestar

from cqrskit.errors import ConfigurationError, CqrskitError, ServerUnavailable
from cqrskit.settings import Settings
from cqrskit.telemetry import configure_logging
from cqrskit.web import plugin_of, serve

__all__ = [
    "FAILED",
    "SERVER_UNREACHABLE",
    "WRONG_USE",
    "common_options",
    "die_with_parent",
    "json_option",
    "run",
    "run_group",
    "run_until_stopped",
    "serve_application",
]

F = TypeVar("F", bound=Callable[..., Any])

FAILED = 1
"""Exit code: the work was done and its answer is no, or it failed."""
WRONG_USE = 2
"""Exit code: the command line, a setting or the wiring is wrong."""
SERVER_UNREACHABLE = 3
"""Exit code: Postgres or Elasticsearch does not answer."""


class _Output(msgspec.Struct):
    """How errors are shown; options of the command that runs set it."""

    debug: bool = False
    as_json: bool = False


def common_options(command: F) -> F:
    """Add ``--debug``: log everything, and show the traceback of an error."""

    def remember(context: click.Context, _: click.Parameter, debug: bool) -> None:
        if debug:
            _output_of(context).debug = True
            os.environ["CQRSKIT_LOG_LEVEL"] = "debug"

    option = click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Log everything, and show the traceback of an error.",
    )
    return option(command)


def json_option(help_text: str) -> Callable[[F], F]:
    """Add ``--json`` (parameter `as_json`); errors are written as JSON too."""

    def remember(context: click.Context, _: click.Parameter, as_json: bool) -> bool:
        _output_of(context).as_json = _output_of(context).as_json or as_json
        return as_json

    return click.option("--json", "as_json", is_flag=True, is_eager=True, callback=remember, help=help_text)


def _output_of(context: click.Context) -> _Output:
    root = context.find_root()
    if not isinstance(root.obj, _Output):
        root.obj = _Output()
    return root.obj


# --- running coroutines


def run(function: Callable[[], Awaitable[int | None]]) -> NoReturn:
    """Run a coroutine function and exit with its result (None: 0); a signal cancels it."""
    stopped_by: list[int] = []

    async def main() -> int:
        task = asyncio.ensure_future(function())

        def cancel(number: int) -> None:
            stopped_by.append(number)
            task.cancel()

        _on_signals(cancel)
        try:
            return await task or 0
        except asyncio.CancelledError:
            if not stopped_by:
                raise
            return 128 + stopped_by[0]

    sys.exit(_run(main()))


def run_until_stopped(function: Callable[[asyncio.Event], Awaitable[int | None]]) -> NoReturn:
    """Run a coroutine function with an event that a signal sets, and exit with its result (None: 0)."""

    async def main() -> int:
        stop = asyncio.Event()
        _on_signals(lambda _: stop.set())
        return await function(stop) or 0

    sys.exit(_run(main()))


def serve_application(
    app: Litestar,
    settings: Settings,
    *,
    projections: Iterable[str] | None = None,
    on_listening: Callable[[str], Awaitable[None]] | None = None,
) -> NoReturn:
    """Serve a Litestar app that has a `CqrskitPlugin` until a signal; then finish what was begun, and exit.

    `projections` names those to run in this process (None: as the plugin says). `on_listening` is told the address
    (``http://127.0.0.1:8000``) when requests are answered; by default it is printed. Both host and port come from
    `settings`.
    """
    configure_logging(settings.log_level)
    if projections is not None:
        plugin_of(app).projections = tuple(projections)
    run_until_stopped(lambda stop: serve(app, settings, stop=stop, on_listening=on_listening or _print_address))


async def _print_address(address: str) -> None:
    print(f"listening on {address}", flush=True)


def _run(main: Coroutine[Any, Any, int]) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = int(runner.run(main))
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return 0
    return code


def _on_signals(first: Callable[[int], None]) -> None:
    """Call `first` at the first SIGINT or SIGTERM; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def receive(number: int) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        first(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, receive, number)


_libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """As ``preexec_fn`` of a subprocess: Linux sends it SIGTERM when its parent ends, however that happens."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# --- errors


def run_group(group: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click group or command, show an error in one line, and exit with the code that fits it."""
    output = _Output()
    try:
        result = group.main(args=None if arguments is None else list(arguments), standalone_mode=False, obj=output)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(_report(error, output))
    sys.exit(result if isinstance(result, int) else 0)


def _silence_stdout() -> None:
    """Whoever read our output has gone; let nothing be said about it when the interpreter closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: BaseException, output: _Output) -> int:
    if isinstance(error, NoArgsIsHelpError):
        error.show(sys.stderr)
        return WRONG_USE
    code, word, message = _describe(error)
    if output.debug or os.environ.get("CQRSKIT_LOG_LEVEL") == "debug":
        sys.excepthook(type(error), error, error.__traceback__)
    if output.as_json:
        print(json.dumps({"error": {"code": word, "message": message, "exit_code": code}}), file=sys.stderr)
    else:
        print(f"{_red('error:', sys.stderr)} {message}", file=sys.stderr)
    return code


def _describe(error: BaseException) -> tuple[int, str, str]:
    """Exit code, word for machines, and the line for people."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return 130, "interrupted", "interrupted"
    if isinstance(error, click.UsageError):
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
        return WRONG_USE, "wrong_use", f"{error.format_message()}{where}"
    if isinstance(error, click.ClickException):
        return FAILED, "failed", error.format_message()
    if isinstance(error, ServerUnavailable):
        return SERVER_UNREACHABLE, "server_unavailable", _one_line(error)
    if isinstance(error, ConfigurationError):
        return WRONG_USE, "configuration", _one_line(error)
    if isinstance(error, CqrskitError):
        return FAILED, getattr(error, "code", "failed"), _one_line(error)
    return FAILED, "unexpected", f"{type(error).__name__}: {_one_line(error)} (--debug shows where)"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _red(text: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[31m{text}\x1b[0m"
