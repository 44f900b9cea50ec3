"""What becomes of an input whose attempt ended badly: it is tried again, or that is its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from intermodal.control.calls import Call, Calls, input_id, locate
from intermodal.control.container import Container
from intermodal.control.functions import Function, label
from intermodal.machines.retry import Cause
from intermodal.model.container import ContainerExit, ExitCause
from modal._wire.messages.call import Output, Status
from modal._wire.messages.common import ErrorInfo

CALLER_LOST = ErrorInfo("ExecutionError", "The call was ended since the container that waited for it is gone.")


class Attempts:
    """Decides by the function's retry policy (see `intermodal.machines.retry`), and gives outputs to what has failed.

    Args:
        queue_inputs: lets inputs of a call wait to run, after a delay in seconds.
        drop_call: sees to it that a call's inputs do not run any more.
    """

    def __init__(
        self,
        calls: Calls,
        queue_inputs: Callable[[Call, Sequence[str], float], None],
        drop_call: Callable[[Call], None],
    ) -> None:
        self._calls = calls
        self._queue_inputs = queue_inputs
        self._drop_call = drop_call

    def failed(
        self, call: Call, output: Output, data: bytes, container_id: str, ended: ContainerExit | None = None
    ) -> None:
        """An attempt ended with this output, which is no success.

        Args:
            ended: how the container ended, when that is why.
        """
        index = output.index
        decision = call.machine.attempt_ended(index, _cause(output.status, ended))
        # What a generator has yielded was delivered already: it must not yield it again.
        if decision.retry and not (call.values is not None and call.values.total):
            self._queue_inputs(call, [input_id(call.record.call_id, index)], decision.delay)
        else:
            self._calls.finish(call, index, output, data, container_id)

    def lost(self, an_input_id: str, container_id: str, container: Container | None) -> None:
        """An input had begun in a container that is gone.

        Args:
            container: None when nothing is known of it any more.
        """
        call_id, index = locate(an_input_id)
        call = self._calls.live(call_id)
        if call is None or index not in call.inputs:
            return
        ended = container.exit if container is not None else None
        if container is not None and an_input_id in container.timed_out:
            spec = container.revision.spec
            sentence = _timeout_sentence(label(spec.name, call.record.method), spec.timeout)
            status, error = Status.TIMEOUT, ErrorInfo("FunctionTimeoutError", sentence)
        else:
            detail = ended.detail if ended is not None and ended.detail else "The container that ran it was lost."
            status, error = Status.INTERNAL_FAILURE, ErrorInfo("ExecutionError", detail)
        is_ours = container is None or container.is_stopping
        output = Output(index, status, 0, None, error, an_input_id)
        self.failed(call, output, b"", container_id, None if is_ours else ended)

    def refused(self, input_ids: Iterable[str], function: Function | None, reason: str, is_start_failure: bool) -> None:
        """No container will ever run these inputs.

        Args:
            is_start_failure: a container could not start; the function may know better than `reason` why.
        """
        status, error, payload = Status.INIT_FAILURE, ErrorInfo("ExecutionError", reason), b""
        if function is not None and function.removed:
            status, error = Status.TERMINATED, ErrorInfo("NotFoundError", function.removed)
        elif function is not None and is_start_failure and function.start_failure is not None:
            error, payload = function.start_failure
        for one in input_ids:
            call_id, index = locate(one)
            call = self._calls.live(call_id)
            if call is not None:
                output = Output(index, status, len(payload), None, error, one)
                self._calls.finish(call, index, output, payload)

    def abandon_calls_of(self, an_input_id: str) -> None:
        """The container of this input is gone: nobody waits for the calls it made; tried again, it makes them anew."""
        for call in self._calls.awaited_by(an_input_id):
            self._calls.abandon(call, Status.TERMINATED, CALLER_LOST)
            self._drop_call(call)


def _cause(status: Status, ended: ContainerExit | None) -> Cause:
    if status is Status.FAILURE:
        return Cause.USER_FAILURE
    if status is Status.TIMEOUT:
        return Cause.TIMEOUT
    if status is Status.TERMINATED:
        return Cause.TERMINATED
    if ended is not None and ended.cause is not ExitCause.STOPPED:
        return Cause.CONTAINER_DIED
    return Cause.INTERNAL_FAILURE


def _timeout_sentence(name: str, seconds: float) -> str:
    return f"Function {name} ran longer than its timeout of {seconds:g} s. Raise `timeout` if it needs more time."
