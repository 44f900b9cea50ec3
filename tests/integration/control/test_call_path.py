"""Calls through a real server: RPC, scheduler, agent and runner, with containers as plain processes."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from intermodal.builder.memory import MemoryBuilder
from intermodal.daemon import running
from intermodal.settings import Settings
from modal._serialization import deserialize, deserialize_failure, serialize
from modal._wire.client import RpcClient
from modal._wire.messages.app import (
    APP_CREATE,
    APP_EVENTS,
    APP_PUBLISH,
    APP_STOP,
    AppCreate,
    AppEvents,
    AppPublish,
    AppState,
    AppStop,
    AppStopReason,
    LogStream,
)
from modal._wire.messages.call import (
    CALL_CANCEL,
    CALL_GET,
    CALL_MAP,
    CALL_RUN,
    CALL_SPAWN,
    INLINE_LIMIT,
    CallCancel,
    CallGet,
    CallMap,
    CallRun,
    CallSpawn,
    Input,
    InputBatch,
    Output,
    Status,
)
from modal._wire.messages.function import (
    FUNCTION_CREATE,
    FunctionCreate,
    FunctionSpec,
    RetryPolicy,
    Source,
    SourceKind,
)
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal.exception import InvalidError, NotFoundError, RequestSizeError, TimeoutError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Client:
    """An app with functions, through the wire alone."""

    def __init__(self, rpc: RpcClient, image_id: str, app_id: str) -> None:
        self.rpc, self.image_id, self.app_id = rpc, image_id, app_id

    async def function(self, code: Callable[..., object], **spec: object) -> str:
        source = Source(SourceKind.SERIALIZED, qualname=code.__qualname__, python=PYTHON)
        wanted = FunctionSpec(code.__name__, source, self.image_id, **spec)  # type: ignore[arg-type]
        handle, _ = await self.rpc.unary(FUNCTION_CREATE, FunctionCreate(self.app_id, wanted), serialize(code))
        await self.rpc.unary(APP_PUBLISH, AppPublish(self.app_id, {handle.name: handle.function_id}))
        return handle.function_id

    async def run(self, function_id: str, *args: object) -> tuple[Output, bytes]:
        payload = serialize((args, {}))
        return await self.rpc.unary(CALL_RUN, CallRun(function_id, Input(0, len(payload))), payload, timeout=20)

    async def spawn(self, function_id: str, *args: object) -> str:
        payload = serialize((args, {}))
        ref, _ = await self.rpc.unary(CALL_SPAWN, CallSpawn(function_id, Input(0, len(payload))), payload, timeout=20)
        return ref.call_id


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        port=-1,
        runtime="mock",
        builder="memory",
        session_grace=0.2,
        database_url="memory://",
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    settings.run_dir.mkdir(parents=True)
    async with running(settings):
        rpc = RpcClient(f"unix://{settings.socket}", session="se-test")
        await rpc.open()
        layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
        async with rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            [done] = [event.done async for event, _ in events if event.done]
        app, _ = await rpc.unary(APP_CREATE, AppCreate("test", "main"))
        yield Client(rpc, done.image_id, app.app_id)
        await rpc.close()


async def test_a_function_runs_and_its_result_comes_back(client: Client) -> None:
    def double(x: int) -> int:
        return 2 * x

    output, data = await client.run(await client.function(double), 21)
    assert output.status is Status.SUCCESS
    assert deserialize(data) == 42


async def test_an_exception_comes_back_and_is_retried_by_policy(client: Client, tmp_path: Path) -> None:
    marks = str(tmp_path / "attempts")

    def flaky(path: str) -> int:
        with open(path, "a") as file:
            file.write("x")
        if len(open(path).read()) < 3:
            raise ValueError("not yet")
        return len(open(path).read())

    policy = RetryPolicy(max_retries=2, initial_delay=0.01)
    output, data = await client.run(await client.function(flaky, retries=policy), marks)
    assert (output.status, deserialize(data)) == (Status.SUCCESS, 3)

    def hopeless() -> None:
        raise ValueError("never")

    output, data = await client.run(await client.function(hopeless))
    assert output.status is Status.FAILURE
    assert str(deserialize_failure(data)) == "never"


async def test_a_container_that_dies_fails_its_input_with_the_reason(client: Client) -> None:
    def die() -> None:
        import os

        print("last words", end="")
        os._exit(7)

    function_id = await client.function(die)
    output, _ = await client.run(function_id)
    assert output.status is Status.INTERNAL_FAILURE
    assert output.error is not None
    assert "7" in output.error.message
    async with client.rpc.stream(APP_EVENTS, AppEvents(client.app_id, want_status=False)) as events:
        async for event, _ in events:
            if any(entry.text == "last words" and entry.stream is LogStream.STDOUT for entry in event.logs):
                break


async def test_a_function_that_cannot_load_fails_its_inputs(client: Client) -> None:
    class Unloadable:
        def __reduce__(self) -> object:
            return (__import__, ("no_such_module_anywhere",))

    bad = Unloadable()

    def needs() -> object:
        return bad

    output, _ = await client.run(await client.function(needs))
    assert output.status is Status.INIT_FAILURE
    assert output.error is not None
    assert "no_such_module_anywhere" in output.error.message


async def test_a_hung_input_times_out_and_the_next_one_is_unaffected(client: Client) -> None:
    def spin(forever: bool) -> str:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        while forever:
            pass
        return "fine"

    function_id = await client.function(spin, timeout=1.0)
    hung = asyncio.create_task(client.run(function_id, True))
    output, _ = await hung
    assert output.status is Status.TIMEOUT
    output, data = await client.run(function_id, False)
    assert deserialize(data) == "fine"


async def test_a_map_streams_every_output_once(client: Client) -> None:
    def square(x: int) -> int:
        return x * x

    function_id = await client.function(square)
    results: dict[int, int] = {}
    async with client.rpc.stream(CALL_MAP, CallMap(function_id)) as stream:
        for start in range(0, 1000, 100):
            payloads = [serialize(((x,), {})) for x in range(start, start + 100)]
            inputs = [Input(start + i, len(payload)) for i, payload in enumerate(payloads)]
            await stream.send(InputBatch(inputs, last=start == 900), b"".join(payloads))
        await stream.end()
        async for batch, body in stream:
            offset = 0
            for output in batch.outputs:
                assert output.index not in results
                results[output.index] = deserialize(body[offset : offset + output.size])
                offset += output.size
    assert results == {x: x * x for x in range(1000)}


async def test_a_spawned_call_is_found_by_id_and_can_be_cancelled(client: Client) -> None:
    def wait() -> None:
        import time

        time.sleep(60)

    call_id = await client.spawn(await client.function(wait))
    with pytest.raises(TimeoutError, match="no result yet"):
        await client.rpc.unary(CALL_GET, CallGet(call_id, timeout=0))
    await client.rpc.unary(CALL_CANCEL, CallCancel(call_id))
    output, _ = (await client.rpc.unary(CALL_GET, CallGet(call_id, timeout=5)))[0:2]
    assert output.status is Status.TERMINATED
    with pytest.raises(NotFoundError, match="no function call"):
        await client.rpc.unary(CALL_GET, CallGet("fc-nowhere"))


async def test_a_call_whose_caller_gives_up_is_interrupted(client: Client, tmp_path: Path) -> None:
    def wait(path: str) -> None:
        import time

        open(path + ".begun", "w").close()
        try:
            time.sleep(60)
        except BaseException:
            open(path + ".interrupted", "w").close()
            raise

    function_id = await client.function(wait)
    calling = asyncio.create_task(client.run(function_id, str(tmp_path / "mark")))
    await until((tmp_path / "mark.begun").exists)
    calling.cancel()
    await until((tmp_path / "mark.interrupted").exists)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_stopping_an_app_ends_its_calls_and_containers(client: Client) -> None:
    def wait() -> None:
        import time

        time.sleep(60)

    call_id = await client.spawn(await client.function(wait))
    await client.rpc.unary(APP_STOP, AppStop(client.app_id))
    output, _ = await client.rpc.unary(CALL_GET, CallGet(call_id, timeout=5))
    assert output.status is Status.TERMINATED


async def test_an_app_stops_when_its_client_is_gone_for_good(settings: Settings, client: Client) -> None:
    async with client.rpc.stream(APP_EVENTS, AppEvents(client.app_id)) as events:
        other = RpcClient(f"unix://{settings.socket}", session="se-other")
        await other.open()
        theirs, _ = await other.unary(APP_CREATE, AppCreate("theirs", "main"))
        async with client.rpc.stream(APP_EVENTS, AppEvents(theirs.app_id)) as watched:
            await other.close()
            stopped = [event.stopped async for event, _ in watched if event.stopped]
        assert [reason.value for reason in stopped] == ["client_gone"]
        del events


async def test_a_call_whose_input_is_refused_does_not_keep_its_app(settings: Settings, client: Client) -> None:
    def work() -> None: ...

    theirs = RpcClient(f"unix://{settings.socket}", session="se-theirs")
    await theirs.open()
    app, _ = await theirs.unary(APP_CREATE, AppCreate("theirs", "main", AppState.DETACHED))
    function_id = await Client(theirs, client.image_id, app.app_id).function(work)
    for sent in (Input(0, 10), Input(0, INLINE_LIMIT + 1)):
        with pytest.raises((InvalidError, RequestSizeError)):
            await theirs.unary(CALL_SPAWN, CallSpawn(function_id, sent), b"other")
    async with client.rpc.stream(APP_EVENTS, AppEvents(app.app_id)) as events:
        await theirs.close()
        async with asyncio.timeout(10):
            assert [event.stopped async for event, _ in events if event.stopped] == [AppStopReason.FINISHED]


async def test_spawned_inputs_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", port=-1, runtime="mock", builder="memory", session_grace=20)
    settings.run_dir.mkdir(parents=True)

    def double(x: int) -> int:
        return 2 * x

    rpc = RpcClient(f"unix://{settings.socket}", session="se-survivor")
    layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
    builder = MemoryBuilder(python=sys.executable, python_version=platform.python_version())
    async with running(settings, builder):
        await rpc.open()
        async with rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            [done] = [event.done async for event, _ in events if event.done]
        app, _ = await rpc.unary(APP_CREATE, AppCreate("test", "main", AppState.DETACHED))
        client = Client(rpc, done.image_id, app.app_id)
        function_id = await client.function(double)
        call_ids = [await client.spawn(function_id, x) for x in range(5)]
    async with running(settings, builder):
        outputs = [await rpc.unary(CALL_GET, CallGet(one, timeout=10)) for one in call_ids]
        assert [deserialize(data) for _, data in outputs] == [0, 2, 4, 6, 8]
    async with running(settings):  # this server's image store is empty: finished results are still there
        _, data = await rpc.unary(CALL_GET, CallGet(call_ids[0], timeout=10))
        assert deserialize(data) == 0
        await rpc.close()


async def test_every_call_of_a_function_that_cannot_load_gets_the_traceback(client: Client) -> None:
    class Unloadable:
        def __reduce__(self) -> object:
            return (__import__, ("no_such_module_anywhere",))

    bad = Unloadable()

    def needs() -> object:
        return bad

    function_id = await client.function(needs)
    for _ in range(3):  # the later ones are answered while the scheduler backs off
        output, data = await client.run(function_id)
        assert output.status is Status.INIT_FAILURE
        assert "no_such_module_anywhere" in str(deserialize_failure(data))
