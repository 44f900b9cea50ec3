"""The one bridge from async to blocking.

The SDK is written once, in async code, and that code runs on one event loop in one background thread of the process.
A blocking call hands its coroutine to that loop and waits on a raw lock. The `.aio` form of the same call awaits it
from the caller's own event loop. So connections belong to one loop, whoever calls.

Some calls have work that belongs in the caller's thread: pickling and unpickling run the user's code, and cost time
that should not hold up others. Their coroutines run in the caller (`in_caller`) and send only what must be on the loop
there, with ``await on_loop(...)``, which is all they may await. Two drivers step them: `drive` and `adrive`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, overload

from . import _event_loop
from ._event_loop import adrive, at_exit, drive, is_async, is_gone, leave, on_loop, run, run_async, undone
from ._sync_traceback import clean
from ._type_vars import P, S, T
from .exception import ClientClosed

if TYPE_CHECKING:
    from inspect import Signature

    from typing_extensions import Concatenate

__all__ = [
    "Blocking",
    "BlockingContext",
    "BlockingGenerator",
    "Stream",
    "at_exit",
    "blocking",
    "blocking_context",
    "blocking_method",
    "generator_in_caller",
    "in_caller",
    "is_async",
    "on_loop",
    "run",
    "run_async",
    "undone",
]


def _of_wrapped(wrapper: Any, name: str) -> Any:
    """An attribute that a wrapper has from its function."""
    if name == "_func":  # while it is unpickled it has none yet
        raise AttributeError(name)
    return getattr(wrapper._func, name)


# -- functions and methods -----------------------------------------------------------------------------------------


class Blocking(Generic[P, T]):
    # (no docstring: `__doc__` is that of the function)
    # A function that blocks; `.aio` is its async form.

    __slots__ = ("_func", "_in_caller")

    def __init__(self, func: Callable[P, Coroutine[Any, Any, T]], in_caller: bool = False) -> None:
        self._func = func
        self._in_caller = in_caller

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        coro = self._func(*args, **kwargs)
        try:
            return drive(coro) if self._in_caller else run(coro)
        except BaseException as error:
            raise clean(error)

    async def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The async form: takes the same arguments."""
        coro = self._func(*args, **kwargs)
        try:
            return await (adrive(coro) if self._in_caller else run_async(coro))
        except BaseException as error:
            raise clean(error)

    def __repr__(self) -> str:
        return f"<blocking form of {self._func!r}>"

    def __getattr__(self, name: str) -> Any:
        return _of_wrapped(self, name)

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

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
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
        _warn_unused(self)


class AsyncStream(AsyncGenerator[T, None]):
    """What the async form of a generator call gives when it matters that somebody iterates over it."""

    def __init__(self, agen: AsyncGenerator[T, None], unused: str) -> None:
        self._agen = agen
        self._unused = unused

    def __aiter__(self) -> AsyncGenerator[T, None]:
        self._unused = ""
        return self._agen

    async def asend(self, value: None) -> T:
        self._unused = ""
        return await self._agen.asend(value)

    async def athrow(self, *error: Any) -> T:
        self._unused = ""
        return await self._agen.athrow(*error)

    async def aclose(self) -> None:
        self._unused = ""
        await self._agen.aclose()

    def __del__(self) -> None:
        _warn_unused(self)


def _warn_unused(stream: Any) -> None:
    if getattr(stream, "_unused", ""):
        import warnings

        warnings.warn(stream._unused, RuntimeWarning, stacklevel=3, source=None)


def _iterate(agen: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    generation = _event_loop.generation
    try:
        while True:
            try:
                _check_generation(generation)
                item = drive(agen.__anext__(), agen)
            except StopAsyncIteration:
                return
            except BaseException as error:
                raise clean(error)
            yield item
    finally:
        if is_gone(generation):
            leave(agen.aclose())
        else:
            drive(agen.aclose(), agen)


async def _aiterate(agen: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    generation = _event_loop.generation
    try:
        while True:
            try:
                _check_generation(generation)
                item = await adrive(agen.__anext__())
            except StopAsyncIteration:
                return
            except BaseException as error:
                raise clean(error)
            yield item
    finally:
        if is_gone(generation):
            leave(agen.aclose())
        else:
            await adrive(agen.aclose())


def _check_generation(generation: int) -> None:
    if generation != _event_loop.generation:
        raise ClientClosed("This process is a fork of the one that began this; begin it anew here.")


class BlockingGenerator(Generic[P, T]):
    # (no docstring: `__doc__` is that of the function)
    # A generator function; what it gives can be iterated over in both ways, and `.aio` gives an async generator.

    __slots__ = ("_func", "_unused")

    def __init__(self, func: Callable[P, AsyncGenerator[T, None]], unused: str = "") -> None:
        self._func = func
        self._unused = unused

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return Stream(self._func(*args, **kwargs), self._unused)

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        """The async form: takes the same arguments."""
        values = _aiterate(self._func(*args, **kwargs))
        return AsyncStream(values, self._unused) if self._unused else values

    def __getattr__(self, name: str) -> Any:
        return _of_wrapped(self, name)

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

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
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
    """An async context manager for `with` and `async with`; it runs on the loop.

    Where the process was forked meanwhile, leaving it does nothing: what it manages is the parent's.
    """

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._generation = 0  #: of the loop it was entered on
        self._is_entered = False

    def __enter__(self) -> T:
        try:
            return run(self._enter())
        except BaseException as error:
            if self._is_entered:  # an interrupted caller will not leave it
                run(self._leave(type(error), error, error.__traceback__))
            raise clean(error)

    def __exit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> Optional[bool]:
        return None if is_gone(self._generation) else run(self._leave(cls, error, traceback))

    async def __aenter__(self) -> T:
        try:
            return await run_async(self._enter())
        except BaseException as error:
            if self._is_entered:  # as above
                await run_async(self._leave(type(error), error, error.__traceback__))
            raise

    async def __aexit__(
        self, cls: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> Optional[bool]:
        return None if is_gone(self._generation) else await run_async(self._leave(cls, error, traceback))

    async def _enter(self) -> T:
        self._generation = _event_loop.generation
        value = await self._manager.__aenter__()
        self._is_entered = True
        return value

    async def _leave(self, cls: Any, error: Any, traceback: Any) -> Optional[bool]:
        return await self._manager.__aexit__(cls, error, traceback)


class ContextCall(Generic[P, T]):
    # (no docstring: `__doc__` is that of the function)
    # Calling it gives a context manager for `with` and `async with`; `.aio` is the same, for symmetry.

    __slots__ = ("_func",)

    def __init__(self, func: Callable[P, AbstractAsyncContextManager[T]]) -> None:
        self._func = func

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingContext[T]:
        return BlockingContext(self._func(*args, **kwargs))

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingContext[T]:
        """The async form: takes the same arguments; use it with `async with`."""
        return self(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return _of_wrapped(self, name)

    @property
    def __doc__(self) -> Optional[str]:  # type: ignore[override]
        return self._func.__doc__

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)


class BlockingContextMethod(Generic[S, P, T]):
    """A method that returns an async context manager; as an attribute it returns one for `with` and `async with`."""

    def __init__(self, func: Callable[Concatenate[S, P], AbstractAsyncContextManager[T]]) -> None:
        self._func = func
        self.__doc__ = func.__doc__

    @overload
    def __get__(self, obj: None, owner: Any = None) -> ContextCall[Concatenate[S, P], T]: ...

    @overload
    def __get__(self, obj: S, owner: Any = None) -> ContextCall[P, T]: ...

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        func: Any = self._func
        return ContextCall(func if obj is None else func.__get__(obj, owner))

    @property
    def __signature__(self) -> Signature:
        import inspect

        return inspect.signature(self._func)

    def __call__(self, /, *args: Any, **kwargs: Any) -> BlockingContext[T]:
        func: Any = self._func
        return BlockingContext(func(*args, **kwargs))


def blocking_context(
    func: Callable[Concatenate[S, P], AbstractAsyncContextManager[T]],
) -> BlockingContextMethod[S, P, T]:
    """Make a method that returns an async context manager usable with `with` and `async with`."""
    return BlockingContextMethod(func)
