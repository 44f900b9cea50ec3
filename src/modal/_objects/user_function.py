"""Where a user's function lives, and how a container will find it again."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._wire.messages.function import Source, SourceKind
from ..exception import InvalidError

if TYPE_CHECKING:
    from .._local_modules import EntryModule

#: Where scripts lie in containers.
_ROOT = "/root"


def check_function(function: Any, serialized: bool) -> None:
    """Refuse what a container could not find.

    Raises:
        InvalidError: it is no function, or it has no place in a module that a container could import; the message says
            what to do.
    """
    if inspect.isclass(function):
        raise InvalidError(f"@app.function() decorates functions, but {function.__name__} is a class: use @app.cls().")
    if isinstance(function, (staticmethod, classmethod)) or not callable(function):
        raise InvalidError(f"@app.function() decorates functions, not {function!r}.")
    if not hasattr(function, "__qualname__") or not hasattr(function, "__module__"):
        raise InvalidError(f"@app.function() decorates plain functions, not {type(function).__name__} objects.")
    if serialized:
        return
    qualname = function.__qualname__
    if function.__name__ == "<lambda>":
        raise InvalidError("A lambda has no name that a container could find it by: use `def`, or serialized=True.")
    if "<locals>" in qualname:
        raise InvalidError(
            f"The function {qualname} is defined inside another function, where a container cannot find it: move it to "
            "the top level of its file (global scope), or use serialized=True."
        )
    if "." in qualname:
        raise InvalidError(
            f"The function {qualname} is defined in a class: use @app.cls() and @modal.method(), "
            "or move it to the top level."
        )
    if function.__module__ == "__main__" and _main_path() is None:
        raise InvalidError(
            f"The function {qualname} is defined in a notebook or interactive session, which containers do not have: "
            "use serialized=True, or put it into a file."
        )


def check_scheduled_function(function: Callable[..., Any], name: str, is_generator: bool) -> None:
    """Refuse a function that cannot run by itself.

    Raises:
        InvalidError: it needs arguments, or yields values that nobody would take.
    """
    if is_generator:
        raise InvalidError(f"The function {name!r} has a schedule but is a generator, whose values nobody would take.")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # one that is written in C does not say
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in optional]
    if needed:
        raise InvalidError(
            f"The function {name!r} has a schedule, so it is called without arguments, but it needs "
            f"{' and '.join(map(repr, needed))}: give them defaults, or schedule a function that calls this one."
        )


def check_class_place(cls: Any, serialized: bool) -> None:
    """Refuse what is no class, and a class that a container could not find.

    Raises:
        InvalidError: it is none, or it has no place in a module that a container could import.
    """
    if not isinstance(cls, type):
        what = "a function" if callable(cls) else repr(cls)
        raise InvalidError(f"@app.cls() decorates classes, not {what}: use @app.function() for functions.")
    if serialized:
        return
    if "<locals>" in cls.__qualname__:
        raise InvalidError(
            f"The class {cls.__qualname__} is defined inside a function, where a container cannot find it: move it to "
            "the top level of its file (global scope), or use serialized=True."
        )
    if cls.__module__ == "__main__" and _main_path() is None:
        raise InvalidError(
            f"The class {cls.__qualname__} is defined in a notebook or interactive session, which containers do not "
            "have: use serialized=True, or put it into a file."
        )


def _main_path() -> Optional[Path]:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).absolute() if path and Path(path).suffix else None


@dataclass(frozen=True)
class Home:
    """The module that a function is defined in, as containers will know it."""

    name: str
    path: Optional[Path]
    is_script: bool  #: run it by path, since it cannot be imported by its name


def home_of(function: Callable[..., Any]) -> Home:
    """Find the module of a function. `__main__` gets the name that it can be had by elsewhere."""
    name = function.__module__
    module: Optional[ModuleType] = sys.modules.get(name)
    path_text = getattr(module, "__file__", None)
    path = Path(path_text).absolute() if path_text else None
    if name != "__main__":
        is_script = path is not None and not all(part.isidentifier() for part in name.split("."))
        return Home(name, path, is_script)
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.name:  # python -m package.module
        return Home(spec.name, path, False)
    return Home(path.stem if path is not None else "", path, True)


def entry_of(home: Home) -> Optional[EntryModule]:
    """The module as what must be sent; None when it is no file."""
    from .._local_modules import EntryModule

    if home.path is None:
        return None
    # A script is one file at the root, whatever dots its name has.
    return EntryModule(home.name.replace(".", "_") if home.is_script else home.name, home.path)


def source_for(function: Callable[..., Any], serialized: bool, local_modules: list[str]) -> Source:
    """How the container finds `function`.

    Args:
        function: the user's function.
        serialized: it travels pickled.
        local_modules: modules that exist here but are not sent, for error messages.
    """
    if serialized:
        return Source(
            SourceKind.SERIALIZED,
            qualname=function.__qualname__,
            python=f"{sys.version_info[0]}.{sys.version_info[1]}",
            local_modules=local_modules,
        )
    home = home_of(function)
    if home.is_script and home.path is not None:
        entry = entry_of(home)
        assert entry is not None
        return Source(
            SourceKind.FILE,
            module=home.name,
            qualname=function.__qualname__,
            path=f"{_ROOT}/{entry.name}.py",
            local_modules=local_modules,
        )
    return Source(SourceKind.MODULE, module=home.name, qualname=function.__qualname__, local_modules=local_modules)


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, blocking or async."""
    raw = inspect.unwrap(function)
    return inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)
