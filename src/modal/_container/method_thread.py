"""A sync method of a class that has async ones too: it runs in a thread beside the event loop, one an input."""

from __future__ import annotations

import asyncio
import os
from contextvars import copy_context
from threading import Event, Thread, get_ident

from .machine import Input
from .shell import AGENT_GONE, Shell
from .task import interrupt_exception, is_awaitable, run_awaitable, values_of
from .threads import raise_in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

    Payload = tuple[bytes, Optional[dict[str, Any]]]


class MethodThread:
    """Runs one input. `cancel` and `resume` are what the shell calls as of a task."""

    def __init__(self, shell: Shell, item: Input, function: Callable[..., Any]):
        self._shell = shell
        self._item = item
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[tuple[Optional[Payload], Optional[BaseException]]] = self._loop.create_future()
        self._credit = Event()
        self._ident: Optional[int] = None  #: while user code runs in it

    async def outcome(self) -> Payload:
        """Run the input to its end. Raises what it raises."""
        self._item.runner = self
        run = copy_context().run
        Thread(target=run, args=(self._main,), name=f"modal-{self._item.input_id}", daemon=True).start()
        payload, exc = await asyncio.shield(self._ended)
        if exc is not None:
            raise exc
        assert payload is not None
        return payload

    def cancel(self) -> None:
        """Raise in the thread what the input is interrupted for. Called with the shell's lock held."""
        self._credit.set()
        if self._ident is not None:
            raise_in_thread(self._ident, self._item.interrupted)

    def resume(self) -> None:
        """The generator has credit again."""
        self._credit.set()

    def _main(self) -> None:
        payload: Optional[Payload] = None
        raised: Optional[BaseException] = None
        try:
            try:
                self._begin()
                payload = self._values() if self._shell.task.yields(self._item) else self._value()
            except BaseException as exc:
                self._shell.leave_if_forked(exc)
                raised = exc
            finally:
                with self._shell.lock:
                    self._ident = None
        except BaseException as exc:  # an interrupt that fell on the border of user code
            raised, self._ident = exc, None
        self._loop.call_soon_threadsafe(self._ended.set_result, (payload, raised))

    def _begin(self) -> None:
        with self._shell.lock:
            self._ident = get_ident()
            interrupted = self._item.interrupted
        if interrupted:
            raise interrupt_exception(interrupted)

    def _value(self) -> Payload:
        task = self._shell.task
        args, kwargs = task.arguments(self._item)
        value = self._function(*args, **kwargs)
        self._shell.leave_if_forked()
        return task.value(run_awaitable(value) if is_awaitable(value) else value)

    def _values(self) -> Payload:
        task, item, shell = self._shell.task, self._item, self._shell
        args, kwargs = task.arguments(item)
        for value in values_of(self._function(*args, **kwargs)):
            shell.leave_if_forked()
            payload, blob = task.value(value)
            try:
                shell.outbox.yielded(item.input_id, payload, blob)
            except OSError:
                os._exit(AGENT_GONE)
            with shell.lock:
                item.credit -= 1
            while item.credit <= 0 and not item.interrupted:
                self._credit.wait()
                self._credit.clear()
        shell.leave_if_forked()
        return b"", None
