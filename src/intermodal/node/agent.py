"""The agent of one machine: starts containers, talks to their runners, and reports how they end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from intermodal.model.container import ContainerSpec
from intermodal.model.errors import BadImage, DiskFull, RuntimeFailure
from intermodal.node.command import RunningCommand
from intermodal.node.container import Container, Phase
from intermodal.node.exits import Ending, judge, unwrap
from intermodal.node.hooks.interface import Hook
from intermodal.node.hooks.volumes import VolumesHook
from intermodal.node.interface import NodeCapacity, NodeListener
from intermodal.node.layout import NodeLayout
from intermodal.node.mount_table import unmount_below
from intermodal.node.runner_link import LinkState, RunnerLink
from intermodal.runtimes.exec_process import ExecProcess
from intermodal.runtimes.interface import Bundle, ExecCommand, Runtime
from modal._wire.messages.runner import (
    CancelInputs,
    CloseLines,
    Credit,
    Hello,
    Leaving,
    OpenLine,
    Outputs,
    Ready,
    Recall,
    Returned,
    RunInputs,
    StartFailed,
    Stop,
    Taken,
    Yielded,
)
from modal._wire.messages.terminal import WindowSize

log = logging.getLogger(__name__)
_UNKILLABLE = 3.0  #: seconds after which a killed container that is still there waits for something in the kernel
_EXEC_STARTS = 8  #: commands being started at once: each takes the runtime program some 50 ms of processor time


@dataclass(frozen=True)
class AgentSettings:
    uid_base: int | None = 100_000  #: root in a container is this user outside; None: containers are not isolated
    hello_timeout: float = 30.0  #: seconds a started process has to say Hello


class Agent:
    """A `Node` (see the interface). `hooks` make what a container needs, in order; `runtime` runs its process.

    `volumes` is the one of the hooks that mounts volumes.
    """

    def __init__(
        self,
        layout: NodeLayout,
        settings: AgentSettings,
        runtime: Runtime,
        hooks: Sequence[Hook],
        listener: NodeListener,
        volumes: VolumesHook | None = None,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._runtime = runtime
        self._hooks = hooks
        self._listener = listener
        self._volumes = volumes
        self._containers: dict[str, Container] = {}
        self._exec_starts = asyncio.Semaphore(_EXEC_STARTS)
        self._closing = False

    async def open(self) -> None:
        await self._runtime.check()
        self._layout.run.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._layout.run.chmod(0o711)
        with _machine_errors("prepare this machine"):
            await self._runtime.clean()
            unmount_below(self._layout.run)
            unmount_below(self._layout.scratch)
            try:
                for hook in self._hooks:
                    await hook.open()
            except BaseException:
                await self._close_hooks()
                await self._runtime.close()
                raise
            await asyncio.to_thread(shutil.rmtree, self._layout.containers, ignore_errors=True)
            self._layout.containers.mkdir(mode=0o711)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        for container in list(self._containers.values()):
            container.is_stopping = True
            self._kill(container)
        while self._containers:
            watchers = [one.watcher for one in self._containers.values() if one.watcher is not None]
            if watchers:
                await asyncio.wait(watchers)
            else:
                await asyncio.sleep(0.01)  # one is still being started; its `start` call cleans up
        await self._close_hooks()
        await self._runtime.close()
        await asyncio.to_thread(shutil.rmtree, self._layout.run, ignore_errors=True)

    def capacity(self) -> NodeCapacity:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
        return NodeCapacity(cpu=float(len(os.sched_getaffinity(0))), memory=memory)

    async def start(self, spec: ContainerSpec) -> None:
        if (spec.volumes or spec.buckets) and self._volumes is None:
            raise BadImage("Containers that are plain processes cannot have volumes or buckets; use the runtime runc.")
        if self._closing:
            raise RuntimeFailure("The agent is shutting down; no container can be started.")
        if spec.container_id in self._containers:
            raise RuntimeFailure(f"The container {spec.container_id} runs already.")
        container = self._containers[spec.container_id] = Container(
            spec,
            home=self._layout.containers / spec.container_id,
            scratch=self._layout.scratch / spec.container_id,
            began=asyncio.get_running_loop().time(),
        )
        try:
            with _machine_errors("start a container"):
                await self._start(container)
        except BaseException:
            await asyncio.shield(asyncio.create_task(self._abandon(container)))
            raise

    async def _start(self, container: Container) -> None:
        self._make_home(container)
        for hook in self._hooks:
            await hook.prepare(container)
        bundle = container.bundle = self._bundle(container)
        start = container.spec.start
        source = replace(
            start.source, path=self._runtime.path_inside(bundle, start.source.path) if start.source.path else ""
        )
        events = _RunnerEvents(self, container)
        container.link = RunnerLink(container.id, replace(start, source=source), container.spec.start_body, events)
        container.process = await self._runtime.start(bundle)
        container.phase = Phase.RUNNING
        for hook in self._hooks:
            await hook.started(container)
        if container.was_killed:
            self._kill(container)
        timer = asyncio.get_running_loop().call_later(self._settings.hello_timeout, self._hello_missing, container)
        container.timers.append(timer)
        container.watcher = asyncio.create_task(self._watch(container))

    def _make_home(self, container: Container) -> None:
        container.home.mkdir(mode=0o700)
        if self._settings.uid_base is not None:
            # Root of a container reaches its files here; other users of the machine do not.
            os.chown(container.home, self._settings.uid_base, self._settings.uid_base)
        container.rootfs = container.home / "rootfs"
        (container.home / "bundle").mkdir(mode=0o700)

    def _bundle(self, container: Container) -> Bundle:
        return Bundle(
            container_id=container.id,
            rootfs=container.rootfs,
            argv=container.argv,
            env=container.env,
            cwd=container.cwd,
            stdout=container.stdout,
            stderr=container.stderr,
            resources=container.spec.resources,
            mounts=tuple(container.mounts),
            netns=container.netns,
            userns=container.userns,
            uid_base=self._settings.uid_base or 0,
            state_dir=container.home / "bundle",
        )

    async def _abandon(self, container: Container) -> None:
        """Undo a start that did not succeed."""
        if container.process is not None:
            await _attempt(container.process.delete(), f"Deleting {container.id}")
        await self._release(container)

    async def _watch(self, container: Container) -> None:
        process = container.process
        assert process is not None
        exit = unwrap(await process.wait())
        container.phase = Phase.ENDED
        # Deleting kills what the first process left behind, which may be what keeps the output open.
        freed = asyncio.create_task(process.delete())
        for hook in self._hooks:
            await _attempt(hook.exited(container), f"{type(hook).__name__} after the end of {container.id}")
        await _attempt(freed, f"Deleting {container.id}")
        await self._release(container)
        limit = container.spec.resources.memory_limit
        ending = Ending(
            exit,
            was_ready=container.ready,
            start_error=container.start_error,
            is_stopping=container.is_stopping,
            was_killed=container.was_killed,
            fault=container.fault,
            memory_limit=limit,
            stderr_tail=container.stderr_tail,
        )
        self._listener.container_exited(container.id, judge(ending))

    async def _release(self, container: Container) -> None:
        for timer in container.timers:
            timer.cancel()
        for hook in reversed(self._hooks):
            # What is left is removed by the next `open`.
            await _attempt(hook.release(container), f"{type(hook).__name__} freeing {container.id}")
        await _attempt(asyncio.to_thread(_remove_home, container.home), f"Deleting the directory of {container.id}")
        self._containers.pop(container.id, None)

    async def _close_hooks(self) -> None:
        for hook in reversed(self._hooks):
            try:
                await hook.close()
            except (OSError, RuntimeFailure):
                log.exception("%s could not be closed", type(hook).__name__)

    # What the server asks for.

    def push(self, container_id: str, message: RunInputs, body: bytes) -> None:
        if link := self._link(container_id):
            link.push(message, body)

    def credit(self, container_id: str, input_id: str, count: int) -> None:
        if link := self._link(container_id):
            link.send(Credit(input_id, count))

    def open_line(self, container_id: str, message: OpenLine, connection: socket.socket) -> bool:
        link = self._link(container_id)
        return link is not None and link.open_line(message, connection)

    def close_lines(self, container_id: str) -> None:
        if link := self._link(container_id):
            link.send(CloseLines())

    def recall(self, container_id: str, count: int) -> None:
        if link := self._link(container_id):
            link.send(Recall(count))

    def cancel(self, container_id: str, input_ids: list[str]) -> None:
        if link := self._link(container_id):
            link.send(CancelInputs(input_ids))

    async def exec(
        self, container_id: str, command: Sequence[str], env: dict[str, str], window: WindowSize | None
    ) -> RunningCommand:
        container = self._containers.get(container_id)
        if container is None or container.process is None or container.phase is not Phase.RUNNING:
            raise RuntimeFailure(f"The container {container_id} does not run, or not yet.")
        variables = {**container.env, **container.spec.start.variables, **env}
        wanted = ExecCommand(tuple(command), variables, container.cwd, window)
        with _machine_errors("start a command in a container"):
            async with self._exec_starts:
                starting = asyncio.ensure_future(container.process.exec(wanted))
                try:
                    return RunningCommand(await asyncio.shield(starting))
                except asyncio.CancelledError:
                    # It may run by now; nobody else would end it.
                    starting.add_done_callback(_discard_command)
                    raise

    async def commit_volume(self, container_id: str, volume_id: str) -> None:
        container, volumes = self._with_volumes(container_id)
        with _machine_errors("commit a volume"):
            await volumes.commit(container, volume_id)

    async def reload_volume(self, container_id: str, volume_id: str) -> list[str]:
        container, volumes = self._with_volumes(container_id)
        with _machine_errors("reload a volume"):
            return await volumes.reload(container, volume_id)

    def _with_volumes(self, container_id: str) -> tuple[Container, VolumesHook]:
        container = self._containers.get(container_id)
        if container is None or self._volumes is None:
            raise RuntimeFailure(f"The container {container_id} does not run, or can have no volumes.")
        return container, self._volumes

    def stop(self, container_id: str, grace: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.phase is Phase.ENDED:
            return
        container.is_stopping = True
        # Before Hello there is no one to ask, and no user code that could mind.
        if grace <= 0 or container.link is None or not container.link.send(Stop(grace)):
            self._kill(container)
            return
        container.timers.append(asyncio.get_running_loop().call_later(grace, self._kill, container))

    def _link(self, container_id: str) -> RunnerLink | None:
        container = self._containers.get(container_id)
        return container.link if container is not None and container.phase is Phase.RUNNING else None

    def _kill(self, container: Container) -> None:
        container.was_killed = True
        if container.process is not None:
            container.process.kill(signal.SIGKILL)
            timer = asyncio.get_running_loop().call_later(_UNKILLABLE, self._end_waits, container)
            container.timers.append(timer)

    def _end_waits(self, container: Container) -> None:
        if container.phase is not Phase.ENDED:
            for hook in self._hooks:
                hook.end_waits(container)

    def _condemn(self, container: Container, reason: str) -> None:
        if not container.fault:
            container.fault = reason
        self._kill(container)

    def _hello_missing(self, container: Container) -> None:
        if container.link is not None and container.link.state is LinkState.WAITING:
            limit = self._settings.hello_timeout
            self._condemn(container, f"The container's Python did not report within {limit:g} seconds of its start.")


class _RunnerEvents:
    """Turns what a runner says into callbacks to the server."""

    def __init__(self, agent: Agent, container: Container) -> None:
        self._agent = agent
        self._container = container
        self._listener = agent._listener

    def said_hello(self, message: Hello) -> None:
        log.debug("Container %s runs Python %s", self._container.id, message.python)

    def said_ready(self, message: Ready) -> None:
        self._container.ready = True
        seconds = asyncio.get_running_loop().time() - self._container.began
        self._listener.container_ready(self._container.id, seconds)

    def said_start_failed(self, message: StartFailed, body: memoryview) -> None:
        self._container.start_error = message.error.message
        self._listener.container_start_failed(self._container.id, message.error, bytes(body))

    def said_outputs(self, message: Outputs, body: memoryview) -> None:
        self._listener.outputs(self._container.id, message, body)

    def said_taken(self, message: Taken, body: memoryview) -> None:
        self._listener.inputs_taken(self._container.id, message, body)

    def said_yielded(self, message: Yielded, body: memoryview) -> None:
        self._listener.yielded(self._container.id, message, body)

    def said_returned(self, message: Returned) -> None:
        self._listener.inputs_returned(self._container.id, message.input_ids)

    def said_leaving(self, message: Leaving) -> None:
        self._listener.container_leaving(self._container.id)

    def broke_protocol(self, reason: str) -> None:
        self._agent._condemn(self._container, f"The container was killed since it sent a malformed message: {reason}.")


def _discard_command(starting: asyncio.Future[ExecProcess]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        RunningCommand(starting.result()).close()


def _remove_home(home: Path) -> None:
    """Delete a container's directory, but nothing that is mounted there. Raises OSError."""
    unmount_below(home)
    shutil.rmtree(home, ignore_errors=True)


async def _attempt(step: Awaitable[None], what: str) -> None:
    """One of several steps at a container's end: if it fails, the others are still to be done."""
    try:
        await step
    except Exception:
        log.exception("%s failed", what)


@contextlib.contextmanager
def _machine_errors(action: str):  # type: ignore[no-untyped-def]
    """Turn errors of the operating system into ours."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"No space is left to {action}: {error}.") from error
        raise RuntimeFailure(f"The machine could not {action}: {error}.") from error
