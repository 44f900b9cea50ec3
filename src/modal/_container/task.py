"""What every shell does with an input besides running it: arguments, output, and the exceptions of an interrupt."""

from __future__ import annotations

from time import perf_counter
from types import CoroutineType

from modal._serialization import deserialize, serialize, serialize_failure

from .machine import CANCELLED, STOPPED, TIMED_OUT, Input
from .outbox import INLINE_LIMIT, PAYLOAD_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Callable, Optional

    from .lifecycle import Lifecycle

    Output = tuple[dict[str, Any], bytes]


_CO_COROUTINE = 0x80
_CO_ASYNC_GENERATOR = 0x200


class TimeoutReached(BaseException):
    """Raised in user code whose time is over. A BaseException, so that `except Exception` does not swallow it."""


class Task:
    """The function that this container runs, and how its outcomes look on the wire."""

    def __init__(self, function: Callable[..., Any], name: str, is_generator: bool, timeout: float):
        self.function = function
        self.name = name
        self.is_generator = is_generator
        self.timeout = timeout  #: seconds per input
        self.lifecycle: Optional[Lifecycle] = None  #: of a class whose enter hooks have run

    def function_of(self, item: Input) -> Callable[..., Any]:
        """What runs an input. Raises when there is nothing."""
        return self.function

    def functions(self) -> Iterable[Callable[..., Any]]:
        """Everything that inputs may run."""
        return (self.function,)

    def yields(self, item: Input) -> bool:
        """Whether an input is a generator's."""
        return self.is_generator

    def name_of(self, item: Input) -> str:
        """What runs an input, for people."""
        return self.name

    def arguments(self, item: Input) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Unpickle the arguments of an input. Raises what that raises."""
        payload = item.payload
        if payload is None:
            from . import blobs

            args, kwargs = deserialize(blobs.fetch(item.blob or {}))
            return args, kwargs
        item.payload = None
        if item.is_scheduled:
            return (), {}
        args, kwargs = deserialize(payload)
        return args, kwargs

    def value(self, value: Any) -> tuple[bytes, Optional[dict[str, Any]]]:
        """Pickle a result or a yielded value: its inline payload and, when it is too large for that, its blob."""
        return self._place(serialize(value))

    def succeeded(self, item: Input, payload: bytes, blob: Optional[dict[str, Any]]) -> Output:
        if item.interrupted == TIMED_OUT:
            return self._interrupted(item)
        record = {
            "input_id": item.input_id,
            "status": "success",
            "size": len(payload),
            "seconds": perf_counter() - item.started,
        }
        if blob is not None:
            record["blob"] = blob
        return record, payload

    def failed(self, item: Input, exc: BaseException) -> Output:
        """The output of an input whose code raised `exc`."""
        if item.interrupted:
            return self._interrupted(item)
        if item.is_scheduled:
            _print_failure(exc)
        try:
            payload, blob = self._place(serialize_failure(_presentable(exc)))
        except Exception as error:  # the blob store is out of reach, or the exception defies description
            return self._record(item, "internal_failure", "ExecutionError", _unsent(exc, error))
        record = self._record(item, "failure", "", "")[0]
        record["size"] = len(payload)
        if blob is not None:
            record["blob"] = blob
        return record, payload

    def dropped(self, input_id: str) -> Output:
        """The output of an input that was cancelled before it began."""
        return self._record(Input(input_id, "", None, None), "terminated", "RemoteError", "The input was cancelled.")

    def _interrupted(self, item: Input) -> Output:
        if item.interrupted == TIMED_OUT:
            message = f"The function {self.name_of(item)} ran longer than its timeout of {self.timeout:g} seconds."
            return self._record(item, "timeout", "FunctionTimeoutError", message)
        if item.interrupted == STOPPED:  # no failure of the input: it is tried again elsewhere
            message = f"The container was stopped while {self.name_of(item)} ran."
            return self._record(item, "internal_failure", "ExecutionError", message)
        return self._record(item, "terminated", "RemoteError", "The input was cancelled.")

    def _record(self, item: Input, status: str, kind: str, message: str) -> Output:
        record: dict[str, Any] = {"input_id": item.input_id, "status": status, "size": 0}
        if item.started:
            record["seconds"] = perf_counter() - item.started
        if kind:
            record["error"] = {"type": kind, "message": message}
        return record, b""

    def _place(self, payload: bytes) -> tuple[bytes, Optional[dict[str, Any]]]:
        if len(payload) <= INLINE_LIMIT:
            return payload, None
        if len(payload) > PAYLOAD_LIMIT:
            from modal.exception import RequestSizeError

            raise RequestSizeError(
                f"The result takes {len(payload)} bytes pickled, over the limit of {PAYLOAD_LIMIT >> 30} GiB; "
                "put large data in a Volume and return its path."
            )
        from . import blobs

        return b"", blobs.store(payload)


def _print_failure(exc: BaseException) -> None:
    """Nobody else will: who waits for a result prints what it raises."""
    from traceback import print_exception

    from modal._tracebacks import without_sdk_frames

    print_exception(type(exc), exc, without_sdk_frames(exc.__traceback__))


def is_async(function: Any) -> bool:
    """Whether calling `function` gives a coroutine or an async generator."""
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code is not None and bool(code.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))


def is_awaitable(value: Any) -> bool:
    """Whether a sync function returned something that is to be awaited."""
    return type(value) is CoroutineType or hasattr(type(value), "__await__")


def run_awaitable(awaitable: Any) -> Any:
    """Run what a sync function returned that turned out to be async, in an event loop of its own."""
    import asyncio

    return asyncio.run(awaitable if type(awaitable) is CoroutineType else _awaited(awaitable))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def values_of(result: Any) -> Iterator[Any]:
    """What a sync function with `is_generator` yields: it may return any iterable, an async one included."""
    if is_awaitable(result):
        result = run_awaitable(result)
    return _driven(result) if hasattr(type(result), "__aiter__") else iter(result)


def _driven(values: Any) -> Iterator[Any]:
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        iterator = values.__aiter__()
        try:
            while True:
                try:
                    value = loop.run_until_complete(_awaited(iterator.__anext__()))
                except StopAsyncIteration:
                    return
                yield value
        finally:
            if hasattr(iterator, "aclose"):
                loop.run_until_complete(iterator.aclose())
    finally:
        loop.close()


def interrupt_exception(reason: str) -> BaseException:
    """Make what is raised in user code that is interrupted for `reason`."""
    if reason == CANCELLED:
        from modal.exception import InputCancellation

        return InputCancellation("The input was cancelled.")
    if reason == TIMED_OUT:
        return TimeoutReached()
    return KeyboardInterrupt("The container is stopping.")


def _presentable(exc: BaseException) -> BaseException:
    """Exceptions that steer the process must not do so in the caller's: it would exit, silently."""
    if not isinstance(exc, (SystemExit, KeyboardInterrupt, GeneratorExit)):
        return exc
    from modal.exception import ExecutionError

    if isinstance(exc, SystemExit):
        message = f"The function called sys.exit({'' if exc.code is None else repr(exc.code)})."
    else:
        message = f"The function raised {type(exc).__name__}."
    return ExecutionError(message).with_traceback(exc.__traceback__)


def _unsent(exc: BaseException, error: Exception) -> str:
    return f"The function raised {type(exc).__name__}, but that could not be sent: {type(error).__name__}: {error}"
