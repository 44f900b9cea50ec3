"""Objects to bytes and back, between processes that know the user's script under different names.

A payload is ``u8 kind | u8 major | u8 minor | pickle``: the version is that of the Python which pickled, so that an
error can name both. The standard pickler is tried first; cloudpickle, which pickles functions and classes by value, is
imported only for what the former refuses. Buffers (numpy arrays) stay in the pickle: that is one copy on each side,
and the receiver's arrays are writable.

What a signal handler raises meanwhile says nothing about the data, and is passed on as it is.

Names. A script run as ``python app.py`` is ``__main__`` to its own process and ``app`` to a container. A container puts
the script into `sys.modules` under both names, so there either resolves. The user's process must not import the script
a second time, so here `_Unpickler` resolves ``app`` to the running ``__main__``. Where ``__main__`` is no file (a
notebook, the REPL) its classes have no name on the other side, and travel by value.
"""

from __future__ import annotations

import io
import pickle
import sys

from ._signals import is_from_handler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Callable, Optional, Union

    Buffer = Union[bytes, bytearray, memoryview]

__all__ = ["deserialize", "deserialize_failure", "serialize", "serialize_failure", "serialize_function"]

_PROTOCOL = 5  # every Python from 3.8 on
_OBJECT = 1
_FAILURE = 2
TAG_SIZE = 3
TAG = bytes((_OBJECT, sys.version_info[0], sys.version_info[1]))
_FAILURE_TAG = bytes((_FAILURE, sys.version_info[0], sys.version_info[1]))
_HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"

_dumps = pickle.dumps
_loads = pickle.loads


def serialize(obj: Any, *, main_by_value: bool = False) -> bytes:
    """Pickle `obj` for another process of this app.

    Args:
        obj: any object.
        main_by_value: classes and functions of ``__main__`` travel by value. For a receiver that does not have the
            script: a function that is serialized or that lives in another module.

    Raises:
        SerializationError: `obj` cannot be pickled, or pickling it raised.
    """
    try:
        data = _dumps(obj, _PROTOCOL)
    except Exception as error:
        if is_from_handler(error):
            raise
        return TAG + _dumps_by_value(obj, main_by_value, error)
    if (main_by_value or _main_is_nameless()) and b"__main__" in data:
        return TAG + _dumps_by_value(obj, True, None)
    return TAG + data


def serialize_function(function: Callable[..., Any]) -> bytes:
    """Pickle a function by value, with all it needs from its own module.

    Modules that it imports are imported again by the receiver.

    Raises:
        SerializationError: something it refers to cannot be pickled.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise _serialization_error(function, "the package 'cloudpickle' is not installed") from None
    by_value = module is not None and module.__name__ != "__main__" and _is_user_file(module)
    if by_value:
        by_value = module not in cloudpickle.list_registry_pickle_by_value()
    try:
        if by_value:
            cloudpickle.register_pickle_by_value(module)
        return TAG + bytes(cloudpickle.dumps(function, protocol=_PROTOCOL))
    except Exception as error:
        if is_from_handler(error):
            raise
        raise _serialization_error(function, _reason(error)) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def deserialize(data: Buffer) -> Any:
    """Unpickle what `serialize` made. `data` may be a view into a larger buffer; nothing keeps a reference to it.

    Raises:
        DeserializationError: `data` is not such a payload, or needs a module, class or Python version that is not here.
    """
    if len(data) <= TAG_SIZE or data[0] != _OBJECT:
        raise _deserialization_error("The data is not a payload of this SDK; it may come from another version.")
    alias = _main_alias()
    try:
        view = memoryview(data)[TAG_SIZE:]
        if alias and alias.encode() in bytes(view):
            return _Unpickler(io.BytesIO(view), alias).load()
        return _loads(view)
    except Exception as error:
        if is_from_handler(error):
            raise
        raise _deserialization_error(_why_not(error, data[1], data[2])) from error


def serialize_failure(exc: BaseException) -> bytes:
    """Pickle an exception with its causes, notes, group members and tracebacks. Strange ones do not make it raise."""
    from . import _failures

    return _FAILURE_TAG + _failures.dump(exc)


def deserialize_failure(data: Buffer) -> BaseException:
    """Make the exception that `serialize_failure` described, remote frames attached.

    An exception whose class cannot be had here becomes a RemoteError with its type name and message; its attributes
    `remote_type`, `remote_python` and `remote_traceback` hold the rest as text.

    Raises:
        DeserializationError: `data` is not such a payload.
    """
    if len(data) <= TAG_SIZE or data[0] != _FAILURE:
        raise _deserialization_error("The data does not describe a failure; it may come from another version.")
    from . import _failures

    try:
        return _failures.load(memoryview(data)[TAG_SIZE:])
    except Exception as error:
        if is_from_handler(error):
            raise
        raise _deserialization_error(
            f"The description of a remote failure cannot be read: {_reason(error)}."
        ) from error


class _Unpickler(pickle.Unpickler):
    """Resolves the name under which containers know the script to the script that runs here."""

    def __init__(self, file: io.BytesIO, alias: str):
        super().__init__(file)
        self._alias = alias

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class("__main__" if module == self._alias else module, name)


def _main_alias() -> str:
    """The name that containers know ``__main__`` by, "" when it needs no translation here."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return name[: -len(".__main__")] + ".__main__" if name.endswith(".__main__") else name
    path = getattr(main, "__file__", None)
    if not path:
        return ""
    stem = str(path).replace("\\", "/").rpartition("/")[2]
    stem = stem[: -len(".py")] if stem.endswith(".py") else stem
    return "" if stem in sys.modules else stem


def _main_is_nameless() -> bool:
    main = sys.modules.get("__main__")
    return not getattr(main, "__file__", None)


def _is_user_file(module: ModuleType) -> bool:
    """Whether a module is the user's own file rather than an installed package."""
    path = getattr(module, "__file__", None) or ""
    return bool(path) and "site-packages" not in path and not path.startswith((sys.base_prefix, sys.prefix))


def _dumps_by_value(obj: Any, main_by_value: bool, first_error: Optional[Exception]) -> bytes:
    if isinstance(first_error, RecursionError):
        raise _serialization_error(obj, "it is nested too deeply") from first_error
    try:
        import cloudpickle
    except ImportError:
        reason = _reason(first_error) if first_error else "the package 'cloudpickle' is not installed"
        raise _serialization_error(obj, reason) from first_error
    by_value = main_by_value or _main_is_nameless()
    main = sys.modules.get("__main__")

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, one: Any) -> Any:
            if not by_value and getattr(one, "__module__", None) == "__main__" and _is_global(main, one):
                return NotImplemented  # by reference
            return super().reducer_override(one)

    buffer = io.BytesIO()
    try:
        Pickler(buffer, protocol=_PROTOCOL).dump(obj)
    except Exception as error:
        if is_from_handler(error):
            raise
        raise _serialization_error(obj, _reason(error)) from error
    return buffer.getvalue()


def _is_global(module: Optional[ModuleType], obj: Any) -> bool:
    found: Any = module
    for name in str(getattr(obj, "__qualname__", "")).split("."):
        found = getattr(found, name, None)
    return found is obj and isinstance(obj, (type, type(_is_global)))


def _serialization_error(obj: Any, reason: str) -> Exception:
    from .exception import SerializationError

    cls = type(obj)
    return SerializationError(f"An object of type {cls.__module__}.{cls.__qualname__} cannot be pickled: {reason}.")


def _deserialization_error(message: str) -> Exception:
    from .exception import DeserializationError

    return DeserializationError(message)


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error).strip().rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


#: Modules that come with Python, in some version. Python 3.9 does not say.
_OF_PYTHON = getattr(sys, "stdlib_module_names", ("pathlib",))


def _why_not(error: Exception, major: int, minor: int) -> str:
    missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
    is_of_python = missing.partition(".")[0] in _OF_PYTHON
    if missing and not is_of_python:
        return f"Data cannot be unpickled here since the module {missing!r} is not installed here."
    there = f"{major}.{minor}"
    if there != _HERE:
        return (
            f"Data pickled by Python {there} cannot be unpickled by Python {_HERE}: {_reason(error)}. "
            f'Use one version on both sides, e.g. Image.debian_slim(python_version="{_HERE}").'
        )
    hint = " It may come from another version of Python." if is_of_python else ""  # keys do not say from which
    return f"Data cannot be unpickled here: {_reason(error)}.{hint}"
