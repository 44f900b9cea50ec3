"""RPC: function calls. A unary call is one request and one reply; a map is one duplex stream."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Union

from intermodal.control.access import require_environment, require_use
from intermodal.control.apps import Apps, stopped_error
from intermodal.control.calls import Call, Calls, Finished, input_id
from intermodal.control.direct_service import DirectService
from intermodal.control.fleet import Fleet
from intermodal.control.function_service import require_open
from intermodal.control.functions import Function, Functions
from intermodal.control.generator_values import GeneratorValues
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.machines.app import AppPhase
from intermodal.model.ids import new_id
from intermodal.store.interface import CallKind, CallRecord, StoreError
from modal._wire.errors import from_error_info
from modal._wire.messages.call import (
    CALL_CANCEL,
    CALL_GENERATE,
    CALL_GET,
    CALL_MAP,
    CALL_RUN,
    CALL_SPAWN,
    INLINE_LIMIT,
    PAYLOAD_LIMIT,
    CallCancel,
    CallGenerate,
    CallGet,
    CallMap,
    CallRef,
    CallRun,
    CallSpawn,
    GeneratorItem,
    Input,
    InputBatch,
    Output,
    OutputBatch,
    Status,
)
from modal._wire.messages.common import Empty, ErrorInfo
from modal.exception import ExecutionError, InvalidError, NotFoundError, RequestSizeError, TimeoutError

_BATCH_OUTPUTS = 512  # outputs in one frame
_BATCH_BYTES = 4 * 1024 * 1024
_VALUES_LOST = (
    "The server restarted while the generator ran, so what it yields next cannot be told from what it has yielded "
    "already. Call it again."
)
_VALUES_TAKEN = "The first values of this generator call were given to someone else already and are not kept."
_CANCELLED = ErrorInfo("RemoteError", "The function call was cancelled.")

Reply = tuple[Output, bytes]
_Request = Union[CallRun, CallSpawn, CallMap, CallGenerate]


class CallService:
    """Accepts inputs and hands out outputs.

    Args:
        now: the clock, in seconds since the epoch.
        lines: knows what went where over direct lines.
        earlier_sessions: client sessions from before a restart; only their requests may have been accepted already.
    """

    def __init__(
        self,
        apps: Apps,
        functions: Functions,
        calls: Calls,
        fleet: Fleet,
        lines: DirectService,
        rng: random.Random,
        now: Callable[[], float],
        earlier_sessions: set[str],
    ) -> None:
        self._apps = apps
        self._functions = functions
        self._calls = calls
        self._fleet = fleet
        self._lines = lines
        self._rng = rng
        self._now = now
        self._earlier_sessions = earlier_sessions
        self._run_name = new_id("se", rng)  # of every generator that runs in this life of the server
        self._is_leaving = False

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(CALL_RUN, self.run)
        dispatcher.register(CALL_SPAWN, self.spawn)
        dispatcher.register(CALL_GET, self.get)
        dispatcher.register(CALL_MAP, self.map)
        dispatcher.register(CALL_GENERATE, self.generate)
        dispatcher.register(CALL_CANCEL, self.cancel)

    # -- one input ---------------------------------------------------------------------------------------------

    def run(self, ctx: Context, request: CallRun, body: bytes) -> Any:
        """A plain function that returns a future: the hot path makes no task."""
        if request.call_id and ctx.principal.kind == "local":  # nobody else has direct lines
            return self._run_sent_directly(ctx, request, body)
        if ctx.session_id in self._earlier_sessions:
            return self._run_again(ctx, request, body)
        call = self._begin(ctx, CallKind.RUN, request, request.input, body)
        return self._awaited(call)

    def _awaited(self, call: Call) -> asyncio.Future[Reply]:
        future = self._output_of(call, 0)
        future.add_done_callback(lambda done: self._caller_gone(call) if done.cancelled() else None)
        return future

    def _run_sent_directly(self, ctx: Context, request: CallRun, body: bytes) -> Any:
        """The input went over a direct line and got no answer there."""
        line = self._lines.line_of(request.line_id, request.call_id, request.function_id)
        call = self._calls.live(request.call_id)
        if call is None and line is None:
            return self._run_after_restart(ctx, request, body)
        if call is None:
            assert line is not None
            app = self._apps.find(line.app_id)
            if app is None or not app.is_open:
                raise from_error_info(stopped_error(line.app_id, app.stop_reason if app is not None else None))
            check_inputs([request.input], body)
            call = self._begin(ctx, CallKind.RUN, request, None, b"", request.call_id)
            self._calls.add_inputs(call, [replace(request.input, index=0)], body)
            self._functions.get(request.function_id).open_inputs += 1
            self._calls.close_inputs(call)
            self._fleet.sent_directly(call, line.container_id)
        return self._awaited(call)

    async def _run_after_restart(self, ctx: Context, request: CallRun, body: bytes) -> Reply:
        """The container was one of an earlier server: run again what that server did not hear of."""
        try:
            call = await self._calls.find(request.call_id)
        except NotFoundError:
            call = self._begin(ctx, CallKind.RUN, request, request.input, body, request.call_id)
        return await self._awaited(call)

    def leave(self) -> None:
        """The server stops: from now on a caller that is cut off has not cancelled its call."""
        self._is_leaving = True

    def _caller_gone(self, call: Call) -> None:
        """Nobody waits for the call any more. A detached app goes on all the same: that is what it is for."""
        app = self._apps.find(call.record.app_id)
        if app is not None and app.machine.state is not AppPhase.DETACHED and not self._is_leaving:
            self._end(call)

    def _end(self, call: Call) -> None:
        """Cancel what is left of a call."""
        if not call.is_done:
            self._calls.abandon(call, Status.TERMINATED, _CANCELLED)
            self._fleet.drop_call(call)

    async def _run_again(self, ctx: Context, request: CallRun, body: bytes) -> Reply:
        call = await self._calls.find_by_key(f"{ctx.session_id}/{ctx.key}")
        if call is None:
            call = self._begin(ctx, CallKind.RUN, request, request.input, body)
        return await self._output_of(call, 0)

    async def spawn(self, ctx: Context, request: CallSpawn, body: bytes) -> CallRef:
        call = None
        if ctx.session_id in self._earlier_sessions:
            call = await self._calls.find_by_key(f"{ctx.session_id}/{ctx.key}")
        if call is None:
            call = self._begin(ctx, CallKind.SPAWN, request, request.input, body)
            try:
                await self._calls.durable()
            except StoreError:
                self._end(call)  # its caller hears that it was not accepted: it must not run either
                self._calls.flush()  # kept with what failed, to be written together: a restart does not run it either
                raise
        return CallRef(call.record.call_id)

    async def get(self, ctx: Context, request: CallGet, body: bytes) -> Reply:
        call = await self._calls.find(request.call_id)
        require_use(ctx, self._apps, call.record.app_id)
        await require_environment(self._apps, call.record, request.environment)
        waiting = self._output_of(call, request.index)
        try:
            return await asyncio.wait_for(waiting, request.timeout)
        except asyncio.TimeoutError:
            raise TimeoutError(
                f"The function call {request.call_id} has no result yet, after {request.timeout:g} s of waiting."
            ) from None

    async def cancel(self, ctx: Context, request: CallCancel, body: bytes) -> Empty:
        call = await self._calls.find(request.call_id)
        require_use(ctx, self._apps, call.record.app_id)
        await require_environment(self._apps, call.record, request.environment)
        if not call.is_done:
            self._calls.abandon(call, Status.TERMINATED, _CANCELLED)
            self._fleet.drop_call(call, request.terminate_containers)
        return Empty()

    def _begin(
        self, ctx: Context, kind: CallKind, request: _Request, first: Input | None, body: bytes, call_id: str = ""
    ) -> Call:
        """Make the call and, when it has just one input, queue that."""
        if first is not None:  # before there is a call, which nobody would end
            check_inputs([first], body)
        function_id, parent, method = request.function_id, request.parent_input_id, request.method
        function = self._usable(ctx, function_id, method)
        if kind is not CallKind.SPAWN:
            require_kind(function, method, kind)
        if problem := self._calls.problem():
            raise StoreError(f"The server takes no new calls while it cannot keep them. {problem}")
        key = f"{ctx.session_id}/{ctx.key}"
        call_id, is_complete = call_id or new_id("fc", self._rng), first is not None
        record = CallRecord(
            call_id, function_id, function.app_id, kind, self._now(), parent, key, is_complete, method=method
        )
        call = self._calls.create(record, function.spec.retries)
        if first is not None:
            self._accept(
                function, call, InputBatch([first if first.index == 0 else replace(first, index=0)], True), body
            )
        return call

    def _usable(self, ctx: Context, function_id: str, method: str) -> Function:
        function = self._functions.get(function_id)
        require_use(ctx, self._apps, function.app_id)
        require_open(self._apps.get(function.app_id))
        if method or function.spec.cls is not None:
            require_method(function, method)
        return function

    def _accept(self, function: Function, call: Call, batch: InputBatch, body: bytes) -> None:
        """Queue inputs that were checked."""
        new = self._calls.add_inputs(call, batch.inputs, body)
        function.open_inputs += len(new)
        if new:
            self._fleet.queue_inputs(call, new)
        if batch.last:
            self._calls.close_inputs(call)

    def _output_of(self, call: Call, index: int) -> asyncio.Future[Reply]:
        """The output of one input, when it comes."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if call.output is not None:
            future.set_result((call.output.output, call.output.data))
            return future

        def arrived(ended: int, finished: Finished) -> None:
            if ended == index and not future.done():
                future.set_result((finished.output, finished.data))

        remove = call.add_watcher(arrived)
        future.add_done_callback(lambda _: remove())
        return future

    # -- map ---------------------------------------------------------------------------------------------------

    async def map(self, ctx: Context, request: CallMap, body: bytes, stream: ServerStream[Any, Any]) -> None:
        if request.call_id:
            call = await self._calls.find(request.call_id)
            require_use(ctx, self._apps, call.record.app_id)
        else:
            call = self._begin(ctx, CallKind.MAP, request, None, b"")
        outbox = _Outbox(call)
        if request.call_id:
            received = set(request.received)
            outbox.add(one for one in await self._calls.outputs(call) if one.output.index not in received)
        reading = asyncio.create_task(self._read_inputs(call, stream, outbox))
        try:
            await stream.send(OutputBatch(call_id=call.record.call_id))
            while True:
                await outbox.ready.wait()
                for batch, data in outbox.take():
                    await stream.send(batch, data)
                if reading.done() and reading.exception() is not None:
                    await reading
                if call.is_done and not outbox.pending:
                    await stream.send(OutputBatch(done=True))
                    return
        finally:
            outbox.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_inputs(self, call: Call, stream: ServerStream[Any, Any], outbox: _Outbox) -> None:
        try:
            async for batch, body in stream:
                function = self._functions.get(call.record.function_id)
                require_open(self._apps.get(function.app_id))
                check_inputs(batch.inputs, body)
                self._accept(function, call, batch, bytes(body))
                if call.is_done:
                    outbox.ready.set()
        finally:
            outbox.ready.set()

    # -- generators --------------------------------------------------------------------------------------------

    async def generate(self, ctx: Context, request: CallGenerate, body: bytes, stream: ServerStream[Any, Any]) -> None:
        call = await self._generator(ctx, request, body)
        if call.values is None:
            call.values = GeneratorValues()
        values, output = call.values, call.output
        is_lost = values.is_lost or (request.received > 0 and request.run != self._run_name)
        if request.received < values.first or (is_lost and (output is None or output.output.status is Status.SUCCESS)):
            if call.record.kind is CallKind.GENERATE:
                self._end(call)
            raise ExecutionError(_VALUES_LOST if is_lost else _VALUES_TAKEN)
        news = values.follow()
        remove = call.add_watcher(lambda index, finished: values.wake())
        try:
            await stream.send(GeneratorItem(call_id=call.record.call_id, run=self._run_name))
            await self._send_values(call, values, request.received, news, stream)
        finally:
            remove()
            values.unfollow(news)
            # A connection that broke is made again; a client that is gone for good takes its app along.
            if call.record.kind is CallKind.GENERATE and not stream.is_broken:
                self._caller_gone(call)

    async def _generator(self, ctx: Context, request: CallGenerate, body: bytes) -> Call:
        """The call that is to be followed, which may have to be made."""
        call: Call | None = None
        if request.call_id:
            call = await self._calls.find(request.call_id)
        elif request.again and ctx.key:
            call = await self._calls.find_by_key(f"{ctx.session_id}/{ctx.key}")
        if call is not None:
            require_use(ctx, self._apps, call.record.app_id)
            await require_environment(self._apps, call.record, request.environment)
            return call
        if request.input is None:
            raise InvalidError("A generator call needs an input or the id of a call.")
        return self._begin(ctx, CallKind.GENERATE, request, request.input, body)

    async def _send_values(
        self, call: Call, values: GeneratorValues, position: int, news: asyncio.Event, stream: ServerStream[Any, Any]
    ) -> None:
        while True:
            news.clear()
            while values.first <= position < values.total:
                value = values.at(position)
                await stream.send(GeneratorItem(len(value.data), value.blob), value.data)
                granted = values.was_sent(position)
                position += 1
                if granted:
                    self._fleet.credit(input_id(call.record.call_id, 0), granted)
            if position < values.first:
                raise ExecutionError(_VALUES_TAKEN)
            if call.output is not None:
                await stream.send(GeneratorItem(output=call.output.output), call.output.data)
                return
            await news.wait()


def check_inputs(inputs: Sequence[Input], body: bytes | memoryview) -> None:
    """Raise `RequestSizeError` when an input is too large, `InvalidError` when the body is not that of the inputs."""
    for item in inputs:
        if item.size > INLINE_LIMIT or (item.blob is not None and item.blob.size > PAYLOAD_LIMIT):
            raise RequestSizeError(
                f"An input of {max(item.size, item.blob.size if item.blob else 0)} bytes is over the limit "
                f"of {PAYLOAD_LIMIT >> 30} GiB; put large data in a Volume and pass its path."
            )
    if sum(item.size for item in inputs) != len(body) or any(item.size < 0 or item.index < 0 for item in inputs):
        raise InvalidError("The sizes of the inputs do not match the data sent with them.")


def require_method(function: Function, method: str) -> None:
    """Raise unless the function is a class that has the method and can be called."""
    name, cls = function.spec.name, function.spec.cls
    if cls is None:
        raise InvalidError(f"{name} is a function, not a class, so it has no method {method[:100]!r}.")
    if not method:
        first = next(iter(cls.methods), "method")
        raise InvalidError(f"{name} is a class: call one of its methods, as in {name}().{first}.")
    if method not in cls.methods:
        known = ", ".join(sorted(cls.methods)) or "none"
        raise NotFoundError(f"The class {name} has no method {method[:100]!r}; its methods are: {known}.")
    if not function.can_run:
        raise InvalidError(f"The class {name} needs parameters: make an instance with {name}(...).")


def require_kind(function: Function, method: str, kind: CallKind) -> None:
    """Raise `InvalidError` when one value is wanted of a generator, or many of what is none."""
    spec = function.spec
    is_generator = spec.is_generator if spec.cls is None else spec.cls.methods[method].is_generator
    if is_generator != (kind is CallKind.GENERATE):
        now = "is a generator: call it with remote_gen()" if is_generator else "is no generator: call it with remote()"
        raise InvalidError(f"{spec.name} {now}. Its app was deployed again since it was looked up.")


class _Outbox:
    """Outputs of a map on their way to one client, gathered into batches."""

    def __init__(self, call: Call) -> None:
        self.pending: list[Finished] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self._remove = call.add_watcher(self._arrived)

    def add(self, earlier: Iterable[Finished]) -> None:
        """Outputs from the journal; one that arrived meanwhile is there already."""
        arrived = {finished.output.index for finished in self.pending}
        self.pending.extend(finished for finished in earlier if finished.output.index not in arrived)

    def _arrived(self, index: int, finished: Finished) -> None:
        self.pending.append(finished)
        self.ready.set()

    def take(self) -> list[tuple[OutputBatch, bytes]]:
        """What has arrived, cut into frames."""
        self.ready.clear()
        batches: list[tuple[OutputBatch, bytes]] = []
        pending, self.pending = self.pending, []
        outputs: list[Output] = []
        bodies: list[bytes] = []
        size = 0
        for finished in pending:
            if outputs and (len(outputs) >= _BATCH_OUTPUTS or size + len(finished.data) > _BATCH_BYTES):
                batches.append((OutputBatch(outputs), b"".join(bodies)))
                outputs, bodies, size = [], [], 0
            outputs.append(finished.output)
            bodies.append(finished.data)
            size += len(finished.data)
        if outputs:
            batches.append((OutputBatch(outputs), b"".join(bodies)))
        return batches

    def close(self) -> None:
        self._remove()
