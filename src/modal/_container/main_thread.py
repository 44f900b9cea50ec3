"""The shell of a sync function that runs one input at a time.

User code runs in the main thread, so that signals, KeyboardInterrupt and C extensions work as everywhere. The main
thread also reads the socket while it has nothing to run: the shortest way from a frame to user code has no thread
switch in it.

While user code runs, somebody else must read (a Cancel, a Stop, the end of the agent) and watch its time: the watcher
thread. It looks every few milliseconds whether the main thread is still in the same input, and if so takes over reading
until it is not. When inputs have not come for a second it sleeps on a lock. So tiny inputs never pay for it, and long
ones are watched.

An input is interrupted by a signal to the main thread whose handler raises; it does so only while `_active` is set,
which is exactly while user code runs. Code that swallows the exception, or C code that never returns to Python, goes
on: the agent kills the container when the input's time is well over.
"""

from __future__ import annotations

import os
import signal
from _thread import allocate_lock, get_ident, start_new_thread
from time import perf_counter, sleep

from modal._runtime_context import announce_input, enter_input

from .channel import Channel
from .machine import Input
from .shell import AGENT_GONE, Shell
from .task import Task, interrupt_exception, is_awaitable, run_awaitable, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, NoReturn, Optional

    from .interaction import Session
    from .task import Output

_INTERRUPT = signal.SIGRTMIN + 7  # one that user code hardly uses
_WATCH_EVERY = 0.003  #: seconds
_WATCH_IDLE_ROUNDS = 300
_POLL_LIMIT = 0.25  #: seconds
_INTERRUPT_AGAIN = 0.02  #: seconds
_ANNOUNCE_LIMIT = 0.1  #: seconds
_GATHER_BELOW = 0.0005  #: seconds; an input that took longer is reported at once


class MainThreadShell(Shell):
    def __init__(self, channel: Channel, task: Task):
        super().__init__(channel, task)
        self._main = get_ident()
        self._active: Optional[Input] = None  #: what the interrupt handler may interrupt
        self._current: Optional[Input] = None  #: what the main thread works at
        self._busy = True  #: the main thread does not read; the watcher may
        self._serial = 0  #: counts inputs
        self._gate = allocate_lock()
        self._gate.acquire()
        self._watcher_asleep = False
        self._watcher_polls = False
        self._load_until: Optional[tuple[float, Callable[[], None]]] = None

    def watch_loading(self) -> None:
        """Begin to watch: the agent may say Stop, or end, while user code is loaded. Called in the main thread."""
        signal.signal(_INTERRUPT, self._on_interrupt)
        self.catch_signals()
        start_new_thread(self._watch, ())

    def limit_loading(self, until: Optional[float], on_late: Callable[[], None]) -> None:
        """Call `on_late` in the watcher when that time (None: there is no limit any more) has passed."""
        with self.lock:
            self._load_until = None if until is None else (until, on_late)

    def release_time(self) -> None:
        seconds = perf_counter() - self.held_since
        super().release_time()
        with self.lock:
            if self._load_until is not None:
                self._load_until = (self._load_until[0] + seconds, self._load_until[1])

    def stop_watching(self) -> None:
        """Another shell takes over after loading."""
        with self.lock:
            self._busy = False

    def run(self) -> NoReturn:
        task = self.task
        while True:
            item = self._next()
            if task.yields(item):
                run = self._run_generator
                if item.line is not None:  # its values go through the agent
                    self._announce(item.input_id)
            else:
                run = self._run_function
            record, payload = run(item)
            if self.session is not None:
                self.end_session(item)
            self._finish(item, record, payload)

    def interrupt(self, item: Input, reason: str) -> None:
        signal.pthread_kill(self._main, _INTERRUPT)

    # --- the main thread

    def _next(self) -> Input:
        """Return the next input, reading frames while there is none."""
        machine = self.machine
        while True:
            with self.lock:
                if machine.has_ended:
                    break
                item = machine.take()
                if item is not None:
                    item.started = perf_counter()
                    self._serial += 1
                    self._current = item
                    self._wake_watcher()
                    return item
                self._busy = False
            self._flush()
            self._read(machine.until_next())
        self.leave()

    def _wake_watcher(self) -> None:
        """User code is about to run. Called with `lock` held."""
        if self._watcher_asleep:
            self._watcher_asleep = False
            self._gate.release()

    def _read(self, timeout: Optional[float]) -> None:
        """Read once; `_busy` must be False, and is True afterwards."""
        data = self.channel.receive(timeout)
        with self.lock:
            self._busy = True
            if data is not None:
                self.feed(data)
            if self.channel.others_ready and self.lines is not None:
                self.carry_out(self.lines.receive())

    def _finish(self, item: Input, record: dict[str, Any], payload: bytes) -> None:
        with self.lock:
            self._current = None
            machine = self.machine
            if item.line is not None and self._answered(item, record, payload):
                return
            self.outbox.add(record, payload)
            gather = (
                machine.queue
                and not self._watcher_polls
                and perf_counter() - item.started < _GATHER_BELOW
                and not self.outbox.is_due()
            )
            if gather and not machine.stopping:
                machine.finish(item)
                return
            self._flush()
            instructions = machine.finish(item)
            if instructions:
                self.carry_out(instructions)

    def open_line(self, prefix: str) -> None:
        if type(self) is not MainThreadShell or self.task.is_generator or self.machine.stopping:
            super().open_line(prefix)
            return
        if self.lines is None:
            from .direct import Lines

            self.lines = Lines(self.channel, self.machine, self.outbox)
            announce_input(self._announce)
        while self.channel.passed:
            self.lines.open(self.channel.passed.pop(), prefix)

    def _answered(self, item: Input, record: dict[str, Any], payload: bytes) -> bool:
        """Answer an input of a direct line there, if that is possible. Called with `lock` held."""
        lines = self.lines
        if lines is not None and lines.answer(item, record, payload):
            self.carry_out(self.machine.finish(item))
            return True
        self._give_to_agent([item])
        return False

    def _give_to_agent(self, items: list[Input]) -> None:
        try:
            if self.lines is not None:
                self.lines.hand_over(items)
        except OSError:
            os._exit(AGENT_GONE)

    def _hand_over_all(self) -> None:
        """What came over direct lines is not done at once: it is the agent's business now. Called with `lock` held."""
        direct = self.machine.direct
        if direct and self._current is not None:
            not_begun = self.machine.give_up()
            self._give_to_agent(list(direct.values()))
            if not_begun:
                self.outbox.returned(not_begun)

    def _announce(self, input_id: str) -> None:
        """User code learns the id of an input: the server must know it before anyone can ask for it."""
        if self.forked or input_id not in self.machine.direct:
            return
        in_main = get_ident() == self._main
        active = self._active
        if in_main:
            self._active = None  # an interrupt would find half of this done; the watcher repeats it
        # A signal handler of user code may have interrupted this thread where it holds the lock.
        if self.lock.acquire(timeout=_ANNOUNCE_LIMIT):
            try:
                item = self.machine.direct.get(input_id)
                if item is not None:
                    self._give_to_agent([item])
            finally:
                self.lock.release()
        if in_main:
            self._active = active

    def _flush(self) -> None:
        try:
            self.outbox.flush()
        except OSError:
            os._exit(AGENT_GONE)

    def _flush_reports(self) -> None:
        try:
            self.outbox.flush_reports()
        except OSError:
            os._exit(AGENT_GONE)

    def _run_function(self, item: Input) -> Output:
        task = self.task
        try:
            try:
                self._begin(item)
                args, kwargs = task.arguments(item)
                value = task.function_of(item)(*args, **kwargs)
                if is_awaitable(value):  # an async function behind a plain decorator
                    value = run_awaitable(value)
                if self.forked:
                    self.leave_if_forked()
                payload, blob = task.value(value)
                self._active = None
            except BaseException as exc:
                self._active = None
                return self._failed(item, exc)
        except BaseException as exc:  # an interrupt that fell between the two lines above
            return self._failed(item, exc)
        return task.succeeded(item, payload, blob)

    def _run_generator(self, item: Input) -> Output:
        task = self.task
        try:
            try:
                self._begin(item)
                args, kwargs = task.arguments(item)
                generator = values_of(task.function_of(item)(*args, **kwargs))
                step: Callable[[], Any] = generator.__next__
                while True:
                    try:
                        value = step()
                    except StopIteration:
                        break
                    self.leave_if_forked()
                    payload, blob = task.value(value)
                    self._active = None
                    self._yielded(item, payload, blob)
                    self._active = item
                    step = generator.__next__
                    if item.interrupted:
                        self._active = None
                        step = _thrower(generator, item.interrupted)
                self._active = None
                self.leave_if_forked()
            except BaseException as exc:
                self._active = None
                return self._failed(item, exc)
        except BaseException as exc:  # as above
            return self._failed(item, exc)
        return task.succeeded(item, b"", None)

    def _begin(self, item: Input) -> None:
        enter_input((item.input_id, item.call_id))
        self._active = item
        if item.interrupted:
            self._active = None
            raise interrupt_exception(item.interrupted)

    def _failed(self, item: Input, exc: BaseException) -> Output:
        self.leave_if_forked(exc)
        return self.task.failed(item, exc)

    def _yielded(self, item: Input, payload: bytes, blob: Optional[dict[str, Any]]) -> None:
        """Send a value, then wait until the consumer wants another."""
        try:
            self.outbox.yielded(item.input_id, payload, blob)
        except OSError:
            os._exit(AGENT_GONE)
        with self.lock:
            item.credit -= 1
        while True:
            with self.lock:
                if item.credit > 0 or item.interrupted:
                    self._wake_watcher()
                    return
                left = item.started + self.task.timeout - perf_counter()
                if self.held_since:
                    left = _POLL_LIMIT
                if left <= 0:
                    self.machine.time_out(item)
                    self._wake_watcher()
                    return
                self._busy = False
            self._read(left)

    def _on_interrupt(self, signum: int, frame: Any) -> None:
        item = self._active
        if item is not None and item.interrupted:
            self._active = None
            raise interrupt_exception(item.interrupted)

    def key_pressed(self, session: Session) -> None:
        if self._active is not None or session.owner is None:
            raise KeyboardInterrupt

    # --- the watcher

    def _watch(self) -> None:
        while True:
            idle_rounds = 0
            while idle_rounds < _WATCH_IDLE_ROUNDS:
                serial = self._serial if self._busy else -1
                sleep(_WATCH_EVERY)
                self._flush()
                self._flush_reports()
                if not self._busy:
                    idle_rounds += 1
                    continue
                idle_rounds = 0
                if self._serial == serial:
                    self._read_for_main(serial)
            with self.lock:
                if self._busy:
                    continue
                self._watcher_asleep = True
            self._gate.acquire()

    def _read_for_main(self, serial: int) -> None:
        """Wait for a frame, or for the end of the input's time, while the main thread is in user code."""
        with self.lock:
            if not self._busy:
                return
            item = self._current
            self._watcher_polls = True
            if self._serial == serial:
                self._hand_over_all()
            others = self.lines.descriptors if self.lines is not None else ()
        self._flush()  # what the main thread gathered before it saw that flag
        # Bounded, since the main thread may meanwhile read what this waits for, and be in another input.
        left = _POLL_LIMIT if item is None or self.held_since else item.started + self.task.timeout - perf_counter()
        if item is not None and item.interrupted:
            left = _INTERRUPT_AGAIN
        if left > 0:
            self.channel.wait_readable(min(left, _POLL_LIMIT), others)
        with self.lock:
            self._watcher_polls = False
            if self._main_reads():
                return
            if self._load_until is not None and not self.held_since and perf_counter() >= self._load_until[0]:
                self._load_until[1]()
            if item is not None and self._current is item:
                if item.interrupted and self._active is item:
                    self.interrupt(item, item.interrupted)  # again: the first may have come just before it blocked
                elif self._is_late(item):
                    self.carry_out(self.machine.time_out(item))
            data = self.channel.receive_now()
            if data is not None:
                self.feed(data)
            if self.lines is not None and self._serial == serial:
                self.carry_out(self.lines.receive())
                self._hand_over_all()

    def _main_reads(self) -> bool:
        return not self._busy

    def _is_late(self, item: Input) -> bool:
        return not self.held_since and perf_counter() >= item.started + self.task.timeout


def _thrower(generator: Any, reason: str) -> Callable[[], Any]:
    exc = interrupt_exception(reason)
    throw = getattr(generator, "throw", None)

    def step() -> Any:
        if throw is None:  # an iterator that is not a generator
            raise exc
        return throw(exc)

    return step
