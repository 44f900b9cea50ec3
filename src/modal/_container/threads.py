"""The shell of a sync function that runs several inputs side by side: a thread an input; the main thread reads.

An interrupt is an asynchronous exception in the thread, which Python raises at its next bytecode: a thread inside a
long call of C code goes on until that returns.
"""

from __future__ import annotations

import os
from threading import Condition, Thread, get_ident
from time import perf_counter

from modal._runtime_context import enter_input

from .machine import STOPPED, Input
from .main_thread import MainThreadShell
from .shell import AGENT_GONE, Shell
from .task import TimeoutReached, is_awaitable, run_awaitable, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .interaction import Session
    from .task import Output


_LOOK_AGAIN = 1.0  #: seconds


class ThreadsShell(Shell):
    def __init__(self, watched: MainThreadShell, concurrency: int):
        watched.stop_watching()
        super().__init__(watched.channel, watched.task)
        self.machine = watched.machine  # may hold inputs already
        self.lock = watched.lock
        self.stop_grace = watched.stop_grace
        self._changed = Condition(self.lock)
        self._concurrency = concurrency
        self._idle = 0
        self._threads = 0
        watched.successor = self

    def run(self) -> NoReturn:
        self.catch_signals()
        with self.lock:
            self.work_arrived()
        while not self.machine.has_ended:
            data = self.channel.receive(self._until_deadline())
            with self.lock:
                if data is not None:
                    self.feed(data)
                self._time_out()
        self.leave()

    def work_arrived(self) -> None:
        wanted = min(len(self.machine.queue), self._concurrency - self._threads + self._idle)
        for _ in range(wanted - self._idle):
            self._threads += 1
            Thread(target=self._work, name=f"modal-input-{self._threads}", daemon=True).start()
        self._changed.notify(wanted)

    def interrupt(self, item: Input, reason: str) -> None:
        self._changed.notify_all()  # it may wait for credit
        if item.runner is not None:
            raise_in_thread(item.runner, reason)

    def resume(self, item: Input) -> None:
        self._changed.notify_all()

    def key_pressed(self, session: Session) -> None:
        raise_in_thread(session.thread, STOPPED)

    def _until_deadline(self) -> float | None:
        """Seconds until an input may be out of time; None when there is none."""
        if self.held_since:
            return _LOOK_AGAIN
        with self.lock:
            started = [item.started for item in self.machine.running.values() if not item.interrupted]
            if not started and not self.machine.queue:
                return None
        # Inputs that begin while this waits time out later than those that run now.
        return max(0.0, min(started, default=perf_counter()) + self.task.timeout - perf_counter())

    def _time_out(self) -> None:
        if self.held_since:
            return
        now = perf_counter()
        for item in list(self.machine.running.values()):
            if now - item.started >= self.task.timeout and not item.interrupted:
                self.carry_out(self.machine.time_out(item))

    def _work(self) -> None:
        while True:
            item = self._take()
            try:
                record, payload = self._run(item)
            except BaseException as exc:  # an interrupt that fell on the border of user code
                record, payload = self.task.failed(item, exc)
            self.end_session(item)
            try:
                self._finish(item, record, payload)
            except OSError:
                os._exit(AGENT_GONE)

    def _take(self) -> Input:
        with self.lock:
            item = self.machine.take()
            while item is None:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
                item = self.machine.take()
            item.started = perf_counter()
            return item

    def _finish(self, item: Input, record: dict[str, Any], payload: bytes) -> None:
        self.outbox.add(record, payload)
        self.outbox.flush()
        with self.lock:
            self.carry_out(self.machine.finish(item))

    def _run(self, item: Input) -> Output:
        enter_input((item.input_id, item.call_id))
        try:
            with self.lock:
                item.runner = get_ident()
                interrupted = item.interrupted
            if interrupted:
                _raise_here(interrupted)
            try:
                payload, blob = self._outcome(item)
            except BaseException as exc:
                self.leave_if_forked(exc)
                raise
            finally:
                with self.lock:
                    item.runner = None
        except BaseException as exc:
            return self.task.failed(item, exc)
        return self.task.succeeded(item, payload, blob)

    def _outcome(self, item: Input) -> tuple[bytes, dict[str, Any] | None]:
        task = self.task
        args, kwargs = task.arguments(item)
        function = task.function_of(item)
        if not task.yields(item):
            value = function(*args, **kwargs)
            self.leave_if_forked()
            return task.value(run_awaitable(value) if is_awaitable(value) else value)
        for value in values_of(function(*args, **kwargs)):
            self.leave_if_forked()
            payload, blob = task.value(value)
            self.outbox.yielded(item.input_id, payload, blob)
            with self.lock:
                item.credit -= 1
                while item.credit <= 0 and not item.interrupted:
                    self._changed.wait()
        self.leave_if_forked()
        return b"", None


def _raise_here(reason: str) -> NoReturn:
    from .task import interrupt_exception

    raise interrupt_exception(reason)


def raise_in_thread(thread: int, reason: str) -> None:
    """Make the Python code of a thread raise the exception for `reason`."""
    try:
        import ctypes
    except ImportError:  # a Python built without it: the agent kills the container instead
        return
    from modal.exception import InputCancellation

    from .machine import CANCELLED, TIMED_OUT

    cls = {CANCELLED: InputCancellation, TIMED_OUT: TimeoutReached}.get(reason, KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(cls))
