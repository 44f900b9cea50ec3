"""Tracebacks that show the user's code, local and remote, and none of ours."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import Optional

import click

from ..exception import Error

#: Where the SDK's own frames come from: this process, and containers.
_OURS = (str(Path(__file__).parent.parent) + os.sep, "/opt/intermodal/", "<frozen ")
_LIBRARY = str(Path(os.__file__).parent) + os.sep
#: What stands between our frames and the user's.
_PLUMBING = (
    *(_LIBRARY + name for name in ("asyncio/", "concurrent/futures/", "importlib/", "contextlib.py", "threading.py")),
    *(str(Path(click.__file__).parent.parent / package) + os.sep for package in ("click", "cloudpickle")),
)


def is_ours(filename: str) -> bool:
    """Whether a frame of this file is the SDK's."""
    return filename.startswith(_OURS)


def _is_noise(filename: str) -> bool:
    return is_ours(filename) or filename.startswith(_PLUMBING)


def has_user_frames(error: BaseException) -> bool:
    """Whether any code but ours was running when `error` was raised."""
    frames: Optional[TracebackType] = error.__traceback__
    while frames is not None:
        if not _is_noise(frames.tb_frame.f_code.co_filename):
            return True
        frames = frames.tb_next
    return False


def format_user_traceback(error: BaseException) -> str:
    """Format `error`, its causes and notes as Python does, leaving out frames that are ours or plumbing.

    An error of ours is the whole story where it happened: what led to it inside the SDK is left out too.
    """
    tree = traceback.TracebackException.from_exception(error)
    _prune(tree, error)
    return "".join(tree.format())


def _prune(tree: traceback.TracebackException, error: BaseException) -> None:
    seen: set[int] = set()
    waiting = [(tree, error)]
    while waiting:
        node, exception = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        node.stack[:] = [frame for frame in node.stack if not _is_noise(frame.filename)]
        for link in ("__cause__", "__context__"):
            before, reason = getattr(node, link), getattr(exception, link)
            if before is None or reason is None:
                continue
            if isinstance(exception, Error) and not has_user_frames(reason):
                setattr(node, link, None)
            else:
                waiting.append((before, reason))
        waiting += zip(getattr(node, "exceptions", None) or [], getattr(exception, "exceptions", []))
