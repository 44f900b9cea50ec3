"""What belonged to an environment that was deleted, whatever else happened at that moment."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from intermodal.daemon import running
from intermodal.settings import Settings
from intermodal.store.interface import AppRecord, CallKind, CallRecord, FunctionRecord, InputChunk, NamedSecretRecord
from intermodal.store.memory import MemoryStore
from modal._wire.client import RpcClient
from modal._wire.codec import encode
from modal._wire.messages.app import APP_CREATE, APP_PUBLISH, AppCreate, AppPublish, AppState
from modal._wire.messages.common import Empty
from modal._wire.messages.environment import (
    ENVIRONMENT_CREATE,
    ENVIRONMENT_DELETE,
    ENVIRONMENT_LIST,
    EnvironmentRef,
)
from modal._wire.messages.function import FunctionSpec, Source, SourceKind
from modal._wire.messages.secret import SECRET_LIST, SECRET_PUT, SecretEnvironment, SecretPut
from modal.exception import Error, NotFoundError


def settings_in(folder: Path) -> Settings:
    chosen = Settings(data_dir=folder / "data", runtime="mock", builder="memory", database_url="memory://", port=-1)
    chosen.run_dir.mkdir(parents=True)
    return chosen


async def test_an_app_of_a_deleted_environment_does_not_keep_the_server_from_starting(tmp_path: Path) -> None:
    store = MemoryStore()
    spec = encode(FunctionSpec("f", Source(SourceKind.FILE, "m", "f", "/root/m.py"), "im-1"))
    call = CallRecord("fc-1", "fu-1", "ap-1", CallKind.SPAWN, 1.0)
    await store.write(
        [
            AppRecord("ap-1", "shop", "shop", "en-gone", "deployed", "", 1.0, functions={"f": "fu-1"}),
            FunctionRecord("fu-1", "ap-1", spec),
            NamedSecretRecord("sr-1", "en-gone", "s", b"not sealed", 1.0),
            call,
            InputChunk("fc-1", [{"index": 0, "size": 0}], b""),
        ]
    )
    settings = settings_in(tmp_path)
    async with running(settings, store=store):
        client = RpcClient(f"unix://{settings.socket}", session="se-1")
        await client.open()
        found, _ = await client.unary(ENVIRONMENT_LIST, Empty())
        assert [one.name for one in found.environments] == ["main"]
        await client.close()
    record = await store.app("ap-1")
    assert record is not None
    assert record.state == "stopped"
    ended = await store.call("fc-1")
    assert ended is not None
    assert ended.finished_at is not None


async def test_a_deployment_that_meets_a_deletion_leaves_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    settings = settings_in(tmp_path)
    async with running(settings, store=store):
        client = RpcClient(f"unix://{settings.socket}", session="se-1")
        await client.open()
        for round in range(10):
            name = f"e{round}"
            await client.unary(ENVIRONMENT_CREATE, EnvironmentRef(name))
            await client.unary(SECRET_PUT, SecretPut("s", name, {"A": "1"}))
            draft, _ = await client.unary(APP_CREATE, AppCreate("shop", name, AppState.DEPLOYED, "shop"))

            async def publish(app_id: str = draft.app_id) -> None:
                with contextlib.suppress(NotFoundError):
                    await client.unary(APP_PUBLISH, AppPublish(app_id, {}, AppState.DEPLOYED))

            both = [publish(), client.unary(ENVIRONMENT_DELETE, EnvironmentRef(name))]
            await asyncio.gather(*(both if round % 2 else reversed(both)))
            with pytest.raises(NotFoundError, match=f"no environment '{name}'"):
                await client.unary(SECRET_LIST, SecretEnvironment(name))
        await client.close()
        loaded = await store.load()
        assert loaded.apps == []
        assert loaded.named_secrets == []
        assert [one.name for one in loaded.environments] == ["main"]


async def test_of_those_who_make_one_name_at_once_one_succeeds(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with running(settings):
        client = RpcClient(f"unix://{settings.socket}", session="se-1")
        await client.open()

        async def make(method: object, request: object) -> bool:
            try:
                await client.unary(method, request)  # type: ignore[arg-type]
            except Error:
                return False
            return True

        made = await asyncio.gather(*(make(ENVIRONMENT_CREATE, EnvironmentRef("dev")) for _ in range(20)))
        assert sum(made) == 1
        secrets = (make(SECRET_PUT, SecretPut("s", "dev", {"A": str(number)})) for number in range(20))
        assert sum(await asyncio.gather(*secrets)) == 1
        await client.close()
