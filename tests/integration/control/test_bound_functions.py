"""`function.bind` over the wire: what it gives, what it refuses, and how unused functions are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from test_call_path import PYTHON, Client

from intermodal.control import class_service
from intermodal.daemon import running
from intermodal.settings import Settings
from modal._objects.user_class import spec_of
from modal._serialization import deserialize, serialize, serialize_function
from modal._wire.client import RpcClient
from modal._wire.messages.app import APP_CREATE, APP_PUBLISH, AppCreate, AppPublish
from modal._wire.messages.call import CALL_RUN, CallRun, Input
from modal._wire.messages.function import (
    FUNCTION_BIND,
    FUNCTION_CREATE,
    FUNCTION_STATS,
    FunctionBind,
    FunctionCreate,
    FunctionOverrides,
    FunctionRef,
    FunctionSpec,
    Source,
    SourceKind,
)
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal.exception import Error, InvalidError, NotFoundError, RequestSizeError
from modal.partial_function import method, parameter


class Model:
    size: int = parameter()

    @method()
    def tell(self) -> int:
        return self.size


class Classes(Client):
    async def add(self, cls: type) -> str:
        source = Source(SourceKind.SERIALIZED, qualname=cls.__qualname__, python=PYTHON)
        spec = FunctionSpec(cls.__name__, source, self.image_id, cls=spec_of(cls))
        handle, _ = await self.rpc.unary(FUNCTION_CREATE, FunctionCreate(self.app_id, spec), serialize_function(cls))
        await self.rpc.unary(APP_PUBLISH, AppPublish(self.app_id, {handle.name: handle.function_id}))
        return handle.function_id

    async def bind(self, class_id: str, body: bytes, overrides: FunctionOverrides | None = None) -> str:
        handle, _ = await self.rpc.unary(FUNCTION_BIND, FunctionBind(class_id, overrides or FunctionOverrides()), body)
        return handle.function_id

    async def call(self, function_id: str, name: str) -> object:
        payload = serialize(((), {}))
        request = CallRun(function_id, Input(0, len(payload)), method=name)
        _, data = await self.rpc.unary(CALL_RUN, request, payload, timeout=30)
        return deserialize(data)


@pytest.fixture
async def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Classes]:
    monkeypatch.setattr(class_service, "FORGET_AFTER", 0.5)
    monkeypatch.setattr(class_service, "LOOK_EVERY", 0.05)
    settings = Settings(
        data_dir=tmp_path / "data",
        port=-1,
        runtime="mock",
        builder="memory",
        session_grace=0.2,
        database_url="memory://",
    )
    settings.run_dir.mkdir(parents=True)
    async with running(settings):
        rpc = RpcClient(f"unix://{settings.socket}", session="se-test")
        await rpc.open()
        layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
        async with rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            [done] = [event.done async for event, _ in events if event.done]
        app, _ = await rpc.unary(APP_CREATE, AppCreate("test", "main"))
        yield Classes(rpc, done.image_id, app.app_id)
        await rpc.close()


async def test_the_same_parameters_have_the_same_function_and_others_another(classes: Classes) -> None:
    cls = await classes.add(Model)
    one = await classes.bind(cls, b'{"size": 1}')
    assert one == await classes.bind(cls, b'{"size":1}') != cls
    assert one != await classes.bind(cls, b'{"size":2}')
    assert one != await classes.bind(cls, b'{"size":1}', FunctionOverrides(timeout=9.0))
    assert await classes.call(one, "tell") == 1


async def test_what_cannot_be_bound_or_called_is_refused(classes: Classes) -> None:
    cls = await classes.add(Model)
    plain = await classes.function(len)
    one = await classes.bind(cls, b'{"size":1}')
    refused: list[tuple[type[Error], str, bytes, FunctionOverrides]] = [
        (InvalidError, cls, b"", FunctionOverrides()),
        (InvalidError, cls, b"[" * 100_000, FunctionOverrides()),
        (RequestSizeError, cls, b"x" * 300_000, FunctionOverrides()),
        (InvalidError, plain, b"", FunctionOverrides()),
        (InvalidError, one, b'{"size":2}', FunctionOverrides()),
        (NotFoundError, "fu-nothing", b"", FunctionOverrides()),
        (NotFoundError, cls, b'{"size":1}', FunctionOverrides(secret_ids=["st-nothing"])),
        (InvalidError, cls, b'{"size":1}', FunctionOverrides(timeout=0.0)),
        (InvalidError, cls, b'{"size":1}', FunctionOverrides(max_containers=0)),
        (InvalidError, cls, b'{"size":1}', FunctionOverrides(cpu=-1.0)),
    ]
    for kind, function_id, body, overrides in refused:
        with pytest.raises(kind):
            await classes.bind(function_id, body, overrides)
    for function_id, name in ((cls, "tell"), (one, "no_method"), (one, ""), (plain, "tell")):
        with pytest.raises(Error):
            await classes.call(function_id, name)


async def test_an_unused_function_is_forgotten_and_comes_back_with_the_same_id(classes: Classes) -> None:
    cls = await classes.add(Model)
    one = await classes.bind(cls, b'{"size":1}')

    async def is_forgotten() -> bool:
        try:
            await classes.rpc.unary(FUNCTION_STATS, FunctionRef(one))
        except NotFoundError:
            return True
        return False

    async with asyncio.timeout(20):
        while not await is_forgotten():
            await asyncio.sleep(0.05)
    assert await classes.bind(cls, b'{"size":1}') == one
    assert await classes.call(one, "tell") == 1
    until = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < until:  # its container is idle, not gone
        assert not await is_forgotten()
        await asyncio.sleep(0.05)
