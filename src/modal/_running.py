"""Running an app: create it, load its objects, publish them, show what happens, and stop it, whatever happens."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from ._follow import Follower
from ._interactive import lend_terminal
from ._objects.client import Client, current_environment, default_client
from ._objects.function_load import load_functions
from ._objects.resolver import Resolver
from ._output import is_silent, output
from ._runtime_context import is_local
from ._wire.messages.app import (
    APP_CREATE,
    APP_EVENTS,
    APP_PUBLISH,
    APP_STOP,
    AppCreate,
    AppEvent,
    AppEvents,
    AppPublish,
    AppState,
    AppStop,
    AppStopReason,
)
from .config import config
from .exception import ConnectionError, Error, InvalidError, NotFoundError

if TYPE_CHECKING:
    from ._objects.app import App
    from ._wire.client import RpcClient
    from ._wire.messages.function import FunctionHandle

_STOP_TIMEOUT = 3600.0  #: seconds the server may take to stop an app: containers commit what they wrote to volumes
_STILL_ENDING = 10.0  #: seconds after which it is said that this is waited for
_STOP_TIMEOUT_LOST = 2.0  #: seconds for it when the block ended since the server could not be reached
_RETRY = 0.5  #: seconds before the events are asked for again


class Terminated(SystemExit):
    """The process was told to end (SIGTERM): its program is interrupted, and has not failed."""


@dataclass(frozen=True)
class RunOptions:
    """How to run."""

    detach: bool = False
    interactive: bool = False  #: containers may use this process's terminal
    environment_name: Optional[str] = None


@asynccontextmanager
async def running(app: App, client: Optional[Client], options: RunOptions) -> AsyncIterator[None]:
    """Run `app` while the block runs; on the bridge's loop.

    Raises:
        InvalidError: it runs already, this is a container, or a function asks for what cannot be.
        ConnectionError: no server can be reached or started.
        RemoteError: an image cannot be built.
    """
    _check_can_run(app)
    if options.interactive and is_silent():
        raise InvalidError(
            "Running interactively needs output: put `with modal.enable_output():` around `app.run(interactive=True)`."
        )
    app._running = True
    app._is_interactive = options.interactive
    try:
        client = client or default_client()
        rpc = await client._rpc()
        state = AppState.DETACHED if options.detach else AppState.EPHEMERAL
        description = app.description or _default_description()
        environment = current_environment(options.environment_name)
        wanted = AppCreate(description, environment, state, app.name, options.interactive)
        created, _ = await rpc.unary(APP_CREATE, wanted)
        app._app_id = created.app_id
        watch = _Watch(rpc, created.app_id, options.interactive)
        reason, patience = AppStopReason.FAILED, _STOP_TIMEOUT
        try:
            await _start(app, client, rpc, state)
            watch.start()
            output().app_started(created.app_id, description)
            yield
            reason = AppStopReason.FINISHED
        except (KeyboardInterrupt, Terminated, asyncio.CancelledError):
            reason = AppStopReason.INTERRUPTED
            raise
        except SystemExit as ended:
            reason = AppStopReason.FAILED if ended.code else AppStopReason.FINISHED
            raise
        except ConnectionError:
            patience = _STOP_TIMEOUT_LOST
            raise
        finally:
            for function in app._loadable().values():
                function._detach()
            await _finish(AppStop(created.app_id, reason), rpc, watch, patience, options.detach)
    finally:
        app._running = app._is_interactive = False


def _check_can_run(app: App) -> None:
    if not is_local():
        raise InvalidError(
            "An app cannot be run from inside a container: this code runs when its module is imported there. Put it "
            "below `if __name__ == '__main__':` or `if modal.is_local():`."
        )
    if app._running:
        raise InvalidError("The app is running already; one app can run once at a time in a process.")


def _default_description() -> str:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(main).name if main else "interactive session"


async def _start(app: App, client: Client, rpc: RpcClient, state: AppState) -> None:
    """Load and publish the app's functions, so that they can be called."""
    assert app._app_id is not None
    handles = await load(app, rpc, app._app_id)
    ids = {tag: handle.function_id for tag, handle in handles.items()}
    await rpc.unary(APP_PUBLISH, AppPublish(app._app_id, ids, state))
    functions = app._loadable()
    for tag, handle in handles.items():
        function = functions[tag]
        function._client = client
        function._attach(rpc, handle.function_id, handle.web_url)


async def load(app: App, rpc: RpcClient, app_id: str) -> dict[str, FunctionHandle]:
    """Create the app's objects at the server, by tag."""
    resolver = Resolver(rpc, app_id)
    try:
        return await load_functions(app, resolver)
    finally:
        await resolver.close()


async def _finish(stop: AppStop, rpc: RpcClient, watch: _Watch, patience: float, detach: bool) -> None:
    """Stop the app unless it goes on detached, and show the rest of its output."""
    stays = detach and stop.reason is not AppStopReason.FAILED
    text = (
        "Containers of the app are still ending; what they wrote to volumes is committed first. Ctrl-C does not wait."
    )
    reminder = asyncio.get_running_loop().call_later(_STILL_ENDING, output().message, text)
    try:
        if not stays and not watch.stopped:
            await rpc.unary(APP_STOP, stop, timeout=patience)
        await watch.drain(0.0 if stays else config.get("logs_timeout"))
    except Error as error:
        # The block's own outcome matters more than this; the server stops the app when it misses this client.
        if patience != _STOP_TIMEOUT_LOST:  # else the block's own error says that the server is gone
            output().message(f"The app {stop.app_id} could not be stopped in order: {error}")
        await watch.drain(0.0)
        return
    finally:
        reminder.cancel()
    output().app_stopped("detached" if stays else stop.reason)


class _Watch:
    """Follows an app's events and shows them, over lost connections, each log entry once."""

    def __init__(self, rpc: RpcClient, app_id: str, interactive: bool) -> None:
        self._rpc = rpc
        self._follower = Follower(rpc, APP_EVENTS, lambda after: AppEvents(app_id, after, interactive=interactive))
        self._task: Optional[asyncio.Task[None]] = None
        self.stopped = False  #: the server said that the app has stopped

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._follow())

    async def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for the last events, then watch no more."""
        if self._task is None:
            return
        if seconds > 0:
            await asyncio.wait([self._task], timeout=seconds)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while not self.stopped:
            try:
                await self._follower.follow(self._show)
                self.stopped = True
            except NotFoundError:
                self.stopped = True
            except ConnectionError:
                pass  # whoever calls functions hears of it; should the server come back, go on
            except Error as error:
                output().message(f"The app's output cannot be followed: {error}")
                return
            await asyncio.sleep(_RETRY)

    async def _show(self, event: AppEvent) -> None:
        if event.offer:
            # Events that come meanwhile are not read, so that the output of other containers is held back.
            await lend_terminal(self._rpc, event.offer)
        elif event.stopped is None:
            output().app_event(event)
