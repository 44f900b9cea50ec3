"""Tracebacks that cross processes.

`frames_of` reduces a traceback to plain values; `remote_traceback` makes of them a real traceback object, so that every
program that prints tracebacks prints the remote frames after the local ones, with their source lines.
"""

# pathlib would cost a good part of the time that a container takes to start
# ruff: noqa: PTH100, PTH110, PTH118, PTH120
from __future__ import annotations

import os
import sys
from types import FrameType, FunctionType, TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Optional

    #: file name, line number, function name, source line
    RemoteFrame = tuple[str, int, str, str]

_SDK = os.path.dirname(os.path.abspath(__file__)) + os.sep
_RUNTIME = os.path.join(_SDK, "_container", "")  # never shown: a wrong number of arguments is not its doing
_KEPT_AT_EACH_END = 500  #: frames of a traceback that is longer than twice this


def frames_of(traceback: Optional[TracebackType], origin: str = "") -> list[RemoteFrame]:
    """Describe `traceback`, outermost frame first, without the SDK's own frames (unless it has no others).

    Args:
        traceback: what to describe.
        origin: where this process is, e.g. a container id; frames become ``<origin>:/path``. Frames that come from
            yet another process keep theirs.
    """
    entries = []
    current = traceback
    while current is not None:
        entries.append((current.tb_frame.f_code, current.tb_lineno))
        current = current.tb_next
    own = [entry for entry in entries if not _is_sdk(entry[0].co_filename)]
    entries = own or [entry for entry in entries if not entry[0].co_filename.startswith(_RUNTIME)]
    if len(entries) > 2 * _KEPT_AT_EACH_END:
        entries = entries[:_KEPT_AT_EACH_END] + entries[-_KEPT_AT_EACH_END:]
    return [_describe(code, line, origin) for code, line in entries]


def without_sdk_frames(traceback: Optional[TracebackType]) -> Optional[TracebackType]:
    """Return `traceback` without the SDK's own frames (unless it has no others), for showing it to people."""
    kept = []
    current = traceback
    while current is not None:
        if not _is_sdk(current.tb_frame.f_code.co_filename):
            kept.append(current)
        current = current.tb_next
    if not kept:
        return traceback
    result: Optional[TracebackType] = None
    for entry in reversed(kept):
        result = TracebackType(result, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return result


def remote_traceback(frames: list[RemoteFrame]) -> Optional[TracebackType]:
    """Make a traceback object that prints as `frames` do, source lines included."""
    _remember_lines(frames)
    traceback: Optional[TracebackType] = None
    cache: dict[tuple[str, int, str], FrameType] = {}
    for filename, line, name, _ in reversed(frames):
        key = (filename, line, name)
        frame = cache.get(key)
        if frame is None:
            frame = cache[key] = _stub_frame(filename, line, name)
        traceback = TracebackType(traceback, frame, -1, line)  # -1: no position within the line is known
    if frames:
        _show_remote_lines()
    return traceback


def _is_sdk(filename: str) -> bool:
    return filename.startswith((_SDK, "<frozen importlib"))


def _describe(code: CodeType, line: Optional[int], origin: str) -> RemoteFrame:
    import linecache

    filename = code.co_filename
    number = line or code.co_firstlineno
    try:
        source = linecache.getline(filename, number).strip()
    except Exception:  # a loader's get_source may raise anything; a frame without its line is still worth showing
        source = ""
    shown = filename if filename.startswith("<") or not origin else f"<{origin}>:{filename}"
    return shown, number, code.co_name, source[:1000]


def _get_frame() -> FrameType:
    return sys._getframe()


def _stub_frame(filename: str, line: int, name: str) -> FrameType:
    changes: dict[str, Any] = {"co_filename": filename, "co_name": name, "co_firstlineno": line}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = name
    stub = FunctionType(_get_frame.__code__.replace(**changes), {"sys": sys, "__name__": "<remote>"})
    frame: FrameType = stub()
    return frame


def _remember_lines(frames: list[RemoteFrame]) -> None:
    import linecache

    by_file: dict[str, dict[int, str]] = {}
    for filename, line, _, source in frames:
        if source and 0 < line < 1_000_000:
            by_file.setdefault(filename, {})[line] = source
    for filename, known in by_file.items():
        if os.path.exists(filename):
            continue  # the file here speaks for itself
        old = linecache.cache.get(filename)
        lines = list(old[2]) if old is not None and len(old) > 1 and old[2] else []
        lines += ["\n"] * (max(known) - len(lines))
        for line, source in known.items():
            lines[line - 1] = source + "\n"
        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


def _show_remote_lines() -> None:
    """Print uncaught exceptions in Python: up to 3.12 the interpreter's own printer does not know of linecache."""
    if sys.version_info < (3, 13) and sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_uncaught


def _print_uncaught(cls: type[BaseException], exc: BaseException, traceback: Optional[TracebackType]) -> None:
    from traceback import print_exception

    print_exception(cls, exc, traceback)
