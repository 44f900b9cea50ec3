"""The shell of a sync function that runs several inputs side by side: a thread an input; the main thread reads.

An interrupt is an asynchronous exception in the thread, which Python raises at its next bytecode: a thread inside a
long call of C code goes on until that returns.
"""

from __future__ import annotations

import os
import signal
from threading import Condition, Thread, get_ident
from time import perf_counter
from types import CoroutineType

from modal._runtime_context import enter_input

from .machine import Input
from .main_thread import MainThreadShell
from .shell import AGENT_GONE, Shell
from .task import TimeoutReached, run_coroutine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .task import Output


class ThreadsShell(Shell):
    def __init__(self, watched: MainThreadShell, concurrency: int):
        watched.stop_watching()
        super().__init__(watched.channel, watched.task)
        self.machine = watched.machine  # may hold inputs already
        self.lock = watched.lock
        self._changed = Condition(self.lock)
        self._concurrency = concurrency
        self._idle = 0
        self._threads = 0

    def run(self) -> NoReturn:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop_from_signal)
        os.register_at_fork(after_in_child=self.on_fork)
        with self.lock:
            self.work_arrived()
        while True:
            data = self.channel.receive(self._until_deadline())
            with self.lock:
                if data is not None:
                    self.feed(data)
                self._time_out()

    def work_arrived(self) -> None:
        wanted = min(len(self.machine.queue), self._concurrency - self._threads + self._idle)
        for _ in range(wanted - self._idle):
            self._threads += 1
            Thread(target=self._work, name=f"modal-input-{self._threads}", daemon=True).start()
        self._changed.notify(wanted)

    def interrupt(self, item: Input, reason: str) -> None:
        self._changed.notify_all()  # it may wait for credit
        if item.runner is not None:
            _raise_in_thread(item.runner, reason)

    def resume(self, item: Input) -> None:
        self._changed.notify_all()

    def _until_deadline(self) -> float | None:
        with self.lock:
            running = [item.started for item in self.machine.running.values() if not item.interrupted]
        # Inputs that begin while this waits time out later than those that run now.
        latest = 1.0 if not running else min(running) + self.task.timeout - perf_counter()
        return min(1.0, max(0.0, latest))

    def _time_out(self) -> None:
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
            self.leave_if_forked()
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
            finally:
                with self.lock:
                    item.runner = None
        except BaseException as exc:
            return self.task.failed(item, exc)
        return self.task.succeeded(item, payload, blob)

    def _outcome(self, item: Input) -> tuple[bytes, dict[str, Any] | None]:
        task = self.task
        args, kwargs = task.arguments(item)
        if not task.is_generator:
            value = task.function(*args, **kwargs)
            return task.value(run_coroutine(value) if type(value) is CoroutineType else value)
        for value in task.function(*args, **kwargs):
            payload, blob = task.value(value)
            self.outbox.yielded(item.input_id, payload, blob)
            with self.lock:
                item.credit -= 1
                while item.credit <= 0 and not item.interrupted:
                    self._changed.wait()
        return b"", None


def _raise_here(reason: str) -> NoReturn:
    from .task import interrupt_exception

    raise interrupt_exception(reason)


def _raise_in_thread(thread: int, reason: str) -> None:
    try:
        import ctypes
    except ImportError:  # a Python built without it: the agent kills the container instead
        return
    from modal.exception import InputCancellation

    from .machine import CANCELLED, TIMED_OUT

    cls = {CANCELLED: InputCancellation, TIMED_OUT: TimeoutReached}.get(reason, KeyboardInterrupt)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(cls))
