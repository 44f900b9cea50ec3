"""The shell around the scheduler: which containers there are, the scheduler's instructions to the node, and what the
node reports to the scheduler.

Everything here runs on the event loop's thread and returns at once; only starting a container takes a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence

from intermodal.control.apps import App, Apps
from intermodal.control.attempts import Attempts
from intermodal.control.calls import Call, Calls, Finished, input_id, locate
from intermodal.control.container import Container, spec_of, start_failure
from intermodal.control.direct_calls import DirectCalls
from intermodal.control.functions import Function, Functions, pool_added
from intermodal.control.generator_values import Payload
from intermodal.control.hung_inputs import HungInputs
from intermodal.control.run_inputs import run_inputs
from intermodal.control.secret_service import SecretService
from intermodal.model.container import ContainerExit, ExitCause
from intermodal.node.interface import Node
from intermodal.scheduling import events, instructions
from intermodal.scheduling.scheduler import Scheduler
from modal._wire.messages.app import LogStream
from modal._wire.messages.call import Output, Status
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.runner import OpenLine, Outputs, Taken, Yielded
from modal.exception import NotFoundError

_ENDED_KEPT = 10_000  # ids of ended containers that are remembered
_NODE = "local"


class Fleet:
    """Implements `intermodal.node.interface.NodeListener`.

    Args:
        scheduler: the pure state machine.
        calls, functions, apps: the live state that instructions act on.
        secrets: what containers get besides.
        now: the clock, in seconds since the epoch, for what people see.
        stop_grace: seconds running inputs have when a container is stopped.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        calls: Calls,
        functions: Functions,
        apps: Apps,
        secrets: SecretService,
        now: Callable[[], float],
        stop_grace: float,
    ) -> None:
        self._scheduler = scheduler
        self._calls = calls
        self._functions = functions
        self._apps = apps
        self._secrets = secrets
        self._now = now
        self._stop_grace = stop_grace
        self._node: Node  # set by `open`
        self._containers: dict[str, Container] = {}
        self._queue: deque[events.Event] = deque()
        self._is_draining = False
        self._is_ending = False  #: the server stops: nothing is started
        self._wake: asyncio.TimerHandle | None = None
        #: container id -> app id of those that ended lately, latest last
        self.ended: OrderedDict[str, str] = OrderedDict()
        self._empty: dict[str, asyncio.Event] = {}  # function id -> set when its last container is gone
        self._starts: set[asyncio.Task[None]] = set()
        self._direct_calls = DirectCalls(calls, now)
        self._attempts = Attempts(calls, self.queue_inputs, self.drop_call)
        self._hung_inputs = HungInputs(self._containers, lambda container_id: self._node.stop(container_id, 0.0))
        self._actions: dict[type, Callable[..., None]] = {
            instructions.StartContainer: self._start,
            instructions.StopContainer: self._stop,
            instructions.PushInputs: self._push,
            instructions.RecallInputs: self._recall,
            instructions.CloseLines: self._close_lines,
            instructions.CancelInputs: self._cancel,
            instructions.ReportPending: self._report_pending,
            instructions.FailInputs: self._fail,
            instructions.InputsOrphaned: self._orphaned,
            instructions.WakeAt: self._wake_at,
        }

    # -- life --------------------------------------------------------------------------------------------------

    def open(self, node: Node) -> None:
        """Take the node into service."""
        self._node = node
        capacity = node.capacity()
        self.dispatch(events.NodeJoined(_NODE, capacity.cpu, capacity.memory, capacity.gpus))
        self._hung_inputs.watch()

    def close(self) -> None:
        """Stop the timers; the node is closed by its owner."""
        self._hung_inputs.close()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None

    @property
    def containers(self) -> Collection[Container]:
        """Those that are not gone, oldest first."""
        return self._containers.values()

    def container(self, container_id: str) -> Container:
        """Raises `NotFoundError`."""
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFoundError(
                f"There is no running container {container_id[:40]!r}; `modal container list` shows those there are."
            ) from None

    def app_of(self, container_id: str) -> App | None:
        """The app that a container belongs to; None for one that is gone."""
        container = self._containers.get(container_id)
        return container.app if container is not None else None

    def dispatch(self, event: events.Event) -> None:
        """Tell the scheduler, and carry out what it wants. Events caused by that are handled after it, in order."""
        self._queue.append(event)
        if self._is_draining:
            return
        self._is_draining = True
        try:
            loop = asyncio.get_running_loop()
            while self._queue:
                for instruction in self._scheduler.handle(self._queue.popleft(), loop.time()):
                    self._actions[type(instruction)](instruction)
        finally:
            self._is_draining = False

    # -- functions and calls -----------------------------------------------------------------------------------

    def app_published(self, app: App) -> None:
        """Let the scheduler know the app's functions; kept-warm containers start now."""
        for function_id in app.record.functions.values():
            function = self._functions.by_id.get(function_id)
            if function is not None:  # one that could not be restored has no pool; its calls were failed
                self.add_pool(function)

    def add_pool(self, function: Function) -> None:
        """Let the scheduler know a function, unless it does."""
        if function.can_run and not function.is_pooled:
            self.replace_pool(function)

    def replace_pool(self, function: Function) -> None:
        """Let the scheduler know what a function is now: what comes from now on runs in new containers."""
        function.is_pooled = True
        self.dispatch(pool_added(function))

    def retire_pool(self, function: Function, reason: str) -> None:
        """The function is called no more: what runs may end, what waits fails with the reason."""
        self.dispatch(events.PoolRetired(function.function_id, reason))

    def remove_pool(self, function: Function) -> None:
        """Let the scheduler forget a function that has neither containers nor inputs."""
        self.dispatch(events.PoolRemoved(function.function_id, 0.0))

    async def remove_functions(self, functions: Iterable[Function], at_once: bool) -> None:
        """Stop their containers and return when the last is gone. Exit hooks run even when all shall end at once."""
        gone = []
        for function in functions:
            containers = [one for one in self._containers.values() if one.function is function]
            has_hooks = any(one.revision.has_exit_hooks for one in containers)
            self.dispatch(
                events.PoolRemoved(function.function_id, self._stop_grace if has_hooks or not at_once else 0.0)
            )
            if containers:
                gone.append(self._empty.setdefault(function.function_id, asyncio.Event()))
        for event in gone:
            await event.wait()

    async def stop_with_hooks(self) -> None:
        """The server ends: containers that have exit hooks get their time for them, and no other one is started."""
        self._is_ending = True
        gone = []
        for container in self._containers.values():
            if container.revision.has_exit_hooks:
                gone.append(self._empty.setdefault(container.function.function_id, asyncio.Event()).wait())
                if not container.is_stopping:
                    container.is_stopping = True
                    self._node.stop(container.container_id, self._stop_grace)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*gone), self._stop_grace)

    def queue_inputs(self, call: Call, input_ids: Sequence[str], delay: float = 0.0) -> None:
        """Inputs wait to run."""
        record = call.record
        not_before = asyncio.get_running_loop().time() + delay if delay else 0.0
        self.dispatch(
            events.InputsQueued(record.function_id, record.call_id, input_ids, not_before, bool(record.parent_input_id))
        )
        self._touch(self._functions.by_id.get(record.function_id))

    def drop_call(self, call: Call, terminate_containers: bool = False) -> None:
        """The call's inputs shall not run any more; they have their outputs already."""
        call_id = call.record.call_id
        if terminate_containers:
            prefix = f"in-{call_id[3:]}-"
            for container in list(self._containers.values()):
                if any(running.startswith(prefix) for running in container.running):
                    self.dispatch(events.ContainerLeaving(container.container_id, 0.0))
                    self._node.stop(container.container_id, 0.0)  # it may be one that is ending already, but slowly
        self.dispatch(events.InputsDropped(call.record.function_id, call_id))

    def preempt(self, container_id: str) -> None:
        """Stop a container as if its machine were needed: what it runs is interrupted, and runs elsewhere, uncounted.

        Raises:
            NotFoundError: it has ended, or never was.
        """
        self.dispatch(events.ContainerLeaving(self.container(container_id).container_id, self._stop_grace))

    def holders(self) -> dict[str, str]:
        """Which container holds each input that is handed out: input id -> container id."""
        return {one: container.container_id for container in self._containers.values() for one in container.running}

    def rescale(self, function: Function) -> None:
        """The function's scaling has changed."""
        self.dispatch(events.PoolUpdated(function.function_id, function.spec.scaling))

    def credit(self, an_input_id: str, count: int) -> None:
        """A generator's consumer took `count` values."""
        for container in self._containers.values():
            if an_input_id in container.running:
                self._node.credit(container.container_id, an_input_id, count)
                return

    # -- direct lines ------------------------------------------------------------------------------------------

    def direct_container(self, function_id: str) -> str:
        """A container of the function that may get a direct line now; "": none."""
        return self._scheduler.direct_container(function_id) if not self._calls.problem() else ""

    def open_line(self, container_id: str, message: OpenLine, connection: socket.socket) -> None:
        """Hand a client's connection to a container, if it is still there."""
        container = self._containers.get(container_id)
        if container is not None and container.may_have_lines and not container.is_stopping:
            container.has_line = self._node.open_line(container_id, message, connection) or container.has_line

    def sent_directly(self, call: Call, container_id: str) -> None:
        """A client sent this call of one input to a container over its line, and nothing was heard of it since."""
        container = self._containers.get(container_id)
        if container is not None:
            self._take(container, [call])
            return
        # Had it ended in order, it would have told of the input.
        one = input_id(call.record.call_id, 0)
        self._attempts.lost(one, container_id, self._direct_calls.lost_container(container_id))
        self._attempts.abandon_calls_of(one)

    def _take(self, container: Container, calls: list[Call]) -> None:
        """The container has the inputs of these calls."""
        now = asyncio.get_running_loop().time()
        call_ids = [call.record.call_id for call in calls]
        ids = [input_id(call_id, 0) for call_id in call_ids]
        container.took(ids, now)
        self.dispatch(events.InputsTaken(container.container_id, call_ids, ids))
        self._touch(container.function)

    # -- what the scheduler wants ------------------------------------------------------------------------------

    def _start(self, wanted: instructions.StartContainer) -> None:
        if self._is_ending:
            return
        function = self._functions.by_id[wanted.function_id]
        app = self._apps.get(function.app_id)
        container = Container(wanted.container_id, function, app, function.revision, self._now())
        self._containers[wanted.container_id] = container
        function.starting += 1
        self._touch(function)
        task = asyncio.create_task(self._start_on_node(container), name=f"start {wanted.container_id}")
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _start_on_node(self, container: Container) -> None:
        if container.is_stopping:  # was told to before this task began: the node knew nothing of it then
            self.container_exited(
                container.container_id, ContainerExit(ExitCause.STOPPED, detail="It was not started.")
            )
            return
        try:
            await self._node.start(spec_of(container, self._secrets, self._stop_grace))
        except Exception as error:
            failure, is_final = start_failure(container, error)
            container.could_not_start(failure)
            self.dispatch(events.StartFailed(container.container_id, failure.message, is_final))
            self.container_exited(container.container_id, ContainerExit(ExitCause.START_FAILED, detail=failure.message))

    def _stop(self, wanted: instructions.StopContainer) -> None:
        container = self._containers.get(wanted.container_id)
        if container is not None:
            container.is_stopping = True
        self._node.stop(wanted.container_id, wanted.grace)

    def _push(self, wanted: instructions.PushInputs) -> None:
        container = self._containers[wanted.container_id]
        frames, over = run_inputs(self._calls, wanted.input_ids)
        if over:  # cancelled a moment ago: the scheduler hears of it right after
            self.dispatch(events.InputsFinished(container.container_id, over, 0.0))
        now = asyncio.get_running_loop().time()
        for message, body in frames:
            container.give([one.input_id for one in message.inputs], now)
            self._node.push(container.container_id, message, body)
        self._touch(container.function)

    def _recall(self, wanted: instructions.RecallInputs) -> None:
        self._node.recall(wanted.container_id, wanted.count)

    def _close_lines(self, wanted: instructions.CloseLines) -> None:
        container = self._containers.get(wanted.container_id)
        if container is None:
            return
        container.may_have_lines = False
        if container.has_line:
            self._node.close_lines(wanted.container_id)

    def _cancel(self, wanted: instructions.CancelInputs) -> None:
        self._node.cancel(wanted.container_id, list(wanted.input_ids))

    def _report_pending(self, wanted: instructions.ReportPending) -> None:
        function = self._functions.by_id.get(wanted.function_id)
        if function is None:
            return
        function.pending_reason = wanted.reason
        app = self._apps.find(function.app_id)
        if wanted.reason and app is not None:
            self._say(app, function, f"Function {function.title} waits: {wanted.reason}")
        self._touch(function)

    def _fail(self, wanted: instructions.FailInputs) -> None:
        """Inputs that no container will ever run."""
        function = self._functions.by_id.get(wanted.function_id)
        self._attempts.refused(wanted.input_ids, function, wanted.reason, bool(wanted.container_id))

    def _orphaned(self, wanted: instructions.InputsOrphaned) -> None:
        """A container ended with inputs in it: those it had begun are decided one by one."""
        container = self._containers.get(wanted.container_id)
        for one in wanted.begun:
            self._attempts.lost(one, wanted.container_id, container)

    def _wake_at(self, wanted: instructions.WakeAt) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = asyncio.get_running_loop().call_at(wanted.at, self.dispatch, events.Tick())

    # -- what the node says (NodeListener) ---------------------------------------------------------------------

    def container_ready(self, container_id: str, seconds: float) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        container.came_up()
        self._touch(container.function)
        self.dispatch(events.ContainerReady(container_id))

    def container_start_failed(self, container_id: str, error: ErrorInfo, payload: bytes) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        container.could_not_start(error, payload)
        if not container.function.open_inputs:  # nobody else is told: it was to be kept warm
            text = f"A container of {container.function.title} could not start: {error.message}"
            self._say(container.app, container.function, text, container_id)
        # User code that cannot be loaded fails the same way each time.
        self.dispatch(events.StartFailed(container_id, error.message, final=True))

    def outputs(self, container_id: str, message: Outputs, body: memoryview | bytes) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        finish, live, running = self._calls.finish, self._calls.live, container.running
        function = container.function
        offset, seconds, direct, ended = 0, 0.0, 0, []
        failed: list[tuple[Call, Output, bytes]] = []
        for answer in message.outputs:
            data = bytes(body[offset : offset + answer.size])
            offset += answer.size
            one = answer.input_id
            if running.pop(one, None) is None:
                if answer.call_id:
                    direct += 1
                    seconds += answer.seconds
                    self._direct_calls.ended(function, answer, data, container_id)
                continue  # not an input of this container: hostile or late
            ended.append(one)
            seconds += answer.seconds
            call_id, index = locate(one)
            call = live(call_id)
            if call is None or index not in call.inputs:
                continue
            output = Output(index, answer.status, answer.size, answer.blob, answer.error, one)
            if answer.status is Status.SUCCESS:
                finish(call, index, output, data, container_id)
            else:
                failed.append((call, output, data))
        function.running_inputs -= len(ended)
        if direct and self._calls.problem():
            self._node.close_lines(container_id)  # no calls are taken while they cannot be kept
        self.dispatch(events.InputsFinished(container_id, ended, seconds, direct))
        for call, output, data in failed:
            self._attempts.failed(call, output, data, container_id)
        self._touch(function)

    def inputs_taken(self, container_id: str, message: Taken, body: memoryview | bytes) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        taken = self._direct_calls.taken(container, message, body)
        if taken:
            self._take(container, taken)
        # A call that was cancelled meanwhile: the container did not know then which input was meant.
        over = [one.input_id for one in message.inputs if (call := self._calls.live(one.call_id)) and call.is_done]
        if over:
            self._node.cancel(container_id, over)

    def yielded(self, container_id: str, message: Yielded, body: memoryview | bytes) -> None:
        container = self._containers.get(container_id)
        if container is None or message.input_id not in container.running:
            return
        call = self._calls.live(locate(message.input_id)[0])
        if call is not None:
            call.add_value(Payload(bytes(body), message.blob))

    def inputs_returned(self, container_id: str, input_ids: list[str]) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        self.dispatch(events.InputsReturned(container_id, container.gave_back(input_ids)))

    def container_leaving(self, container_id: str) -> None:
        self.dispatch(events.ContainerLeaving(container_id, self._stop_grace))

    def logs(self, container_id: str, stream: LogStream, text: str, at: float) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        one = next(iter(container.running), "") if container.inputs_at_once == 1 else ""
        container.app.log.append(at, stream, text, container.function.function_id, container_id, one)

    def container_exited(self, container_id: str, exit: ContainerExit) -> None:
        container = self._containers.get(container_id)
        if container is None:
            return
        function = container.function
        container.ended(exit)
        is_crash = exit.cause in (ExitCause.OUT_OF_MEMORY, ExitCause.EXITED, ExitCause.SIGNALED)
        if is_crash:
            self._say(container.app, function, f"A container of {function.title} ended: {exit.detail}", container_id)
        for one in container.running:
            self._attempts.abandon_calls_of(one)
        self.dispatch(events.ContainerExited(container_id, exit.detail, tuple(container.timed_out), is_crash))
        del self._containers[container_id]
        self.ended[container_id] = container.app.app_id
        if len(self.ended) > _ENDED_KEPT:
            self.ended.popitem(last=False)
        container.app.wake()
        if container.has_line:
            self._direct_calls.remember(container)
        if not any(other.function is function for other in self._containers.values()):
            empty = self._empty.pop(function.function_id, None)
            if empty is not None:
                empty.set()
        self._touch(function)

    # -- bookkeeping -------------------------------------------------------------------------------------------

    def input_finished(self, call: Call, index: int, finished: Finished) -> None:
        """Count a final output; `Calls` reports each."""
        function = self._functions.by_id.get(call.record.function_id)
        if function is not None:
            function.open_inputs -= 1
            function.done_inputs += 1
            if finished.output.status is not Status.SUCCESS:
                function.failed_inputs += 1

    def _say(self, app: App, function: Function, line: str, container_id: str = "") -> None:
        """Add a line of ours to what the app prints."""
        app.log.append(self._now(), LogStream.SYSTEM, f"{line}\n", function.function_id, container_id)

    def _touch(self, function: Function | None) -> None:
        if function is not None:
            app = self._apps.find(function.app_id)
            if app is not None:
                app.touch(function.function_id)
