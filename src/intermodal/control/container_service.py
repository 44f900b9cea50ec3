"""Containers as their users see them: which there are, what they print, commands in them, and stopping them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from intermodal.control.access import require_user
from intermodal.control.app_log import AppLog
from intermodal.control.apps import Apps
from intermodal.control.container import Container
from intermodal.control.fleet import Fleet
from intermodal.control.rpc import Context, Dispatcher, ServerStream
from intermodal.control.terminals import check_window, serve_command
from intermodal.model.errors import NoSuchCommand
from intermodal.node.interface import Exec, Node
from modal._wire.messages.app import AppEvent
from modal._wire.messages.common import Empty
from modal._wire.messages.container import (
    CONTAINER_EXEC,
    CONTAINER_LIST,
    CONTAINER_LOGS,
    CONTAINER_STOP,
    ContainerExec,
    ContainerInfo,
    ContainerList,
    ContainerLogs,
    ContainerRef,
    Containers,
    ContainerState,
)
from modal._wire.messages.terminal import TerminalInput, TerminalOutput
from modal.exception import InvalidError, NotFoundError

MAX_COMMANDS = 64  #: at once in one container
_LOG_BATCH = 500  # entries in one event
_KILLED, _END_NOTICE = 137, 1.0  # exit code; seconds from the death of a container's processes until it is known
_MAX_ARGUMENTS, _MAX_BYTES = 4096, 128 * 1024  # of a command and of the variables sent with it


class ContainerService:
    """Lists, follows, enters and stops containers."""

    def __init__(self, apps: Apps, fleet: Fleet, node: Node) -> None:
        self._apps = apps
        self._fleet = fleet
        self._node = node
        self._commands: Counter[str] = Counter()  # container id -> commands in it

    def register(self, dispatcher: Dispatcher) -> None:
        dispatcher.register(CONTAINER_LIST, self.list)
        dispatcher.register(CONTAINER_LOGS, self.logs)
        dispatcher.register(CONTAINER_EXEC, self.exec)
        dispatcher.register(CONTAINER_STOP, self.stop)

    async def list(self, ctx: Context, request: ContainerList, body: bytes) -> Containers:
        require_user(ctx)
        wanted = self._apps.environments.require(request.environment).environment_id
        found = [one for one in self._fleet.containers if one.app.record.environment_id == wanted]
        return Containers([info_of(one) for one in found])

    async def stop(self, ctx: Context, request: ContainerRef, body: bytes) -> Empty:
        require_user(ctx)
        self._fleet.preempt(request.container_id)
        return Empty()

    async def logs(self, ctx: Context, request: ContainerLogs, body: bytes, stream: ServerStream[Any, Any]) -> None:
        require_user(ctx)
        app, app_id = self._fleet.app_of(request.container_id), self._fleet.ended.get(request.container_id, "")
        if app is None and not app_id:
            raise NotFoundError(
                f"There is no container {request.container_id[:40]!r} that runs or has ended since the server started; "
                "`modal app logs` shows the output of an app's containers."
            )
        app = app or self._apps.find(app_id)
        if app is None:
            await self._send_logs(self._apps.log_of(app_id), request.container_id, request.after, stream)
            return
        after = request.after
        with app.watched() as watcher:
            while True:
                watcher.wake.clear()
                ended = not self._fleet.app_of(request.container_id)  # read before the log, which is complete then
                after = await self._send_logs(app.log, request.container_id, after, stream)
                if ended:
                    return
                await watcher.wake.wait()

    async def _send_logs(self, log: AppLog, container_id: str, after: int, stream: ServerStream[Any, Any]) -> int:
        """Send what the container printed after entry `after`; return the last entry seen."""
        while entries := await log.read(after, _LOG_BATCH):
            after = entries[-1].seq
            if mine := [entry for entry in entries if entry.container_id == container_id]:
                await stream.send(AppEvent(logs=mine))
        return after

    async def exec(
        self, ctx: Context, request: ContainerExec, body: bytes, stream: ServerStream[TerminalOutput, TerminalInput]
    ) -> None:
        require_user(ctx)
        check_command(request.command, request.env)
        if request.window is not None:
            check_window(request.window)
        container_id = self._fleet.container(request.container_id).container_id
        if self._commands[container_id] >= MAX_COMMANDS:
            raise InvalidError(
                f"{MAX_COMMANDS} commands run in the container {container_id} already; wait until one has ended."
            )
        self._commands[container_id] += 1
        try:
            command = await self._start(request)
            if isinstance(command, NoSuchCommand):
                await stream.send(TerminalOutput(exit_code=command.code, error=str(command)))
                return
            try:
                code = await serve_command(command, stream)
            finally:
                command.close()
            gone = code == _KILLED and await self._is_ended(container_id)
            error = f"The container {container_id} ended while the command ran." if gone else ""
            await stream.send(TerminalOutput(exit_code=code, error=error))
        finally:
            self._commands[container_id] -= 1
            if not self._commands[container_id]:
                del self._commands[container_id]

    async def _is_ended(self, container_id: str) -> bool:
        """Whether the container is gone, or will be in a moment: its processes end before that is known."""
        app = self._fleet.app_of(container_id)
        if app is None:
            return True
        with app.watched() as watcher, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_NOTICE):
                while self._fleet.app_of(container_id):
                    watcher.wake.clear()
                    await watcher.wake.wait()
                return True
        return False

    async def _start(self, request: ContainerExec) -> Exec | NoSuchCommand:
        try:
            return await self._node.exec(request.container_id, request.command, request.env, request.window)
        except NoSuchCommand as error:
            return error


def info_of(container: Container) -> ContainerInfo:
    """A container as people want to see it."""
    state = ContainerState.RUNNING if container.is_ready else ContainerState.STARTING
    return ContainerInfo(
        container.container_id,
        container.app.app_id,
        container.app.record.name or container.app.record.description,
        container.function.function_id,
        container.function.title,
        container.started_at,
        ContainerState.STOPPING if container.is_stopping else state,
    )


def check_command(command: list[str], env: dict[str, str]) -> None:
    """Raise `InvalidError` for what no system can run, and for what is beyond all measure."""
    texts = [*command, *env, *env.values()]
    if not command or not command[0]:
        raise InvalidError("The command to run is empty.")
    if any("\0" in text for text in texts) or any("=" in name or not name for name in env):
        raise InvalidError("A command and its variables cannot contain NUL characters, nor a variable's name `=`.")
    if len(texts) > _MAX_ARGUMENTS or sum(len(text.encode(errors="replace")) for text in texts) > _MAX_BYTES:
        raise InvalidError(
            f"The command is too long: {_MAX_ARGUMENTS} arguments and {_MAX_BYTES} bytes are the limit. "
            "Send long text through its standard input."
        )
