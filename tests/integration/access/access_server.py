"""A real server with an app that others must not touch, and callers of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import hashlib
import sys
import typing
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from intermodal import daemon
from intermodal.control.rpc import Dispatcher, Principal, serve_unix
from intermodal.settings import Settings
from modal._serialization import serialize
from modal._wire.client import RpcClient
from modal._wire.messages.app import APP_CREATE, APP_PUBLISH, AppCreate, AppPublish, AppState
from modal._wire.messages.blob import BLOB_PUT, BlobPut
from modal._wire.messages.call import CALL_RUN, CALL_SPAWN, CallSpawn, Input
from modal._wire.messages.common import Empty, Method, Shape
from modal._wire.messages.container import CONTAINER_LIST, ContainerList
from modal._wire.messages.function import FUNCTION_CREATE, FunctionCreate, FunctionSpec, Source, SourceKind
from modal._wire.messages.image import IMAGE_BUILD, ImageLayer, ImageSpec, LayerKind
from modal._wire.messages.mount import MOUNT_CREATE, MountCreate
from modal._wire.messages.named import NAMED_GET, NamedGet, ObjectKind
from modal._wire.messages.secret import SECRET_CREATE, SECRET_PUT, SecretCreate, SecretPut
from modal._wire.messages.token import TOKEN_CREATE, Role, TokenCreate
from modal.exception import AuthError, ConnectionError, NotFoundError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DATA = b"content"


class AccessServer:
    """Runs in the test's event loop."""

    def __init__(self, service: Any, dispatcher: Dispatcher, settings: Settings, directory: Path) -> None:
        self.url: str = service.url
        self.settings = settings
        self.dispatcher = dispatcher
        self.methods: dict[str, Method[Any, Any]] = {m.name: m for m, _ in dispatcher._handlers.values()}
        self._directory = directory
        self._sessions = 0

    @contextlib.asynccontextmanager
    async def client(self, target: str = "", **options: Any) -> AsyncIterator[RpcClient]:
        """A client, of the local user unless told otherwise."""
        self._sessions += 1
        session = f"se-{self._sessions}"
        client = RpcClient(
            target or f"unix://{self.settings.socket}",
            session=session,
            reconnect_timeout=0,
            connect_timeout=0,
            **options,
        )
        await client.open()
        try:
            yield client
        finally:
            await client.close()

    async def make_token(self, role: Role = Role.MEMBER, lifetime: float | None = None) -> dict[str, Any]:
        async with self.client() as local:
            made, _ = await local.unary(TOKEN_CREATE, TokenCreate(f"a {role.value}", role, lifetime))
        return {"id": made.token_id, "secret": made.token_secret}

    @contextlib.asynccontextmanager
    async def container(self, app_id: str, environment_id: str) -> AsyncIterator[RpcClient]:
        """Code in a container of this app, as the server sees it."""
        principal = Principal("container", "ta-other", app_id, environment_id)
        path = self._directory / f"{app_id}.sock"
        listener = await serve_unix(self.dispatcher, path, lambda token: principal)
        try:
            async with self.client(f"unix://{path}") as client:
                yield client
        finally:
            listener.close()


@contextlib.asynccontextmanager
async def access_server(directory: Path, monkeypatch: Any, **changes: Any) -> AsyncIterator[AccessServer]:
    made: list[Dispatcher] = []

    def recording(**options: Any) -> Dispatcher:
        made.append(Dispatcher(**options))
        return made[-1]

    monkeypatch.setattr(daemon, "Dispatcher", recording)
    values: dict[str, Any] = {"port": 0, "runtime": "mock", "builder": "memory", "database_url": "memory://"}
    settings = Settings(data_dir=directory / "data", **{**values, **changes})
    settings.run_dir.mkdir(parents=True)
    async with daemon.running(settings) as service:
        yield AccessServer(service, made[0], settings, directory)


#: What the app, its function, a dict and a queue of `make_app` are called.
NAME = "theirs"


async def make_app(rpc: RpcClient, state: AppState = AppState.EPHEMERAL) -> dict[str, str]:
    """An app with one of everything; returns the ids by the names that fields of requests have."""

    def theirs() -> None:
        import time

        time.sleep(3600)

    async with rpc.stream(IMAGE_BUILD, ImageSpec([ImageLayer(LayerKind.DEBIAN_SLIM, python_version=PYTHON)])) as events:
        [image] = [event.done async for event, _ in events if event.done]
    app, _ = await rpc.unary(APP_CREATE, AppCreate(NAME, "main", state, NAME))
    digest = hashlib.sha256(DATA).hexdigest()
    async with rpc.stream(BLOB_PUT, BlobPut(digest, len(DATA))) as stream:
        await stream.send(Empty(), DATA)
        await stream.end()
        await stream.result()
    mount, _ = await rpc.unary(MOUNT_CREATE, MountCreate([]))
    secret, _ = await rpc.unary(SECRET_CREATE, SecretCreate(app.app_id, {"A": "b"}))
    await rpc.unary(SECRET_PUT, SecretPut(NAME, "main", {"A": "b"}, overwrite=True))
    source = Source(SourceKind.SERIALIZED, qualname=theirs.__qualname__, python=PYTHON)
    spec = FunctionSpec(NAME, source, image.image_id)
    function, _ = await rpc.unary(FUNCTION_CREATE, FunctionCreate(app.app_id, spec), serialize(theirs))
    published, _ = await rpc.unary(APP_PUBLISH, AppPublish(app.app_id, {NAME: function.function_id}, state))
    function_id = published.functions.get(NAME, function.function_id)
    payload = serialize(((), {}))
    call, _ = await rpc.unary(CALL_SPAWN, CallSpawn(function_id, Input(0, len(payload))), payload)
    objects = {}
    for kind in ObjectKind:
        made, _ = await rpc.unary(NAMED_GET, NamedGet(kind, NAME, "main", True))
        objects[f"{kind.value}_id"] = objects["object_id"] = made.object_id
    async with asyncio.timeout(20):
        while not (found := (await rpc.unary(CONTAINER_LIST, ContainerList("main")))[0].containers):
            await asyncio.sleep(0.02)
    return {
        "app_id": published.app_id or app.app_id,
        "function_id": function_id,
        "call_id": call.call_id,
        "container_id": found[0].container_id,
        "image_id": image.image_id,
        "mount_id": mount.mount_id,
        "secret_id": secret.secret_id,
        **objects,
        "digest": digest,
        "environment": "main",
        "name": NAME,
        "app_name": NAME,
        "identifier": NAME,
        "token_id": "ak-1",
    }


def request_for(kind: type[Any], ids: dict[str, str]) -> Any:
    """A request that names the objects of `ids` wherever it names any, and is empty otherwise."""
    hints = typing.get_type_hints(kind)
    values = {}
    for item in dataclasses.fields(kind):
        if item.name in ids and hints[item.name] is str:
            values[item.name] = ids[item.name]
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            values[item.name] = _smallest(hints[item.name], ids)
    return kind(**values)


def _smallest(hint: Any, ids: dict[str, str]) -> Any:
    origin = typing.get_origin(hint)
    if origin in (list, dict):
        return origin()
    if origin is typing.Union:
        return None
    if dataclasses.is_dataclass(hint):
        return request_for(hint, ids)  # type: ignore[arg-type]
    if issubclass(hint, enum.Enum):
        return next(iter(hint))
    return hint()


async def attempt(rpc: RpcClient, method: Method[Any, Any], ids: dict[str, str]) -> str:
    """Call a method; what came of it: "refused", "not found" or "served"."""
    if method is CALL_RUN:  # with an id it asks for a call that was made over a direct line
        ids = {**ids, "call_id": ""}
    request = request_for(method.request, ids)
    try:
        async with asyncio.timeout(10):
            if method.shape is Shape.UNARY:
                await rpc.unary(method, request, timeout=0.5)
            else:
                async with rpc.stream(method, request, timeout=0.5) as stream:
                    if method.shape in (Shape.CLIENT_STREAM, Shape.DUPLEX):
                        await stream.end()
                    if method.shape is Shape.CLIENT_STREAM:
                        await stream.result()
                    else:
                        async for _ in stream:
                            return "served"
    except AuthError:
        return "refused"
    except NotFoundError:
        return "not found"
    except ConnectionError:
        raise
    except Exception:
        return "served"  # it was looked at, which is what it should not have been
    return "served"
