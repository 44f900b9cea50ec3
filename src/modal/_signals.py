"""Exceptions of signal handlers, which may be raised at any point of a call that blocks.

A program may bound a piece of work by a handler of SIGALRM that raises TimeoutError. Where the SDK catches what its own
calls raise, that must not be taken for one of those.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Optional

_VARARGS = 0x04  # CO_VARARGS of `inspect`, whose import costs much


def is_from_handler(error: BaseException) -> bool:
    """Whether an exception that was caught here came from a signal handler rather than from what was called.

    Python calls a handler with the frame that it interrupts; no other function is given its caller's frame.
    """
    link: Optional[TracebackType] = error.__traceback__
    while link is not None and link.tb_next is not None:
        if _was_given(link.tb_next.tb_frame, link.tb_frame):
            return True
        link = link.tb_next
    return False


def _was_given(frame: FrameType, caller: FrameType) -> bool:
    code, values = frame.f_code, frame.f_locals
    if any(values.get(name) is caller for name in code.co_varnames[: code.co_argcount]):
        return True
    if not code.co_flags & _VARARGS:
        return False
    rest = values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
    return isinstance(rest, tuple) and any(value is caller for value in rest)
