"""What the shells share: one lock around the machine, carrying out its instructions, ending the process.

main_thread.py   a sync function, one input at a time: user code owns the main thread
threads.py       a sync function, several inputs at a time
tasks.py         async functions
batch_shells.py  the first and the last, for batches

"""

from __future__ import annotations

import atexit
import os
import signal
from _thread import allocate_lock, start_new_thread
from abc import ABC, abstractmethod
from time import perf_counter, sleep

from . import streams
from .channel import Channel, ProtocolError
from .machine import (
    CloseLines,
    DropInputs,
    Exit,
    Input,
    InputLoop,
    Interrupt,
    Leave,
    OpenLine,
    ResumeGenerator,
    ReturnInputs,
)
from .outbox import Outbox
from .task import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn, Optional

    from .direct import Lines
    from .interaction import Session

#: The shell that runs inputs, or loads the code for it, in this process.
current: Optional[Shell] = None

AGENT_GONE = 70  #: exit status when the agent ended the connection


class Shell(ABC):
    """Owns the machine. Every method but `wake` must be called with `lock` held where it says so."""

    def __init__(self, channel: Channel, task: Task):
        self.channel = channel
        self.task = task
        self.machine = InputLoop()
        self.outbox = Outbox(channel)
        self.lock = allocate_lock()
        self.lines: Optional[Lines] = None  #: of clients; made when the first is opened
        self.stop_grace = 30.0  #: seconds that SIGTERM and SIGINT leave
        self._handlers: list[Any] = []  #: of signals, ours
        self.successor: Shell = self  #: the shell that has taken over from this one, for signals that come just then
        self.forked = False  #: True in a child that user code forked
        self.session: Optional[Session] = None  #: while this container is connected to a terminal
        self.held_since = 0.0  #: when the clock of inputs was stopped; 0: it runs
        global current
        current = self

    @abstractmethod
    def run(self) -> NoReturn:
        """Run inputs until told to stop."""

    @abstractmethod
    def interrupt(self, item: Input, reason: str) -> None:
        """Make `item`'s code raise. Called with `lock` held."""

    def resume(self, item: Input) -> None:
        """`item`, a generator, has credit again. Called with `lock` held."""
        return

    def work_arrived(self) -> None:
        """The queue has grown, or the loop should look at it again. Called with `lock` held."""
        return

    def feed(self, data: bytes) -> None:
        """Take bytes of the agent. Called with `lock` held."""
        if not data:
            os._exit(AGENT_GONE)
        try:
            for header, body in self.channel.reader.feed(data):
                self.carry_out(self.machine.handle(header, body))
        except ProtocolError as error:
            streams.complain(f"modal: {error}")
            os._exit(1)
        except OSError:
            os._exit(AGENT_GONE)
        if self.machine.queue:
            self.work_arrived()

    def carry_out(self, instructions: list[Any]) -> None:
        """Called with `lock` held.

        Raises:
            OSError: the agent is gone.
        """
        if self.machine.stopping:
            self._limit_stop()
            self.close_lines()
        for instruction in instructions:
            kind = type(instruction)
            if kind is Interrupt:
                self.interrupt(self.machine.running[instruction.input_id], instruction.reason)
            elif kind is ResumeGenerator:
                self.resume(self.machine.running[instruction.input_id])
            elif kind is ReturnInputs:
                self.hand_over(instruction.input_ids)
                self.outbox.returned(instruction.input_ids)
            elif kind is Leave:
                self.outbox.leaving()
            elif kind is OpenLine:
                self.open_line(instruction.prefix)
            elif kind is CloseLines:
                self.close_lines()
            elif kind is DropInputs:
                self.hand_over(instruction.input_ids)
                for input_id in instruction.input_ids:
                    self.outbox.add(*self.task.dropped(input_id))
                self.outbox.flush()
            elif kind is Exit:
                self.exit()

    def open_line(self, prefix: str) -> None:
        """A direct line is offered. Only some shells have use for one. Called with `lock` held."""
        while self.channel.passed:
            os.close(self.channel.passed.pop())

    def close_lines(self) -> None:
        """Take nothing more over direct lines, and hand over what has come. Called with `lock` held.

        Raises:
            OSError: the agent is gone.
        """
        lines, self.lines = self.lines, None
        if lines is not None:
            instructions = lines.drain()
            lines.hand_over(list(self.machine.direct.values()))
            self.carry_out(instructions)

    def hand_over(self, input_ids: Iterable[str]) -> None:
        """Tell the agent of those of these inputs that came over direct lines. Called with `lock` held.

        Raises:
            OSError: the agent is gone.
        """
        direct = self.machine.direct
        if direct and self.lines is not None:
            self.lines.hand_over([direct[one] for one in input_ids if one in direct])

    def catch_signals(self) -> None:
        """Prepare for signals and forks. Called in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop_from_signal)
            self._handlers.append(signal.getsignal(number))
        os.register_at_fork(after_in_child=self.on_fork)

    def stop_from_signal(self, signum: int, frame: Any) -> None:
        """SIGTERM and SIGINT behave like Stop. A handler must not wait for `lock`, which its own thread may hold."""
        if signum == signal.SIGINT and self.session is not None:
            self.key_pressed(self.session)
            return
        self.successor.stop_soon()

    def stop_soon(self) -> None:
        """Stop as told by a signal, from a place that may take `lock`."""
        start_new_thread(self._stop, ())

    def _stop(self) -> None:
        if self.successor is not self:
            self.successor.stop_soon()
            return
        with self.lock:
            try:
                self.carry_out(self.machine.stop(self.stop_grace, by_signal=True))
            except OSError:
                os._exit(AGENT_GONE)

    def _limit_stop(self) -> None:
        grace, self._limit_stop = self.machine.grace, _nothing  # type: ignore[method-assign]
        start_new_thread(self._exit_after, (max(grace - 1.0, grace * 0.8),))

    def _exit_after(self, seconds: float) -> None:
        sleep(seconds)
        hook = self.task.lifecycle.current if self.task.lifecycle is not None else ""
        if hook:
            streams.complain(f"modal: {hook} did not end in the time that the container had to stop")
        os._exit(0)

    def exit(self) -> None:
        """Nothing runs any more: end the process. Exit hooks run in the main thread, so it must come to `leave`."""
        if self.task.lifecycle is None:
            self.leave()
        self.successor.call_main()

    def call_main(self) -> None:
        """Make the main thread look whether the machine has ended. Called with `lock` held."""
        self.channel.wake()

    def leave(self) -> NoReturn:
        """Send what is left, run exit hooks, and go without waiting for threads of user code."""
        try:
            self.outbox.flush()
            self.outbox.flush_reports(at_once=True)
        except OSError:
            os._exit(AGENT_GONE)
        if self.task.lifecycle is not None:
            self.task.lifecycle.leave()
            self.leave_if_forked()
            if self.session is not None:
                self.session.end()
        atexit._run_exitfuncs()
        streams.flush()
        os._exit(0)

    # --- terminals

    @abstractmethod
    def key_pressed(self, session: Session) -> None:
        """Ctrl-C at the terminal: raise KeyboardInterrupt in user code. Called in the main thread, by a signal."""

    def hold_time(self) -> None:
        """Stop the clock: while a person is asked, no input runs out of time."""
        with self.lock:
            self.held_since = perf_counter()

    def release_time(self) -> None:
        """Let the clock run again."""
        with self.lock:
            seconds, self.held_since = perf_counter() - self.held_since, 0.0
            for item in self.machine.running.values():
                item.started += seconds

    def end_session(self, item: Optional[Input]) -> None:
        """`item`, or with None the loading of code, has ended: if it has a terminal, it needs that no more."""
        session = self.session
        if session is not None and session.owner == (item.input_id if item is not None else None):
            session.end()

    def leave_if_forked(self, exc: BaseException | None = None) -> None:
        """A child that user code forked and let return, or raise: it must not answer for its parent.

        To be called before anything that takes a lock, which another thread may have held at the fork.
        """
        if not self.forked:
            return
        if exc is not None and not isinstance(exc, SystemExit):
            from traceback import print_exception

            print_exception(type(exc), exc, exc.__traceback__)
        streams.flush()
        os._exit(0 if exc is None else 1)

    def on_fork(self) -> None:
        self.forked = True
        self.channel.leave_in_child()
        if self.lines is not None:
            self.lines.leave_in_child()
            self.machine.direct.clear()
            self.lines = None
        for number, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            if signal.getsignal(number) in self._handlers:
                signal.signal(number, default)


def _nothing() -> None:
    return None
