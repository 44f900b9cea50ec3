"""Calls that clients made over direct lines, as their containers tell of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from intermodal.control.apps import stopped_error
from intermodal.control.calls import Call, Calls
from intermodal.control.container import Container
from intermodal.control.functions import Function
from intermodal.store.interface import CallKind, CallRecord
from modal._wire.messages.call import Input, Output, Status
from modal._wire.messages.runner import RunInput, RunOutput, Taken

_LOST = 1_000  # containers with direct lines that are remembered after their end


class DirectCalls:
    """Makes them calls like others, and remembers the containers of those that a client may still ask for.

    Args:
        now: the clock, in seconds since the epoch.
    """

    def __init__(self, calls: Calls, now: Callable[[], float]) -> None:
        self._calls = calls
        self._now = now
        self._lost: OrderedDict[str, Container] = OrderedDict()  # by id, latest last

    def taken(self, container: Container, message: Taken, body: memoryview | bytes) -> list[Call]:
        """A container has inputs of these calls; returns those that nothing was known of."""
        taken: list[Call] = []
        offset = 0
        for one in message.inputs:
            data = bytes(body[offset : offset + one.size])
            offset += one.size
            if one.input_id not in container.running:  # else its client told of it already
                taken.append(self._begun(container, one, data))
        return taken

    def _begun(self, container: Container, one: RunInput, data: bytes) -> Call:
        function, app = container.function, container.app
        call = self._calls.live(one.call_id)
        if call is None:
            record = self._record(function, one.call_id, one.method, self._now())
            call = self._calls.create(record, function.spec.retries)
            function.open_inputs += len(self._calls.add_inputs(call, [Input(0, one.size)], data))
            self._calls.close_inputs(call)
        if not app.is_open:
            self._calls.abandon(call, Status.TERMINATED, stopped_error(app.app_id, app.stop_reason))
        return call

    def ended(self, function: Function, answer: RunOutput, data: bytes, container_id: str) -> None:
        """A container has given its client this result, of a call that was not known."""
        if self._calls.live(answer.call_id) is not None:
            return
        record = self._record(function, answer.call_id, answer.method, self._now() - answer.seconds)
        function.open_inputs += 1
        output = Output(0, answer.status, answer.size, None, None, answer.input_id)
        self._calls.add_finished(record, output, data, container_id)

    def remember(self, container: Container) -> None:
        """A container with direct lines is gone; clients may have sent it calls that it told nobody of."""
        self._lost[container.container_id] = container
        if len(self._lost) > _LOST:
            self._lost.popitem(last=False)

    def lost_container(self, container_id: str) -> Container | None:
        """One that is gone, if it is remembered."""
        return self._lost.get(container_id)

    def _record(self, function: Function, call_id: str, method: str, began: float) -> CallRecord:
        return CallRecord(call_id, function.function_id, function.app_id, CallKind.RUN, began, method=method)
