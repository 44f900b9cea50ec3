"""Exceptions as payloads: the tree of an exception, its causes, contexts and group members, with their tracebacks.

The tree is pickled from plain values only and read by an unpickler that knows no classes, so bytes of any origin can be
looked at. Each exception in it travels in one of these ways, decided where it was raised by trying:

    pickle   the exception's own pickle; it came back whole when tried
    parts    class, args and attributes, put together again without `__init__`, whose signature may not take args
    group    as parts, for an exception group, whose members are exceptions of the tree
    text     neither works: type name and message
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys

from . import _serialization
from ._signals import is_from_handler
from ._tracebacks import frames_of, remote_traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Union

_FORMAT = 1
_NODE_LIMIT = 1000
_TEXT_LIMIT = 100_000
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", None)  # from Python 3.11 on


def dump(exc: BaseException) -> bytes:
    """Describe `exc` in bytes."""
    nodes: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    waiting = [exc]
    while waiting and len(nodes) < _NODE_LIMIT:
        one = waiting.pop()
        if id(one) in numbers:
            continue
        numbers[id(one)] = len(nodes)
        nodes.append({"exc": one})
        waiting.extend(_relatives(one))
    for node in nodes:
        one = node.pop("exc")
        _describe(node, one, numbers)
    version = ".".join(map(str, sys.version_info[:3]))
    return pickle.dumps({"format": _FORMAT, "python": version, "nodes": nodes}, 4)


def load(data: Union[bytes, memoryview]) -> BaseException:
    """Make the exception that `data` describes.

    Raises:
        Exception: of any kind, when `data` is malformed.
    """
    tree = _PlainUnpickler(io.BytesIO(data)).load()
    if tree["format"] != _FORMAT:
        raise ValueError(f"it has format {tree['format']}, this SDK reads {_FORMAT}")
    nodes = tree["nodes"]
    made: dict[int, BaseException] = {}
    for number in sorted(range(len(nodes)), reverse=True):
        _make(nodes, number, made, set(), str(tree["python"]))
    for number, node in enumerate(nodes):
        exc = made[number]
        exc.__context__ = _at(made, node["context"])
        exc.__cause__ = _at(made, node["cause"])
        exc.__suppress_context__ = bool(node["suppress"])
    return made[0]


class _PlainUnpickler(pickle.Unpickler):
    """Reads values, never code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _relatives(exc: BaseException) -> list[BaseException]:
    found = [exc.__context__, exc.__cause__, *_members(exc)]
    return [one for one in found if isinstance(one, BaseException)]


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    return tuple(exc.exceptions) if _GROUP is not None and isinstance(exc, _GROUP) else ()


def _describe(node: dict[str, Any], exc: BaseException, numbers: dict[int, int]) -> None:
    from ._runtime_context import container_context

    cls = type(exc)
    context = container_context()
    members = _members(exc)
    way, data, why = ("group", _parts(exc), "") if members else _pickled(exc)
    node.update(
        module=str(cls.__module__),
        name=str(cls.__qualname__),
        text=_text(exc),
        way=way,
        data=data,
        why=why,
        members=[numbers[id(one)] for one in members if id(one) in numbers],
        cause=numbers.get(id(exc.__cause__)) if exc.__cause__ is not None else None,
        context=numbers.get(id(exc.__context__)) if exc.__context__ is not None else None,
        suppress=bool(exc.__suppress_context__),
        notes=[str(note)[:_TEXT_LIMIT] for note in _notes(exc)],
        frames=frames_of(exc.__traceback__, context.container_id if context else ""),
        remote=str(getattr(exc, "remote_traceback", "") or ""),
    )


def _notes(exc: BaseException) -> list[Any]:
    notes = getattr(exc, "__notes__", None)
    return list(notes) if isinstance(notes, (list, tuple)) else []


def _text(exc: BaseException) -> str:
    try:
        return str(exc)[:_TEXT_LIMIT]
    except Exception as error:  # a broken __str__ must not hide the failure
        return f"<its __str__ raised {type(error).__name__}>"


def _pickled(exc: BaseException) -> tuple[str, bytes, str]:
    """The way that `exc` can travel, its data, and why it can only travel as text."""
    why = ""
    try:
        data = _serialization.serialize(exc)
        copy = _serialization.deserialize(data)
        if type(copy).__qualname__ == type(exc).__qualname__ and _text(copy) == _text(exc):
            return "pickle", data, ""
    except BaseException as error:  # its __reduce__ and __init__ are the user's code
        if isinstance(error, KeyboardInterrupt):
            raise
        why = f"it cannot be pickled ({_described(error)})"
    data = _parts(exc)
    return ("parts", data, "") if data else ("text", b"", why)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text(error)[:1000].rstrip('.')}"


def _parts(exc: BaseException) -> bytes:
    """Pickle the class, args and attributes of `exc`; b"" when even its class cannot be pickled."""
    cls = type(exc)
    args = exc.args[1:] if _members(exc) else exc.args
    message = exc.args[:1] if _members(exc) else ()
    if _members(exc):
        args = ()
    attributes = {name: value for name, value in vars(exc).items() if _try(value) is not None}
    safe = tuple(arg if _try(arg) is not None else repr(arg)[:1000] for arg in (*message, *args))
    return _try((cls, safe, attributes)) or b""


def _try(obj: Any) -> Optional[bytes]:
    try:
        data = _serialization.serialize(obj)
        _serialization.deserialize(data)
    except Exception:  # the answer: it cannot be pickled
        return None
    return data


def _make(
    nodes: list[dict[str, Any]], number: int, made: dict[int, BaseException], under_way: set[int], python: str
) -> BaseException:
    if number in made:
        return made[number]
    node = nodes[number]
    members = []
    for member in node["members"]:
        if member in under_way:
            raise ValueError("a group contains itself")
        members.append(_make(nodes, member, made, under_way | {number}, python))
    exc, why = _revive(node, members)
    frames = [(str(file), int(line), str(name), str(source)) for file, line, name, source in node["frames"]]
    if exc is None:
        exc = _stand_in(node, frames, python)
    notes = node["notes"]
    if why:
        notes = [*notes, f"This stands for the exception itself: {why}."]
    if notes and not hasattr(exc, "__notes__"):
        try:
            exc.__notes__ = [str(note) for note in notes]
        except Exception:  # a class with __slots__ or its own __setattr__: the notes are lost, the failure is not
            return _keep(made, number, exc, frames)
    return _keep(made, number, exc, frames)


def _keep(
    made: dict[int, BaseException], number: int, exc: BaseException, frames: list[tuple[str, int, str, str]]
) -> BaseException:
    exc.__traceback__ = remote_traceback(frames)
    made[number] = exc
    return exc


def _at(made: dict[int, BaseException], number: Optional[int]) -> Optional[BaseException]:
    return None if number is None else made[number]


def _revive(node: dict[str, Any], members: list[BaseException]) -> tuple[Optional[BaseException], str]:
    """Make the exception itself; None, and why, when its class cannot be had here."""
    way, data = node["way"], node["data"]
    if way == "text" or not data:
        return None, str(node.get("why") or "it cannot be pickled")
    try:
        if way == "pickle":
            exc = _serialization.deserialize(data)
        else:
            cls, args, attributes = _serialization.deserialize(data)
            args = (*args, members) if way == "group" else args
            exc = cls.__new__(cls, *args)
            if way == "parts":
                exc.args = args
            exc.__dict__.update(attributes)
    except Exception as error:  # whatever the reason, a stand-in tells more than a second error would
        if is_from_handler(error):
            raise
        return None, f"it cannot be unpickled here ({_described(error)})"
    return (exc, "") if isinstance(exc, BaseException) else (None, "it was pickled as something else")


def _stand_in(node: dict[str, Any], frames: list[tuple[str, int, str, str]], python: str) -> BaseException:
    from .exception import RemoteError

    module, name, text = str(node["module"]), str(node["name"]), str(node["text"])
    full = name if module == "builtins" else f"{module}.{name}"
    exc = RemoteError(f"{full}: {text}" if text else full)
    shown = [f'  File "{file}", line {line}, in {function}\n    {source}\n' for file, line, function, source in frames]
    exc.remote_type = full  # type: ignore[attr-defined]
    exc.remote_python = python  # type: ignore[attr-defined]
    exc.remote_traceback = f"Traceback (most recent call last):\n{''.join(shown)}{full}: {text}"  # type: ignore[attr-defined]
    return exc
