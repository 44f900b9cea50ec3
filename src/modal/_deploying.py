"""Deploying an app: load its objects into a draft, and have the server make that the next version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Optional

from . import _running
from ._objects.app import check_name
from ._objects.client import Client, current_environment, default_client
from ._output import output
from ._runtime_context import is_local
from ._wire.messages.app import (
    APP_CREATE,
    APP_PUBLISH,
    APP_STOP,
    AppCreate,
    AppPublish,
    AppPublished,
    AppState,
    AppStop,
    AppStopReason,
)
from .exception import Error, InvalidError

if TYPE_CHECKING:
    from ._objects.app import App
    from ._wire.client import RpcClient

_GIVE_UP = 5.0  #: seconds the server may take to drop a draft


async def deploy(
    app: App, name: Optional[str], client: Optional[Client], environment_name: Optional[str], tag: str
) -> AppPublished:
    """Deploy `app`; on the bridge's loop. See `modal.runner.deploy_app`."""
    name = _check(app, name, tag)
    app._running = True
    try:
        client = client or default_client()
        rpc = await client._rpc()
        environment = current_environment(environment_name)
        created, _ = await rpc.unary(APP_CREATE, AppCreate(name, environment, AppState.DEPLOYED, name))
        try:
            handles = await _running.load(app, rpc, created.app_id)
            ids = {name: handle.function_id for name, handle in handles.items()}
            publish = AppPublish(created.app_id, ids, AppState.DEPLOYED, tag or "", client_version())
            published, _ = await rpc.unary(APP_PUBLISH, publish)
        except BaseException:
            await _drop(created.app_id, rpc)
            raise
    finally:
        app._running = False
    app._app_id = published.app_id
    functions = app._loadable()
    for name, handle in handles.items():
        function = functions[name]
        function._client = client
        function._attach(rpc, published.functions[name], handle.web_url)
    return published


def _check(app: App, name: Optional[str], tag: str) -> str:
    if not is_local():
        raise InvalidError("An app cannot be deployed from inside a container; do it from your own machine.")
    name = name or app.name
    if not name:
        raise InvalidError(
            'An app needs a name to be deployed: give it one, as in `modal.App("my-app")`, or deploy it with '
            "`modal deploy --name my-app`."
        )
    if app._running:
        raise InvalidError("The app is running or being deployed already; wait until that has ended.")
    check_name(name)
    check_name(tag or None, "The tag of a version")
    return name


async def _drop(draft_id: str, rpc: RpcClient) -> None:
    """What was prepared shall leave nothing; a server that cannot be told misses this client."""
    try:
        await asyncio.shield(rpc.unary(APP_STOP, AppStop(draft_id, AppStopReason.FAILED), timeout=_GIVE_UP))
    except (Error, asyncio.CancelledError) as error:
        output().message(f"What was prepared for the deployment could not be dropped: {error}")


def client_version() -> str:
    """The version of this client, for the history of an app."""
    import importlib.metadata

    try:
        return importlib.metadata.version("intermodal")
    except importlib.metadata.PackageNotFoundError:
        return ""
