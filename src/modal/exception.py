"""The exceptions of the SDK.

Error
├── TimeoutError
│   ├── FunctionTimeoutError        a function ran longer than its `timeout`
│   ├── InteractiveTimeoutError     an interactive session could not be opened in time
│   ├── MountUploadTimeoutError     files could not be uploaded in time
│   ├── OutputExpiredError          the result was kept for its retention time and is gone
│   ├── SandboxTimeoutError
│   └── VolumeUploadTimeoutError
├── AuthError                       credentials are missing or wrong
├── ClientClosed                    the client was closed while a call was under way
├── ConnectionError                 the server cannot be reached
├── DeserializationError            data could not be unpickled here
├── ExecutionError                  the container failed: killed, out of memory, could not start
├── FilesystemExecutionError
├── InternalFailure                 the platform failed; trying again may help
├── InvalidError                    the request makes no sense: a bad value or combination
├── NotFoundError                   the named thing does not exist
├── RemoteError                     the server failed at something: an image step, a user error without its class
├── RequestSizeError                a payload is over its limit
├── SandboxTerminatedError
├── SerializationError              data could not be pickled here
└── VersionError                    client and server do not speak one protocol version
ModuleNotMountable (Exception)      a local module cannot be sent
InputCancellation (BaseException)   raised inside an input that is cancelled
DeprecationError, PendingDeprecationError, ServerWarning (UserWarning)
"""

from __future__ import annotations

import random
import signal
from typing import Any

_PREEMPTION_GRACE = 30.0  #: seconds between SIGINT and SIGKILL


class Error(Exception):
    """Base class of all errors that the SDK raises."""


class TimeoutError(Error):
    """Base class of timeouts."""


class FunctionTimeoutError(TimeoutError):
    """A function ran longer than its `timeout`."""


class InteractiveTimeoutError(TimeoutError):
    """An interactive session could not be opened in time."""


class MountUploadTimeoutError(TimeoutError):
    """Files could not be uploaded in time."""


class OutputExpiredError(TimeoutError):
    """The output was kept for its retention time and has been deleted."""


class SandboxTimeoutError(TimeoutError):
    """A sandbox ran longer than its `timeout`."""


class VolumeUploadTimeoutError(TimeoutError):
    """Files could not be uploaded to a volume in time."""


class AuthError(Error):
    """Credentials are missing or not accepted."""


class ClientClosed(Error):
    """The client was closed while a call was under way."""


class ConnectionError(Error):
    """The server cannot be reached, or the connection to it was lost."""


class DeserializationError(Error):
    """Data could not be unpickled in this process."""


class ExecutionError(Error):
    """The container that ran the input failed: it was killed, ran out of memory, or could not start."""


class FilesystemExecutionError(Error):
    """A file system operation in a container failed in an unexpected way."""


class InternalFailure(Error):
    """The platform failed; the same request may succeed when tried again."""


class InvalidError(Error):
    """The request makes no sense: a bad value, or parts that do not go together."""


class NotFoundError(Error):
    """The named thing does not exist."""


class RemoteError(Error):
    """Something failed on the server, for example a step of an image build."""


class RequestSizeError(Error):
    """A payload is larger than its limit."""


class SandboxTerminatedError(Error):
    """A sandbox was terminated for an internal reason."""


class SerializationError(Error):
    """Data could not be pickled in this process."""


class VersionError(Error):
    """Client and server do not speak the same protocol version; the message says which must be upgraded."""


class ModuleNotMountable(Exception):
    """A local module cannot be sent to containers."""


class InputCancellation(BaseException):
    """Raised inside the user code of an input that is cancelled.

    A BaseException, so that `except Exception` in user code does not swallow it.
    """


class DeprecationError(UserWarning):
    """A deprecated feature of the API was used."""


class PendingDeprecationError(UserWarning):
    """A feature of the API was used that will be deprecated."""


class ServerWarning(UserWarning):
    """A warning of the server, shown in the client."""


def simulate_preemption(wait_seconds: int, jitter_seconds: int = 0) -> None:
    """Interrupt this process as a preemption would: SIGINT after `wait_seconds`, SIGKILL 30 seconds later.

    Args:
        wait_seconds: seconds until SIGINT; above 0.
        jitter_seconds: up to this many random seconds are added before the SIGINT.

    Raises:
        InvalidError: if `wait_seconds` is not positive or `jitter_seconds` is negative.
    """
    if wait_seconds <= 0 or jitter_seconds < 0:
        raise InvalidError("simulate_preemption needs wait_seconds above 0 and jitter_seconds of at least 0.")

    import threading

    wait = wait_seconds + random.uniform(0, jitter_seconds)
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers. SIGINT reaches it all the same, when the time has come.
        _in_background(wait, signal.SIGINT)
        _in_background(wait + _PREEMPTION_GRACE, signal.SIGKILL)
        return

    def first(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGALRM, second)
        signal.setitimer(signal.ITIMER_REAL, _PREEMPTION_GRACE)
        signal.raise_signal(signal.SIGINT)

    def second(signum: int, frame: Any) -> None:
        signal.raise_signal(signal.SIGKILL)

    signal.signal(signal.SIGALRM, first)
    signal.setitimer(signal.ITIMER_REAL, wait)


def _in_background(seconds: float, number: signal.Signals) -> None:
    import os
    import threading

    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
