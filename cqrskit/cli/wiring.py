"""Finding the application that ``--app module:attribute`` names."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click
from litestar import Litestar

from cqrskit.application import Application
from cqrskit.errors import ConfigurationError
from cqrskit.web import plugin_of

__all__ = ["app_option", "application_of", "litestar_app_of", "litestar_app_option"]

F = TypeVar("F", bound=Callable[..., Any])

HELP = (
    "module:attribute of your Application, of the Litestar app that has its CqrskitPlugin, or of a function without "
    "arguments that makes either. The current folder is searched first."
)
SERVED_HELP = (
    "module:attribute of your Litestar app that has its CqrskitPlugin, or of a function without arguments that makes "
    "it. The current folder is searched first."
)
UNNAMED = (
    "no application is named: give --app module:attribute, such as --app bank:bank for `bank = Application(...)` in "
    "bank.py, or set CQRSKIT_APP; its Litestar app will do as well"
)
UNNAMED_TO_SERVE = (
    "no Litestar app is named: give --app module:attribute, such as --app bank:app for `app = Litestar([...], "
    "plugins=[CqrskitPlugin(bank)])` in bank.py, or set CQRSKIT_APP"
)


def app_option(command: F) -> F:
    """Add ``--app`` (parameter `app`: str or None), also read from CQRSKIT_APP."""
    return click.option("--app", metavar="MODULE:ATTRIBUTE", envvar="CQRSKIT_APP", help=HELP)(command)


def litestar_app_option(command: F) -> F:
    """The same for a command that needs the Litestar app."""
    return click.option("--app", metavar="MODULE:ATTRIBUTE", envvar="CQRSKIT_APP", help=SERVED_HELP)(command)


def application_of(app: str | None) -> Application:
    """The Application that ``--app`` names, be it directly or by its Litestar app. Raises ConfigurationError."""
    if not app:
        raise ConfigurationError(UNNAMED)
    found = _find(app)
    return found if isinstance(found, Application) else plugin_of(found).application


def litestar_app_of(app: str | None) -> Litestar:
    """The Litestar app that ``--app`` names. Raises ConfigurationError."""
    if not app:
        raise ConfigurationError(UNNAMED_TO_SERVE)
    found = _find(app)
    if isinstance(found, Application):
        module_name = app.partition(":")[0]
        others = [name for name, value in vars(sys.modules[module_name]).items() if isinstance(value, Litestar)]
        hint = (
            f"did you mean {module_name}:{others[0]}?"
            if others
            else ("make one with Litestar([...], plugins=[CqrskitPlugin(application)])")
        )
        raise ConfigurationError(
            f"--app {app} is an Application, which has no HTTP routes; serve needs a Litestar app: {hint}"
        )
    plugin_of(found)
    return found


def _find(app: str) -> Application | Litestar:
    module_name, colon, path = app.partition(":")
    if not (module_name and colon and path):
        raise ConfigurationError(f"--app {app!r} is not of the form module:attribute, such as bank:app")
    value: Any = _import(app, module_name)
    for name in path.split("."):
        value = _attribute(app, value, name)
    if inspect.isfunction(value):
        value = _call(app, value)
    if isinstance(value, Application | Litestar):
        return value
    raise ConfigurationError(
        f"--app {app}: {path} is of type {type(value).__name__}, not an Application or a Litestar app; "
        f"{_candidates(module_name)}"
    )


def _import(app: str, module_name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"--app {app}: {module_name} imports {error.name}, which is not installed"
            ) from error
        near = difflib.get_close_matches(module_name, _modules_here(folder), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(
            f"--app {app}: there is no module {error.name!r} in {folder} or installed{hint}"
        ) from error
    except ConfigurationError as error:
        raise ConfigurationError(f"--app {app}: {error}") from error
    except Exception as error:
        raise ConfigurationError(
            f"--app {app}: importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error


def _modules_here(folder: str) -> list[str]:
    return [
        entry.name.removesuffix(".py") for entry in os.scandir(folder) if entry.is_dir() or entry.name.endswith(".py")
    ]


def _attribute(app: str, owner: object, name: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    near = difflib.get_close_matches(name, [each for each in dir(owner) if not each.startswith("_")], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ConfigurationError(
        f"--app {app}: there is no {name!r} in {app.partition(':')[0]}; {hint}{_candidates(app.partition(':')[0])}"
    )


def _call(app: str, factory: Callable[..., Any]) -> Any:
    needed = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ConfigurationError(f"--app {app}: the function needs {', '.join(needed)}; name one without arguments")
    return factory()


def _candidates(module_name: str) -> str:
    """What the module has that would do."""
    module = sys.modules.get(module_name)
    names = (
        []
        if module is None
        else [name for name, value in vars(module).items() if isinstance(value, Application | Litestar)]
    )
    if not names:
        return f"{module_name} has no Application and no Litestar app"
    return f"{module_name} has {', '.join(sorted(names))}"
