"""From ``file.py::name`` to the user's loaded module, its apps, and the thing to run.

Whatever is wrong with the reference or the file is one clear sentence; user code that fails while it is imported is
shown with the user's frames alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Optional

from .class_method import ClassMethod
from .errors import CliError, UserTraceback, listing, near_matches

#: A script with one of these names would replace a module that is in use.
_TAKEN = frozenset({"modal", "intermodal", "click", "rich", "cloudpickle"})


@dataclasses.dataclass(frozen=True)
class AppReference:
    """``target::name``, where the target is a file or, with `-m`, a module."""

    target: str
    name: str
    is_module: bool

    @classmethod
    def parse(cls, text: str, is_module: bool) -> AppReference:
        target, _, name = text.partition("::")
        if not target:
            raise CliError(f"`{text}` names no file: expected path/to/file.py::function.", 2)
        return cls(target, name, is_module)


@dataclasses.dataclass(frozen=True)
class Runnable:
    """What `modal run` runs: a local entrypoint, which runs here, or a function or method that runs in a container."""

    app: Any
    name: str
    target: Any  #: the entrypoint, the Function or the ClassMethod
    is_local: bool

    @property
    def raw_function(self) -> Callable[..., Any]:
        """The user's own function below the decorator."""
        return find_raw_function(self.target)


def find_raw_function(target: Any) -> Callable[..., Any]:
    """Return the user's function that `target` wraps."""
    raw: Callable[..., Any] = inspect.unwrap(target.get_raw_f())
    return raw


def load_module(reference: AppReference) -> ModuleType:
    """Import the user's module.

    Raises:
        CliError: the file or module does not exist or is not Python.
        UserTraceback: the module raised while it was imported.
    """
    if reference.is_module:
        return _load_by_name(reference.target)
    return _load_by_path(reference.target)


def _load_by_path(target: str) -> ModuleType:
    path = Path(target)
    if path.is_dir():
        raise CliError(f"{target} is a directory: name the Python file in it that defines the app.", 2)
    if not path.exists():
        raise CliError(f"No such file: {target}.{_file_hint(path)}", 2)
    if path.suffix != ".py":
        raise CliError(f"{target} is not a Python file: its name must end in .py.", 2)
    path = path.resolve()
    name = path.stem
    stdlib: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())
    if name in _TAKEN or (name in stdlib and name in sys.modules):
        raise CliError(f"{target} has the name of the module `{name}`, which is in use already: rename the file.", 2)
    # As with `python file.py`: modules beside the script can be imported.
    folder = str(path.parent)
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CliError(f"{target} cannot be loaded as a Python file.", 2)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        _execute(lambda: spec.loader.exec_module(module), target)  # type: ignore[union-attr]
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _load_by_name(target: str) -> ModuleType:
    if target.endswith(".py") or "/" in target:
        raise CliError(f"{target} is a file, but -m takes a module such as package.module: leave out -m.", 2)
    # As with `python -m`: modules in the working directory can be imported.
    here = str(Path.cwd())
    if here not in sys.path[:1]:
        sys.path.insert(0, here)
    result: list[ModuleType] = []
    try:
        _execute(lambda: result.append(importlib.import_module(target)), target)
    except UserTraceback as failure:
        cause = failure.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and (target + ".").startswith(cause.name + "."):
            raise CliError(f"No such module: {target} (`{cause.name}` was not found from {here}).", 2) from None
        raise
    return result[0]


def _execute(load: Callable[[], object], target: str) -> None:
    try:
        load()
    except SyntaxError as error:
        raise CliError(_describe_syntax_error(error, target)) from error
    except SystemExit as error:
        raise CliError(f"{target} ended the program (exit {error.code}) while it was imported.") from error
    except UnicodeDecodeError as error:
        raise CliError(f"{target} is not UTF-8 text.", 2) from error
    except ImportError as error:
        if "no known parent package" in str(error):
            raise CliError(
                f"{target} imports relative to its package, which a file has none of: run it as a module, "
                "as in `modal run -m package.module`."
            ) from error
        raise UserTraceback(target) from error
    except Exception as error:
        raise UserTraceback(target) from error


def _describe_syntax_error(error: SyntaxError, target: str) -> str:
    where = f"{error.filename or target}, line {error.lineno}" if error.lineno else str(error.filename or target)
    text = f"Syntax error in {where}: {error.msg}."
    if error.text and error.text.strip():
        line = error.text.rstrip("\n")
        text += f"\n    {line.strip()}"
        indent = len(line) - len(line.lstrip())
        if error.offset and error.offset > indent:
            text += f"\n    {' ' * (error.offset - 1 - indent)}^"
    return text


def _file_hint(path: Path) -> str:
    """Near matches among the Python files in the same folder, or the `.py` that was left out."""
    with_suffix = path.with_name(path.name + ".py")
    if not path.suffix and path.name and with_suffix.is_file():
        return f" Did you mean `{with_suffix}`?"
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix == ".py"]
    except OSError:
        return ""
    hint = near_matches(path.name, names)
    return f" {hint}" if hint.startswith("Did you mean") else ""


def find_apps(module: ModuleType) -> dict[str, Any]:
    """The apps in a module's namespace by the name of their variable. One app under two names is listed once."""
    from modal.app import App

    apps: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, App) and all(value is not known for known in apps.values()):
            apps[name] = value
    return apps


def find_app(module: ModuleType, reference: AppReference) -> Any:
    """Choose an app: the one that is named, else that in the variable `app`, else the only one.

    Raises:
        CliError: there is none, none of that name, or more than one candidate.
    """
    apps = _require_apps(module, reference)
    if reference.name:
        value = apps.get(reference.name, getattr(module, reference.name, None))
        if not any(value is app for app in apps.values()):
            hint = near_matches(reference.name, apps)
            raise CliError(f"{reference.target} has no app `{reference.name}`. {hint}".rstrip())
        return value
    if "app" not in apps and len(apps) > 1:
        flag = "-m " if reference.is_module else ""
        raise CliError(
            f"{reference.target} has {len(apps)} apps: {listing(apps, 'and')}. "
            f"Name one, as in `modal deploy {flag}{reference.target}::{next(iter(apps))}`.",
            2,
        )
    return apps.get("app") or next(iter(apps.values()))


def _require_apps(module: ModuleType, reference: AppReference) -> dict[str, Any]:
    apps = find_apps(module)
    if not apps:
        raise CliError(
            f"{reference.target} defines no app: it needs a variable such as `app = modal.App()` at module level."
        )
    return apps


def find_runnable(module: ModuleType, reference: AppReference) -> Runnable:
    """Choose what to run.

    Without a name: the single local entrypoint, else the single function, of the app in the variable `app` when it
    has one, else of all apps.

    Raises:
        CliError: there is no app, no such function, or more than one candidate.
    """
    apps = _require_apps(module, reference)
    if not reference.name:
        return _choose(apps, reference)
    first, dot, rest = reference.name.partition(".")
    if not dot and first in apps:
        return _choose({first: apps[first]}, reference)
    if dot and first in apps:
        apps, wanted = {first: apps[first]}, rest
    else:
        wanted = reference.name
    found = _lookup(module, apps, wanted)
    if found is not None:
        return found
    _refuse_class(module, apps, wanted)
    hint = near_matches(wanted, (item.name for item in _all_runnables(apps)))
    raise CliError(f"{reference.target} has no function or entrypoint `{wanted}`. {hint}".rstrip())


def _all_runnables(apps: dict[str, Any]) -> list[Runnable]:
    """Every entrypoint, function and method, local entrypoints first, each once."""
    found: list[Runnable] = []
    for app in apps.values():
        found += [Runnable(app, name, target, True) for name, target in app.registered_entrypoints.items()]
    for app in apps.values():
        found += [Runnable(app, name, target, False) for name, target in app.registered_functions.items()]
        for tag, cls in app.registered_classes.items():
            found += [Runnable(app, f"{tag}.{name}", ClassMethod(cls, name), False) for name in cls._spec.methods]
    unique: list[Runnable] = []
    for item in found:
        if all(_identity(item.target) != _identity(other.target) for other in unique):
            unique.append(item)
    return unique


def _identity(target: Any) -> tuple[int, str]:
    return (id(target.cls), target.name) if isinstance(target, ClassMethod) else (id(target), "")


def _lookup(module: ModuleType, apps: dict[str, Any], wanted: str) -> Optional[Runnable]:
    candidates = _all_runnables(apps)
    for item in candidates:
        if item.name == wanted:
            return item
    methods = [item for item in candidates if item.name.startswith(f"{wanted}.")]
    if len(methods) == 1:  # a class with one method
        return methods[0]
    # A function may be registered under another name than its variable has.
    value = getattr(module, wanted, None) if "." not in wanted else None
    return next((item for item in candidates if value is not None and item.target is value), None)


def _choose(apps: dict[str, Any], reference: AppReference) -> Runnable:
    scopes = [{"app": apps["app"]}, apps] if "app" in apps and len(apps) > 1 else [apps]
    choices: list[Runnable] = []
    for scope in scopes:
        everything = _all_runnables(scope)
        local = [item for item in everything if item.is_local]
        choices = local or everything
        if len(choices) == 1:
            return choices[0]
    if not choices:
        raise CliError(f"The app in {reference.target} has no local entrypoint and no function to run.")
    kind = "local entrypoints" if choices[0].is_local else "functions and no local entrypoint"
    flag = "-m " if reference.is_module else ""
    raise CliError(
        f"{reference.target} has {len(choices)} {kind}: {listing([item.name for item in choices], 'and')}. "
        f"Name one, as in `modal run {flag}{reference.target}::{choices[0].name}`.",
        2,
    )


def _refuse_class(module: ModuleType, apps: dict[str, Any], wanted: str) -> None:
    """Say what to name instead when the reference names a class, or what a class does not have."""
    name = wanted.partition(".")[0]
    for app in apps.values():
        cls = app.registered_classes.get(name)
        if cls is not None:
            methods = list(cls._spec.methods)
            if not methods:
                raise CliError(f"The class `{name}` has no method to run: mark one with @modal.method().", 2)
            what = f"`{name}` is a class" if wanted == name else f"`{wanted}` is not a method of the class `{name}`"
            raise CliError(f"{what}; it has {listing(methods, 'and')}. Name one, as in `{name}.{methods[0]}`.", 2)
    if isinstance(getattr(module, name, None), type):
        raise CliError(f"The class `{name}` belongs to no app: decorate it with `@app.cls()`.")
