"""The one bridge from async to blocking.

The SDK is written once, in async code, and that code runs on one event loop in one background thread of the process.
A blocking call hands its coroutine to that loop and waits on a raw lock. The `.aio` form of the same call awaits it
from the caller's own event loop. So connections belong to one loop, whoever calls.

Some calls have work that belongs in the caller's thread: pickling and unpickling run the user's code, and cost time
that should not hold up others. Their coroutines run in the caller (`in_caller`) and send only what must be on the loop
there, with ``await on_loop(...)``, which is all they may await. Two drivers step them: `_drive` and `_adrive`.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, Union, overload

from ._sync_traceback import clean
from ._type_vars import P, S, T
from .exception import ClientClosed, InvalidError

if TYPE_CHECKING:
    import asyncio
    from inspect import Signature

    from typing_extensions import Concatenate, Self

_CLEANUP = 5.0  #: seconds an interrupted call may take to clean up before the caller goes on without it


class _Bridge:
    """The event loop and its thread."""

    def __init__(self) -> None:
        import asyncio  # here and below: a container whose function calls nothing never pays for it

        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, name="modal", daemon=True)
        self.thread.start()
        self.thread_id = self.thread.ident

    def _run(self) -> None:
        import asyncio

        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def stop(self) -> None:
        """Cancel what still runs, then end the thread."""
        import asyncio

        asyncio.run_coroutine_threadsafe(_cancel_all(), self.loop)
        self.thread.join(_CLEANUP)
        if not self.thread.is_alive():
            self.loop.close()


async def _cancel_all() -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.stop()


_bridge: Optional[_Bridge] = None
_bridge_lock = threading.Lock()
_ended = False
_at_exit: list[Callable[[], Coroutine[Any, Any, None]]] = []


def _the_bridge() -> _Bridge:
    global _bridge
    if _bridge is not None:
        return _bridge
    with _bridge_lock:
        if _ended:
            raise ClientClosed("The Python process is ending; calls are no longer possible.")
        if _bridge is None:
            _bridge = _Bridge()
        return _bridge


def at_exit(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run an async function on the loop when the process ends in order."""
    _at_exit.append(function)


@atexit.register
def _end() -> None:
    global _bridge, _ended
    _ended = True
    bridge = _bridge
    if bridge is None:
        return
    import asyncio

    for function in reversed(_at_exit):
        try:
            asyncio.run_coroutine_threadsafe(function(), bridge.loop).result(_CLEANUP)
        except BaseException as error:  # nothing can be done about it, and the rest must be closed too
            if not isinstance(error, Exception):
                break
    _bridge = None
    bridge.stop()


def _forget_bridge() -> None:
    """After a fork only the forking thread lives on: the child makes its own loop when it needs one."""
    global _bridge, _bridge_lock
    _bridge = None
    _bridge_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_bridge)


# -- running on the loop -------------------------------------------------------------------------------------------


class _Waiter:
    """A coroutine under way on the loop, and the lock that its caller waits on."""

    __slots__ = ("abandoned", "coro", "error", "lock", "loop", "task", "value")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.coro = coro
        self.loop = loop
        self.lock = threading.Lock()
        self.lock.acquire()
        self.task: Optional[asyncio.Task[None]] = None
        self.value: Any = None
        self.error: Optional[BaseException] = None
        self.abandoned = False

    def start(self) -> None:
        if self.abandoned:
            self.coro.close()
            self.lock.release()
            return
        self.task = self.loop.create_task(self._main())

    async def _main(self) -> None:
        try:
            self.value = await self.coro
        except BaseException as error:  # raised again in the caller's thread
            self.error = error
        finally:
            self.lock.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it.

    An exception raised in the waiting thread (KeyboardInterrupt) cancels the coroutine and goes on.

    Raises:
        InvalidError: called from the loop's own thread, which would wait for itself.
        ClientClosed: the process is ending.
    """
    bridge = _bridge or _the_bridge()
    if threading.get_ident() == bridge.thread_id:
        coro.close()
        raise InvalidError(
            "A blocking call was made from the SDK's own event loop, for example in a callback of it: use `.aio` there."
        )
    waiter = _Waiter(coro, bridge.loop)
    try:
        bridge.loop.call_soon_threadsafe(waiter.start)
        waiter.lock.acquire()
    except BaseException:
        waiter.abandoned = True
        if not bridge.loop.is_closed():
            bridge.loop.call_soon_threadsafe(waiter.cancel)
            waiter.lock.acquire(timeout=_CLEANUP)
        raise
    if waiter.error is not None:
        raise waiter.error
    return waiter.value  # type: ignore[no-any-return]


async def run_async(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and await it from the caller's own event loop. Cancellation reaches the coroutine."""
    import asyncio

    bridge = _bridge or _the_bridge()
    here = asyncio.get_running_loop()
    if here is bridge.loop:
        return await coro
    future: asyncio.Future[T] = here.create_future()
    task: list[asyncio.Task[None]] = []

    def settle(value: Any, error: Optional[BaseException]) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        elif isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)

    async def main() -> None:
        value, raised = None, None
        try:
            value = await coro
        except BaseException as error:  # raised again in the caller's loop
            raised = error
        try:
            here.call_soon_threadsafe(settle, value, raised)
        except RuntimeError:  # the caller's loop has closed: nobody waits any more
            pass

    bridge.loop.call_soon_threadsafe(lambda: task.append(bridge.loop.create_task(main())))
    try:
        return await future
    except asyncio.CancelledError:
        bridge.loop.call_soon_threadsafe(lambda: [one.cancel() for one in task])
        raise


class _OnLoop(Generic[T]):
    __slots__ = ("coro",)

    def __init__(self, coro: Coroutine[Any, Any, T]) -> None:
        self.coro = coro

    def __await__(self) -> Generator[_OnLoop[T], Any, T]:
        value: T = yield self
        return value


class _AskMode:
    __slots__ = ()

    def __await__(self) -> Generator[_AskMode, Any, bool]:
        answer: bool = yield self
        return answer


def is_async() -> _AskMode:
    """In a coroutine that runs in the caller: await whether the caller awaits (True) or blocks (False)."""
    return _AskMode()


def on_loop(coro: Coroutine[Any, Any, T]) -> _OnLoop[T]:
    """In a coroutine that runs in the caller: await `coro`, run on the loop."""
    return _OnLoop(coro)


def _drive(coro: Any) -> Any:
    """Step a coroutine of the caller to its end, blocking where it waits."""
    try:
        job = coro.send(None)
        while True:
            try:
                value = False if type(job) is _AskMode else run(job.coro)
            except BaseException as error:
                job = coro.throw(error)
            else:
                job = coro.send(value)
    except StopIteration as stop:
        return stop.value


async def _adrive(coro: Any) -> Any:
    """Step a coroutine of the caller to its end, awaiting where it waits."""
    try:
        job = coro.send(None)
        while True:
            try:
                value = True if type(job) is _AskMode else await run_async(job.coro)
            except BaseException as error:
                job = coro.throw(error)
            else:
                job = coro.send(value)
    except StopIteration as stop:
        return stop.value


# -- functions and methods -----------------------------------------------------------------------------------------


class Blocking(Generic[P, T]):
    # (no docstring: `__doc__` is that of the function)
    # A function that blocks; `.aio` is its async form.

    __slots__ = ("_func", "_in_caller")

    def __init__(self, func: Callable[P, Coroutine[Any, Any, T]], in_caller: bool = False) -> None:
        self._func = func
        self._in_caller = in_caller

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        coro = self._func(*args, **kwargs)
        try:
            return _drive(coro) if self._in_caller else run(coro)
        except BaseException as error:
            raise clean(error)

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """The async form: takes the same arguments."""
        coro = self._func(*args, **kwargs)
        try:
            return await (_adrive(coro) if self._in_caller else run_async(coro))
        except BaseException as error:
            raise clean(error)

    def __repr__(self) -> str:
        return f"<blocking form of {self._func!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._func, name)

    @property
    def __doc__(self) -> Optional[str]:  # type: ignore[override]
        return self._func.__doc__

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)


class BlockingMethod(Generic[S, P, T]):
    """A method written async whose attribute is a `Blocking`."""

    def __init__(self, func: Callable[Concatenate[S, P], Coroutine[Any, Any, T]], in_caller: bool = False) -> None:
        self._func = func
        self._in_caller = in_caller
        self.__doc__ = func.__doc__

    @overload
    def __get__(self, obj: None, owner: Any = None) -> Blocking[Concatenate[S, P], T]: ...

    @overload
    def __get__(self, obj: S, owner: Any = None) -> Blocking[P, T]: ...

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        func: Any = self._func
        return Blocking(func if obj is None else func.__get__(obj, owner), self._in_caller)

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Blocking(self._func, self._in_caller)(*args, **kwargs)


def blocking(func: Callable[P, Coroutine[Any, Any, T]]) -> Blocking[P, T]:
    """Make an async function blocking; it runs on the loop."""
    return Blocking(func)


def blocking_method(func: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> BlockingMethod[S, P, T]:
    """Make an async method blocking; it runs on the loop."""
    return BlockingMethod(func)


def in_caller(func: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> BlockingMethod[S, P, T]:
    """Make an async method blocking that runs in the caller's thread; it awaits only `on_loop`."""
    return BlockingMethod(func, True)


# -- generators ----------------------------------------------------------------------------------------------------


class Stream(Generic[T]):
    """What a generator call gives: iterate over it with `for` or with `async for`, once."""

    def __init__(self, agen: AsyncGenerator[T, None], unused: str = "") -> None:
        self._agen = agen
        self._unused = unused
        self._sync: Optional[Generator[T, None, None]] = None

    def __iter__(self) -> Iterator[T]:
        if self._sync is None:
            self._unused = ""
            self._sync = _iterate(self._agen)
        return self._sync

    def __next__(self) -> T:
        return next(iter(self))

    def __aiter__(self) -> AsyncIterator[T]:
        self._unused = ""
        return _aiterate(self._agen)

    def close(self) -> None:
        """Stop: what was not begun will not run."""
        self._unused = ""
        if self._sync is not None:
            self._sync.close()

    def __del__(self) -> None:
        if getattr(self, "_unused", ""):
            import warnings

            warnings.warn(self._unused, RuntimeWarning, stacklevel=2, source=None)


def _iterate(agen: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    try:
        while True:
            try:
                item = _drive(agen.__anext__())
            except StopAsyncIteration:
                return
            except BaseException as error:
                raise clean(error)
            yield item
    finally:
        _drive(agen.aclose())


async def _aiterate(agen: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    try:
        while True:
            try:
                item = await _adrive(agen.__anext__())
            except StopAsyncIteration:
                return
            except BaseException as error:
                raise clean(error)
            yield item
    finally:
        await _adrive(agen.aclose())


class BlockingGenerator(Generic[P, T]):
    # (no docstring: `__doc__` is that of the function)
    # A generator function; what it gives can be iterated over in both ways, and `.aio` gives an async generator.

    __slots__ = ("_func", "_unused")

    def __init__(self, func: Callable[P, AsyncGenerator[T, None]], unused: str = "") -> None:
        self._func = func
        self._unused = unused

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(self._func(*args, **kwargs), self._unused)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """The async form: takes the same arguments."""
        return _aiterate(self._func(*args, **kwargs))

    @property
    def __doc__(self) -> Optional[str]:  # type: ignore[override]
        return self._func.__doc__

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)


class BlockingGeneratorMethod(Generic[S, P, T]):
    """A method written as an async generator whose attribute is a `BlockingGenerator`. It runs in the caller."""

    def __init__(self, func: Callable[Concatenate[S, P], AsyncGenerator[T, None]], unused: str = "") -> None:
        self._func = func
        self._unused = unused
        self.__doc__ = func.__doc__

    @overload
    def __get__(self, obj: None, owner: Any = None) -> BlockingGenerator[Concatenate[S, P], T]: ...

    @overload
    def __get__(self, obj: S, owner: Any = None) -> BlockingGenerator[P, T]: ...

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        func: Any = self._func
        return BlockingGenerator(func if obj is None else func.__get__(obj, owner), self._unused)

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return BlockingGenerator(self._func, self._unused)(*args, **kwargs)


def generator_in_caller(
    unused: str = "",
) -> Callable[[Callable[Concatenate[S, P], AsyncGenerator[T, None]]], BlockingGeneratorMethod[S, P, T]]:
    """Make an async generator method iterable in both ways; it runs in the caller's thread and awaits only `on_loop`.

    Args:
        unused: the warning when nobody iterates over what a call gives; "": none.
    """
    return lambda func: BlockingGeneratorMethod(func, unused)


# -- context managers ----------------------------------------------------------------------------------------------


class BlockingContext(Generic[T]):
    """An async context manager for `with` and `async with`; it runs on the loop."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        try:
            return run(_enter(self._manager))
        except BaseException as error:
            raise clean(error)

    def __exit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> Optional[bool]:
        return run(_leave(self._manager, cls, error, traceback))

    async def __aenter__(self) -> T:
        return await run_async(_enter(self._manager))

    async def __aexit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> Optional[bool]:
        return await run_async(_leave(self._manager, cls, error, traceback))


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[Any], cls: Any, error: Any, traceback: Any) -> Optional[bool]:
    return await manager.__aexit__(cls, error, traceback)


class BlockingContextMethod(Generic[S, P, T]):
    """A method that returns an async context manager; as an attribute it returns one for `with` and `async with`."""

    def __init__(self, func: Callable[Concatenate[S, P], AbstractAsyncContextManager[T]]) -> None:
        self._func = func
        self.__doc__ = func.__doc__

    @overload
    def __get__(self, obj: None, owner: Any = None) -> Self: ...

    @overload
    def __get__(self, obj: S, owner: Any = None) -> Callable[P, BlockingContext[T]]: ...

    def __get__(self, obj: Any, owner: Any = None) -> Union[Self, Callable[..., BlockingContext[T]]]:
        if obj is None:
            return self
        func: Any = self._func
        bound = func.__get__(obj, owner)
        return lambda *args, **kwargs: BlockingContext(bound(*args, **kwargs))

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)

    def __call__(self, *args: Any, **kwargs: Any) -> BlockingContext[T]:
        func: Any = self._func
        return BlockingContext(func(*args, **kwargs))


def blocking_context(
    func: Callable[Concatenate[S, P], AbstractAsyncContextManager[T]],
) -> BlockingContextMethod[S, P, T]:
    """Make a method that returns an async context manager usable with `with` and `async with`."""
    return BlockingContextMethod(func)
