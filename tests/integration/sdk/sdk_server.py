"""A tiny service behind the real dispatcher: it runs functions in this process, enough to test the SDK's side."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any, Callable, Optional

from intermodal.control.rpc import Context, Dispatcher, ServerStream, serve_unix
from modal._serialization import deserialize, serialize, serialize_failure
from modal._wire.messages.app import (
    APP_CREATE,
    APP_EVENTS,
    APP_OBJECTS,
    APP_PUBLISH,
    APP_STOP,
    AppCreated,
    AppEvent,
    AppObjects,
    AppPublished,
    AppStopReason,
    LogEntry,
    LogStream,
)
from modal._wire.messages.blob import BLOB_GET, BLOB_MISSING, BLOB_PUT, BlobDigests
from modal._wire.messages.call import (
    CALL_CANCEL,
    CALL_GENERATE,
    CALL_GET,
    CALL_MAP,
    CALL_RUN,
    CALL_SPAWN,
    INLINE_LIMIT,
    CallRef,
    GeneratorItem,
    Input,
    Output,
    OutputBatch,
    Status,
)
from modal._wire.messages.common import Empty
from modal._wire.messages.function import FUNCTION_CREATE, FUNCTION_STATS, FunctionHandle, FunctionStats
from modal._wire.messages.image import IMAGE_BUILD, BuildEvent, ImageInfo
from modal._wire.messages.mount import MOUNT_CREATE, MountRef
from modal._wire.messages.secret import SECRET_CREATE, SecretRef
from modal.exception import NotFoundError, TimeoutError


class SdkServer:
    """Runs in a thread of its own. `functions` maps a function's name to what runs for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.functions: dict[str, Callable[..., Any]] = {}
        self.specs: dict[str, Any] = {}
        self.bodies: dict[str, bytes] = {}
        self.stopped: list[AppStopReason] = []
        self.created: list[Any] = []
        self.published: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.images: list[Any] = []  # specs that were to be built
        self.mounted: list[str] = []  # paths of files
        self.seen: list[int] = []  #: index of every map input that ran
        self.blobs: dict[str, bytes] = {}
        self.batches: list[int] = []
        self.drop_after: Optional[int] = None  #: close the connection once, after that many map outputs
        self.hold = False  #: take inputs, give no outputs
        self.wrong_image = False
        self._calls: dict[str, dict[int, tuple[Output, bytes]]] = {}
        self._complete: set[str] = set()
        self._stops: dict[str, asyncio.Event] = {}
        self._held: list[Any] = []
        self._ids = 0
        self._loop = asyncio.new_event_loop()
        self._server: Any = None
        self._connections: set[Any] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    # -- life

    def __enter__(self) -> SdkServer:
        started = threading.Event()
        self._thread.start()

        async def serve() -> None:
            self._server = await serve_unix(self._dispatcher(), self.path)
            started.set()

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)
        assert started.is_set()
        return self

    def __exit__(self, *exc: Any) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}-{self._ids:022d}"

    def _dispatcher(self) -> Dispatcher:
        dispatcher = Dispatcher()
        for method, handler in (
            (APP_CREATE, self.app_create),
            (APP_PUBLISH, self.app_publish),
            (APP_STOP, self.app_stop),
            (APP_OBJECTS, self.app_objects),
            (APP_EVENTS, self.app_events),
            (IMAGE_BUILD, self.image_build),
            (MOUNT_CREATE, self.mount_create),
            (SECRET_CREATE, self.secret_create),
            (FUNCTION_CREATE, self.function_create),
            (FUNCTION_STATS, self.function_stats),
            (BLOB_MISSING, self.blob_missing),
            (BLOB_PUT, self.blob_put),
            (BLOB_GET, self.blob_get),
            (CALL_RUN, self.call_run),
            (CALL_SPAWN, self.call_spawn),
            (CALL_GET, self.call_get),
            (CALL_MAP, self.call_map),
            (CALL_GENERATE, self.call_generate),
            (CALL_CANCEL, self.call_cancel),
        ):
            dispatcher.register(method, handler)
        return dispatcher

    # -- apps

    async def app_create(self, ctx: Context, request: Any, body: bytes) -> AppCreated:
        self.created.append(request)
        app_id = self.new_id("ap")
        self._stops[app_id] = asyncio.Event()
        return AppCreated(app_id)

    async def app_publish(self, ctx: Context, request: Any, body: bytes) -> AppPublished:
        self.published = request.functions
        return AppPublished(request.app_id, 0, request.functions)

    async def app_objects(self, ctx: Context, request: Any, body: bytes) -> AppObjects:
        return AppObjects(request.app_id, "an app", None, self.published)

    async def app_stop(self, ctx: Context, request: Any, body: bytes) -> Empty:
        self.stopped.append(request.reason)
        self._stops[request.app_id].set()
        return Empty()

    async def app_events(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> None:
        if request.after < 1:
            await stream.send(AppEvent(logs=[LogEntry(1, 0.0, LogStream.STDOUT, "hello\n")]))
        await self._stops[request.app_id].wait()
        await stream.send(AppEvent(logs=[LogEntry(2, 0.0, LogStream.STDOUT, "goodbye\n")]))
        await stream.send(AppEvent(stopped=self.stopped[-1]))

    async def image_build(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> None:
        self.images.append(request)
        if self.wrong_image:
            raise NotFoundError("The image cannot be had.")
        await stream.send(BuildEvent(done=ImageInfo(self.new_id("im"), "3.11.2")))

    async def mount_create(self, ctx: Context, request: Any, body: bytes) -> MountRef:
        self.mounted += [entry.path for entry in request.files]
        return MountRef(self.new_id("mo"))

    async def secret_create(self, ctx: Context, request: Any, body: bytes) -> SecretRef:
        return SecretRef(self.new_id("st"))

    async def function_create(self, ctx: Context, request: Any, body: bytes) -> FunctionHandle:
        function_id = self.new_id("fu")
        self.specs[function_id] = request.spec
        self.bodies[request.spec.name] = bytes(body)
        return FunctionHandle(function_id, request.spec.name, request.spec.is_generator)

    async def function_stats(self, ctx: Context, request: Any, body: bytes) -> FunctionStats:
        return FunctionStats(3, 4)

    # -- blobs

    async def blob_missing(self, ctx: Context, request: Any, body: bytes) -> BlobDigests:
        return BlobDigests([digest for digest in request.digests if digest not in self.blobs])

    async def blob_put(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> Any:
        from modal._wire.messages.blob import BlobRef

        data = bytearray()
        async for _, chunk in stream:
            data += chunk
        self.blobs[request.digest] = bytes(data)
        return BlobRef(request.digest, len(data))

    async def blob_get(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> None:
        await stream.send(Empty(), self.blobs[request.digest])

    # -- calls

    def execute(self, function_id: str, one: Input, payload: bytes) -> tuple[Output, bytes]:
        import hashlib

        from modal._wire.messages.blob import BlobRef

        data = self.blobs[one.blob.digest] if one.blob is not None else payload
        try:
            args, kwargs = deserialize(data)
            result = serialize(self.functions[self.specs[function_id].name](*args, **kwargs))
            status = Status.SUCCESS
        except Exception as error:
            result, status = serialize_failure(error), Status.FAILURE
        if len(result) > INLINE_LIMIT:
            ref = BlobRef(hashlib.sha256(result).hexdigest(), len(result))
            self.blobs[ref.digest] = result
            return Output(one.index, status, 0, ref), b""
        return Output(one.index, status, len(result)), result

    async def call_run(self, ctx: Context, request: Any, body: bytes) -> tuple[Output, bytes]:
        while self.hold:
            await asyncio.sleep(0.01)
        return self.execute(request.function_id, request.input, bytes(body))

    async def call_spawn(self, ctx: Context, request: Any, body: bytes) -> CallRef:
        call_id = self.new_id("fc")
        self._calls[call_id] = {} if self.hold else {0: self.execute(request.function_id, request.input, bytes(body))}
        return CallRef(call_id)

    async def call_get(self, ctx: Context, request: Any, body: bytes) -> tuple[Output, bytes]:
        answer = self._calls[request.call_id].get(request.index)
        if answer is None:
            raise TimeoutError("no result yet")
        return answer

    async def call_cancel(self, ctx: Context, request: Any, body: bytes) -> Empty:
        self.cancelled.append(request.call_id)
        return Empty()

    async def call_map(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> None:
        call_id = request.call_id or self.new_id("fc")
        answers = self._calls.setdefault(call_id, {})
        await stream.send(OutputBatch(call_id=call_id))
        for index, (output, data) in list(answers.items()):
            if index not in request.received:
                await stream.send(OutputBatch([output]), data)
        self._held.append(stream)
        async for batch, payloads in stream:
            if batch.last:
                self._complete.add(call_id)
            outputs, bodies, at = [], [], 0
            self.batches.append(len(batch.inputs))
            for one in batch.inputs:
                payload = bytes(payloads[at : at + one.size])
                at += one.size
                if one.index in answers or self.hold:
                    continue
                self.seen.append(one.index)
                output, data = answers[one.index] = self.execute(request.function_id, one, payload)
                outputs.append(output)
                bodies.append(data)
            await stream.send(OutputBatch(outputs), b"".join(bodies))
            if self.drop_after is not None and len(answers) >= self.drop_after:
                self.drop_after = None
                stream._endpoint.hang_up()
                return
        if call_id in self._complete and not self.hold:
            await stream.send(OutputBatch(done=True))
        else:
            await asyncio.Event().wait()

    def release(self) -> None:
        """Let maps that were held go on, over a new connection."""
        self._loop.call_soon_threadsafe(lambda: [stream._endpoint.hang_up() for stream in self._held])

    async def call_generate(self, ctx: Context, request: Any, body: bytes, stream: ServerStream[Any, Any]) -> None:
        args, kwargs = deserialize(bytes(body))
        failure = b""
        with contextlib.closing(self.functions[self.specs[request.function_id].name](*args, **kwargs)) as values:
            try:
                for value in values:
                    data = serialize(value)
                    await stream.send(GeneratorItem(len(data)), data)
            except ValueError as error:
                failure = serialize_failure(error)
        status = Status.FAILURE if failure else Status.SUCCESS
        await stream.send(GeneratorItem(output=Output(0, status, len(failure))), failure)
