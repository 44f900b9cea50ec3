"""The one map between exceptions and errors on the wire.

A typed error of `modal.exception` travels as its class name and its sentence, and is raised as the same class on the
other side. Anything else is a fault of the platform: its details stay in the log of the side that failed.
"""

from __future__ import annotations

import modal.exception

from .messages.common import ErrorInfo

GENERIC_FAILURE = "The server failed at this request; its log has the reason. Trying again may help."


class WireError(modal.exception.Error):
    """What arrived does not follow the protocol: a malformed or oversized frame, or a message of the wrong shape."""


class TooLarge(WireError, modal.exception.RequestSizeError):
    """A frame or its header is over the limit."""


def _typed_errors() -> dict[str, type[Exception]]:
    found: dict[str, type[Exception]] = {}
    for name, value in vars(modal.exception).items():
        if isinstance(value, type) and issubclass(value, Exception) and not issubclass(value, Warning):
            found[name] = value
    return found


_TYPED = _typed_errors()


def to_error_info(exc: BaseException) -> ErrorInfo:
    """Describe `exc` for the other side.

    A subclass of a class in `modal.exception` travels as that class; a `WireError` as InvalidError or RequestSizeError,
    since the sender of the malformed message is at fault; everything else as InternalFailure with a sentence that gives
    no details away. A dict in the exception's `data` attribute travels along.
    """
    if isinstance(exc, WireError):
        return ErrorInfo("RequestSizeError" if isinstance(exc, TooLarge) else "InvalidError", str(exc))
    for cls in type(exc).__mro__:
        if _TYPED.get(cls.__name__) is cls:
            data = getattr(exc, "data", None)
            return ErrorInfo(cls.__name__, str(exc), data if isinstance(data, dict) else {})
    return ErrorInfo("InternalFailure", GENERIC_FAILURE)


def is_typed(exc: BaseException) -> bool:
    """Whether `exc` is one that travels as itself, and so needs no entry in the log."""
    return any(_TYPED.get(cls.__name__) is cls for cls in type(exc).__mro__)


def from_error_info(info: ErrorInfo) -> Exception:
    """Make the exception that `info` describes; a class this version does not know becomes RemoteError."""
    exc = _TYPED.get(info.type, modal.exception.RemoteError)(info.message)
    if info.data:
        exc.data = dict(info.data)  # type: ignore[attr-defined]
    return exc
