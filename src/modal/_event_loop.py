"""The event loop of the SDK, in a background thread, and the two ways to run a coroutine on it from elsewhere."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional

from ._signals import is_from_handler
from ._type_vars import T
from .exception import ClientClosed, Error, InvalidError

if TYPE_CHECKING:
    import asyncio

_CLEANUP = 5.0  #: seconds an interrupted call may take to clean up before the caller goes on without it


def _new_loop() -> asyncio.AbstractEventLoop:
    import asyncio  # here and below: a container whose function calls nothing never pays for it

    class Loop(asyncio.SelectorEventLoop):
        """Callers wake it in their own threads, where asyncio would keep an OSError of a signal handler to itself."""

        _csock: Any

        def _write_to_self(self) -> None:
            wakes = self._csock
            if wakes is None:
                return
            try:
                wakes.send(b"\0")
            except OSError as error:  # it is full, or closed
                if is_from_handler(error):
                    raise

    return Loop()


class _Bridge:
    """The event loop and its thread."""

    def __init__(self) -> None:
        self.loop = _new_loop()
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
#: Counts forks: what belongs to the loop of a lower generation is gone, and must be made again.
generation = 0
_bridge_lock = threading.Lock()
_ended = False
_at_exit: list[Callable[[], Coroutine[Any, Any, None]]] = []


def _the_bridge(coro: Optional[Coroutine[Any, Any, Any]] = None) -> _Bridge:
    """The loop, for a coroutine, which is closed when there is none any more."""
    global _bridge
    if _bridge is not None:
        return _bridge
    with _bridge_lock:
        if _bridge is None and not _ended:
            _bridge = _Bridge()
        if _bridge is not None:
            return _bridge
    if coro is not None:
        coro.close()
    _stay_if_daemon()
    raise ClientClosed("The Python process is ending; calls are no longer possible.")


def _stay_if_daemon() -> None:
    """While the process ends a daemon thread waits for that in silence, as it does in `queue.Queue.get`."""
    if _ended and threading.current_thread().daemon:
        threading.Event().wait()


def is_gone(of: int) -> bool:
    """Whether the loop of a generation is of no use any more: the process ends, or is a fork of the one that had it."""
    return _ended or of != generation


def the_loop() -> asyncio.AbstractEventLoop:
    """The loop, for `call_soon_threadsafe`. Raises ClientClosed when the process is ending."""
    return _the_bridge().loop


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
    bridge.stop()
    _bridge = None


def _forget_bridge() -> None:
    """After a fork only the forking thread lives on: the child makes its own loop when it needs one."""
    global _bridge, _bridge_lock, generation
    _bridge = None
    generation += 1
    _bridge_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_bridge)


# -- running on the loop -------------------------------------------------------------------------------------------


class _Waiter:
    """A coroutine under way on the loop, and the lock that its caller waits on."""

    __slots__ = ("abandoned", "coro", "ended", "error", "lock", "loop", "task", "value")

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.coro = coro
        self.loop = loop
        self.lock = threading.Lock()
        self.lock.acquire()
        self.task: Optional[asyncio.Task[None]] = None
        self.value: Any = None
        self.error: Optional[BaseException] = None
        self.ended = False  #: with a value or an error, unless it was abandoned before it began
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
            self.ended = True
            self.lock.release()

    def cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it.

    An exception raised in the waiting thread by a signal handler (KeyboardInterrupt) cancels the coroutine and goes on;
    the coroutine may have returned by then.

    Raises:
        InvalidError: called from the loop's own thread, which would wait for itself.
        ClientClosed: the process is ending.
    """
    bridge = _bridge or _the_bridge(coro)
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
        _stay_if_daemon()
        waiter.abandoned = True
        if not bridge.loop.is_closed():
            bridge.loop.call_soon_threadsafe(waiter.cancel)
            if not waiter.ended:
                waiter.lock.acquire(timeout=_CLEANUP)
        raise
    if waiter.error is not None:
        _stay_if_daemon()
        raise waiter.error
    return waiter.value  # type: ignore[no-any-return]


async def run_async(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and await it from the caller's own event loop. Cancellation reaches the coroutine."""
    import asyncio

    bridge = _bridge or _the_bridge(coro)
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
    except Exception:
        _stay_if_daemon()
        raise
    except asyncio.CancelledError:
        _stay_if_daemon()
        ended: asyncio.Future[None] = here.create_future()

        def tell(_: Any) -> None:
            coro.close()  # it may not even have begun
            try:
                here.call_soon_threadsafe(ended.cancel)  # does nothing when nobody waits any more
            except RuntimeError:  # as above
                pass

        def cancel() -> None:
            task[0].add_done_callback(tell)
            task[0].cancel()

        bridge.loop.call_soon_threadsafe(cancel)
        await asyncio.wait([ended], timeout=_CLEANUP)  # what the caller does next must not overtake it
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


async def undone(work: Coroutine[Any, Any, None]) -> None:
    """On the loop: undo a call whose caller was interrupted. A further interruption does not end it.

    The caller is to hear of the interruption, so that an error of `work` is logged only.
    """
    import asyncio

    try:
        await asyncio.shield(asyncio.ensure_future(work))
    except Error as error:
        from ._logging import logger

        logger.warning("an interrupted call could not be undone: %s", error)


def drive(coro: Any, agen: Any = None) -> Any:
    """Step a coroutine of the caller to its end, blocking where it waits.

    What is raised here meanwhile, by `run` or by a signal handler, is raised where the coroutine waits.

    Args:
        coro: the coroutine, or what a method of the asynchronous generator `agen` gave.
    """
    step, given = coro.send, None
    while True:
        try:
            while True:
                job = step(given)
                step, given = coro.send, (False if type(job) is _AskMode else run(job.coro))
        except StopIteration as stop:
            return stop.value
        except BaseException as error:
            if not (agen.ag_running if agen is not None else coro.cr_frame):
                raise  # it has ended
            step, given = coro.throw, error


async def adrive(coro: Any) -> Any:
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


def leave(coro: Any) -> None:
    """Step a coroutine of the caller to its end when the loop is gone: what it wants done there is not done."""
    try:
        job = coro.send(None)
        while True:
            if type(job) is _OnLoop:
                job.coro.close()
            job = coro.throw(ClientClosed("The loop is gone."))
    except (StopIteration, ClientClosed):
        return
