"""Finding the user's function: run the script, import the module, or unpickle.

Every way in which that can fail becomes a `LoadError`, which carries what the caller of the function will see.
"""

# pathlib would cost a good part of the time that a container takes to start
# ruff: noqa: PTH120
from __future__ import annotations

import os
import sys
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable


class LoadError(Exception):
    """User code could not be loaded. `cause` is the user's exception, if there is one."""

    def __init__(self, kind: str, message: str, cause: BaseException | None = None):
        super().__init__(message)
        self.kind = kind  #: a class name of modal.exception
        self.message = message
        self.cause = cause


def load(source: dict[str, Any], body: memoryview) -> Callable[..., Any]:
    """Return the function that `source` (a `modal._wire.messages.function.Source` as JSON) names.

    Raises:
        LoadError: it cannot be had.
        KeyboardInterrupt: the container is told to stop while it loads.
    """
    kind = source.get("kind")
    if kind == "serialized":
        return _raw(_unpickle(source, body), str(source.get("qualname", "the serialized object")))
    module = _run_script(source) if kind == "file" else _import_module(source)
    qualname = str(source.get("qualname", ""))
    return _raw(_get(module, qualname), qualname)


def load_class(source: dict[str, Any], body: memoryview) -> type:
    """Return the class that `source` names, without what the SDK put around it.

    Raises:
        LoadError: it cannot be had.
        KeyboardInterrupt: the container is told to stop while it loads.
    """
    kind, name = source.get("kind"), str(source.get("qualname", ""))
    if kind == "serialized":
        found = _unpickle(source, body)
    else:
        found = _get(_run_script(source) if kind == "file" else _import_module(source), name)
    cls = getattr(found, "_user_cls", None) or found
    if not isinstance(cls, type):
        raise LoadError("InvalidError", f"{name} is a {type(found).__name__} in the container, not a class.")
    return cls


def _run_script(source: dict[str, Any]) -> ModuleType:
    path, name = str(source.get("path", "")), str(source.get("module", ""))
    module = ModuleType(name)
    module.__file__ = path
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        message = f"The script {path} cannot be read in the container: {error.strerror}. Was it sent along?"
        raise LoadError("ExecutionError", message) from None
    directory = os.path.dirname(path)
    if directory not in sys.path:
        sys.path.insert(1, directory)
    # Under both names, as the user's process may know it by either; pickles then resolve whichever they hold.
    sys.modules[name] = module
    sys.modules["__main__"] = module
    with _Explained(source, name):
        exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)
    return sys.modules.get(name, module)


def _import_module(source: dict[str, Any]) -> ModuleType:
    name = str(source.get("module", ""))
    with _Explained(source, name):
        __import__(name)
    module = sys.modules[name]
    sys.modules["__main__"] = module
    return module


def _unpickle(source: dict[str, Any], body: memoryview) -> Any:
    from modal import _serialization

    there, here = str(source.get("python", "")), f"{sys.version_info[0]}.{sys.version_info[1]}"
    if there and there != here:
        # Bytecode of another version may load without complaint, and then crash or compute nonsense.
        message = (
            f"The function was serialized by Python {there} but the image has Python {here}: with serialized=True "
            f'both must be the same. Use Image.debian_slim(python_version="{there}").'
        )
        raise LoadError("DeserializationError", message)
    try:
        return _serialization.deserialize(body)
    except Exception as error:
        cause = error.__cause__ or error
        _explain_missing_module(cause, source)
        message = f"The serialized function cannot be unpickled in the container: {summary(cause)}."
        raise LoadError("DeserializationError", message, cause) from None


def _get(module: ModuleType, qualname: str) -> Any:
    if "<locals>" in qualname:
        message = (
            f"The function {qualname} is defined inside another function, so containers cannot find it in its module: "
            f"move it to the top level or use serialized=True."
        )
        raise LoadError("InvalidError", message)
    found: Any = module
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            message = (
                f"The module {module.__name__} in the container has no {qualname!r}. Is it defined only under a "
                f"condition, such as `if modal.is_local()`, or removed again?"
            )
            raise LoadError("NotFoundError", message) from None
    return found


def _raw(found: Any, name: str) -> Callable[..., Any]:
    get_raw = getattr(found, "get_raw_f", None)
    function = get_raw() if callable(get_raw) else found
    if not callable(function):
        raise LoadError("InvalidError", f"{name} is a {type(function).__name__} in the container, not a function.")
    return function  # type: ignore[no-any-return]


class _Explained:
    """A context in which user code is imported; what it raises becomes a LoadError."""

    def __init__(self, source: dict[str, Any], name: str):
        self._source = source
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, cls: Any, exc: BaseException | None, traceback: Any) -> None:
        if exc is None or isinstance(exc, KeyboardInterrupt):
            return
        if isinstance(exc, SystemExit):
            message = f"The module {self._name} called sys.exit({exc.code!r}) while it was imported."
            raise LoadError("ExecutionError", message) from None
        _explain_missing_module(exc, self._source)
        raise LoadError("ExecutionError", f"The module {self._name} failed to import: {summary(exc)}.", exc) from None


def _explain_missing_module(exc: BaseException, source: dict[str, Any]) -> None:
    """Say of a module that exists in the user's process but was not sent, how to send it."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return
    top = exc.name.partition(".")[0]
    if top not in source.get("local_modules", ()):
        return
    hint = (
        f"{exc.msg}. It exists on your machine but was not sent to the container: "
        f'add it with image.add_local_python_source("{top}")'
    )
    exc.msg = hint
    exc.args = (hint,)


def summary(exc: BaseException) -> str:
    """An exception on one line or a few, as Python prints it last."""
    try:
        text = str(exc).strip().rstrip(".")
    except Exception:  # a broken __str__
        text = ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
