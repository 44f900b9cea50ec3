"""Publishing versions through the wire alone: what a full disk, a second attempt and a hostile client come to."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import pytest

from intermodal.builder.memory import MemoryBuilder
from intermodal.daemon import running
from intermodal.settings import Settings
from intermodal.store.failing import FailingStore
from intermodal.store.interface import Change
from modal._serialization import deserialize, serialize
from modal._wire.client import RpcClient
from modal._wire.messages.app import (
    APP_CREATE,
    APP_HISTORY,
    APP_LIST,
    APP_LOOKUP,
    APP_PUBLISH,
    APP_ROLLBACK,
    APP_STOP,
    AppCreate,
    AppList,
    AppName,
    AppObjects,
    AppPublish,
    AppPublished,
    AppRef,
    AppRollback,
    AppState,
    AppStop,
)
from modal._wire.messages.call import CALL_RUN, CallRun, Input
from modal._wire.messages.function import (
    FUNCTION_CREATE,
    FUNCTION_LOOKUP,
    FunctionCreate,
    FunctionLookup,
    FunctionSpec,
    Source,
    SourceKind,
)
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal.exception import InternalFailure, InvalidError, NotFoundError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Deployer:
    def __init__(self, rpc: RpcClient, image_id: str) -> None:
        self.rpc, self.image_id = rpc, image_id

    async def draft(self, name: str = "service") -> str:
        created, _ = await self.rpc.unary(APP_CREATE, AppCreate(name, "main", AppState.DEPLOYED, name))
        return created.app_id

    async def function(self, app_id: str, number: int) -> str:
        source = Source(SourceKind.SERIALIZED, qualname="which", python=PYTHON)
        spec = FunctionSpec("which", source, self.image_id)
        handle, _ = await self.rpc.unary(FUNCTION_CREATE, FunctionCreate(app_id, spec), serialize(lambda: number))
        return handle.function_id

    async def publish(self, app_id: str, functions: dict[str, str]) -> AppPublished:
        published, _ = await self.rpc.unary(APP_PUBLISH, AppPublish(app_id, functions, AppState.DEPLOYED))
        return published

    async def deploy(self, number: int) -> AppPublished:
        draft_id = await self.draft()
        return await self.publish(draft_id, {"which": await self.function(draft_id, number)})

    async def found(self) -> AppObjects:
        found, _ = await self.rpc.unary(APP_LOOKUP, AppName("service", "main"))
        return found

    async def which(self) -> int:
        found, _ = await self.rpc.unary(FUNCTION_LOOKUP, FunctionLookup("service", "which", "main"))
        payload = serialize(((), {}))
        run = CallRun(found.function_id, Input(0, len(payload)))
        _, data = await self.rpc.unary(CALL_RUN, run, payload, timeout=20)
        number: int = deserialize(data)
        return number


class SlowStore(FailingStore):
    """While `gate` is closed, nothing becomes durable."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.writes = 0

    def write(self, changes: Sequence[Change]) -> Awaitable[None]:
        self.writes += 1
        written = super().write(changes)
        return written if self.gate.is_set() else asyncio.ensure_future(self._later(written))

    async def _later(self, written: Awaitable[None]) -> None:
        await self.gate.wait()
        await written


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
async def deployer(tmp_path: Path, store: FailingStore) -> AsyncIterator[Deployer]:
    settings = Settings(data_dir=tmp_path / "data", port=-1, runtime="mock", builder="memory", session_grace=0.2)
    settings.run_dir.mkdir(parents=True)
    builder = MemoryBuilder(python=sys.executable, python_version=platform.python_version())
    async with running(settings, builder, store):
        rpc = RpcClient(f"unix://{settings.socket}", session="se-deployer")
        await rpc.open()
        layers = [ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)]
        async with rpc.stream(IMAGE_BUILD, ImageSpec(layers)) as events:
            [done] = [event.done async for event, _ in events if event.done]
        yield Deployer(rpc, done.image_id)
        await rpc.close()


async def test_a_version_that_cannot_be_stored_does_not_come_into_force(
    deployer: Deployer, store: FailingStore
) -> None:
    draft_id = await deployer.draft()
    function_id = await deployer.function(draft_id, 0)
    store.fail("The disk is full.")
    with pytest.raises(InternalFailure, match="disk is full"):
        await deployer.publish(draft_id, {"which": function_id})
    store.recover()
    await deployer.rpc.unary(APP_STOP, AppStop(draft_id))
    assert (await store.load()).apps == []
    first = await deployer.deploy(1)
    draft_id = await deployer.draft()
    function_id = await deployer.function(draft_id, 2)
    store.fail("The disk is full.")
    with pytest.raises(InternalFailure, match="disk is full"):
        await deployer.publish(draft_id, {"which": function_id})
    store.recover()
    assert await deployer.which() == 1
    # Nor would it after a restart.
    [app] = [one for one in (await store.load()).apps if one.state == "deployed"]
    assert (app.version, app.functions) == (1, first.functions)
    kept = {one.function_id: one for one in (await store.load()).functions}
    assert kept[first.functions["which"]].revision_id == (await store.app_versions(app.app_id))[0].revisions["which"]
    history, _ = await deployer.rpc.unary(APP_HISTORY, AppRef(first.app_id))
    assert [one.version for one in history.versions] == [1]
    second = await deployer.publish(draft_id, {"which": function_id})
    assert (second.app_id, second.version, second.functions) == (first.app_id, 2, first.functions)
    assert await deployer.which() == 2


async def test_a_draft_becomes_one_version_only(deployer: Deployer) -> None:
    draft_id = await deployer.draft()
    functions = {"which": await deployer.function(draft_id, 1)}
    first = await deployer.publish(draft_id, functions)
    again = await deployer.publish(draft_id, functions)
    assert (again.version, again.app_id, again.functions) == (1, first.app_id, first.functions)
    listed, _ = await deployer.rpc.unary(APP_LIST, AppList("main"))
    assert [(one.app_id, one.state) for one in listed.apps] == [(first.app_id, AppState.DEPLOYED)]
    await deployer.rpc.unary(APP_STOP, AppStop(draft_id))  # harms nothing
    assert await deployer.which() == 1


async def test_a_draft_cannot_be_called_or_found(deployer: Deployer) -> None:
    draft_id = await deployer.draft()
    function_id = await deployer.function(draft_id, 1)
    payload = serialize(((), {}))
    with pytest.raises(NotFoundError):
        await deployer.rpc.unary(CALL_RUN, CallRun(function_id, Input(0, len(payload))), payload)
    with pytest.raises(NotFoundError):
        await deployer.rpc.unary(APP_LOOKUP, AppName("service", "main"))
    listed, _ = await deployer.rpc.unary(APP_LIST, AppList("main"))
    assert listed.apps == []


async def test_functions_of_others_and_apps_that_are_no_drafts_cannot_be_published(deployer: Deployer) -> None:
    first = await deployer.deploy(1)
    draft_id = await deployer.draft("other")
    with pytest.raises(InvalidError, match="belongs to another app"):
        await deployer.publish(draft_id, first.functions)
    with pytest.raises(NotFoundError):
        await deployer.publish(first.app_id, first.functions)
    with pytest.raises(NotFoundError):
        await deployer.publish("ap-0000000000000000000000", {})
    with pytest.raises(NotFoundError):  # as if the draft were an app that runs
        await deployer.rpc.unary(APP_PUBLISH, AppPublish(draft_id, {}))
    created, _ = await deployer.rpc.unary(APP_CREATE, AppCreate("", "main"))
    with pytest.raises(NotFoundError):
        await deployer.publish(created.app_id, {})
    for name in ("", "no/name", "x" * 65, None, "ap-0123456789012345678901"):
        with pytest.raises(InvalidError):
            await deployer.rpc.unary(APP_CREATE, AppCreate("", "main", AppState.DEPLOYED, name))
    for version in (-1, 1, 2, 1 << 40):
        with pytest.raises(InvalidError):
            await deployer.rpc.unary(APP_ROLLBACK, AppRollback(first.app_id, version))
    assert await deployer.which() == 1


async def test_a_stopped_draft_is_not_published(deployer: Deployer) -> None:
    await deployer.deploy(1)
    draft_id = await deployer.draft()
    functions = {"which": await deployer.function(draft_id, 2)}
    await deployer.rpc.unary(APP_STOP, AppStop(draft_id))
    with pytest.raises(NotFoundError):
        await deployer.publish(draft_id, functions)
    assert await deployer.which() == 1


async def test_a_client_that_cancels_while_its_version_is_stored_leaves_nothing_half_done(
    deployer: Deployer, store: SlowStore
) -> None:
    await deployer.deploy(1)
    draft_id = await deployer.draft()
    functions = {"which": await deployer.function(draft_id, 2)}
    before = store.writes
    store.gate.clear()
    publishing = asyncio.create_task(deployer.publish(draft_id, functions))
    while store.writes == before:
        await asyncio.sleep(0.01)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    store.gate.set()
    assert (await deployer.deploy(3)).version == 3  # the second one was completed
    history, _ = await deployer.rpc.unary(APP_HISTORY, AppRef((await deployer.found()).app_id))
    assert [one.version for one in history.versions] == [1, 2, 3]
    assert await deployer.which() == 3
