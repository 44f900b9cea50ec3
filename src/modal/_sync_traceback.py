"""Tracebacks that show the user's frames, not those of the SDK between them."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Optional, TypeVar

from .exception import Error

_PACKAGE = str(Path(__file__).parent) + os.sep
_LIBRARY = str(Path(os.__file__).parent) + os.sep
_OURS = (_PACKAGE, _LIBRARY + "asyncio" + os.sep, _LIBRARY + "contextlib.py")

Raised = TypeVar("Raised", bound=BaseException)


def clean(error: Raised) -> Raised:
    """Take the SDK's own frames out of the traceback of `error`, and return it for raising.

    A failure inside the SDK that is no typed error keeps its frames, and so does everything with `MODAL_TRACEBACK=1`.
    """
    frames: list[TracebackType] = []
    link: Optional[TracebackType] = error.__traceback__
    while link is not None:
        frames.append(link)
        link = link.tb_next
    if not frames or _wants_all():
        return error
    if _is_ours(frames[-1]) and isinstance(error, Exception) and not isinstance(error, Error):
        return error
    kept: Optional[TracebackType] = None
    for frame in reversed(frames):
        if not _is_ours(frame):
            kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return error.with_traceback(kept)


def _is_ours(frame: TracebackType) -> bool:
    return frame.tb_frame.f_code.co_filename.startswith(_OURS)


def _wants_all() -> bool:
    return os.environ.get("MODAL_TRACEBACK", "").lower() in ("1", "true", "yes", "on")
