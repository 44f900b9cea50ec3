"""From the first connection to the input loop: say Hello, load the user's code, say Ready, run."""

from __future__ import annotations

import os
import signal
import sys
from time import perf_counter

from modal import _runtime_context

from . import streams, user_code
from .channel import Channel
from .main_thread import MainThreadShell
from .shell import AGENT_GONE, Shell
from .task import Task, is_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

START_FAILED = 71  #: exit status after StartFailed


def main() -> NoReturn:
    """Run this container. Reads INTERMODAL_CONTAINER_ID and INTERMODAL_SOCKET from the environment."""
    streams.install()
    path = os.environ.get("INTERMODAL_SOCKET", "/opt/intermodal/run/agent.sock")
    container_id = os.environ.get("INTERMODAL_CONTAINER_ID", "")
    try:
        channel = Channel(path)
        python = ".".join(map(str, sys.version_info[:3]))
        channel.send({"t": "Hello", "container_id": container_id, "python": python, "pid": os.getpid()})
        start, body = _receive_start(channel)
    except OSError as error:
        streams.complain(f"modal: the agent's socket {path} cannot be used: {error}")
        os._exit(AGENT_GONE)
    _enter(start, path)
    shell = _load(channel, start, body)
    shell.run()


def _receive_start(channel: Channel) -> tuple[dict[str, Any], memoryview]:
    while True:
        data = channel.receive()
        if data is None:
            continue
        if not data:
            raise OSError("it was closed before the container was told what to run")
        frames = channel.reader.feed(data)
        if frames:
            header, body = frames[0]
            if header.get("t") != "Start" or len(frames) > 1:
                streams.complain("modal: the agent did not begin with a Start frame")
                os._exit(1)
            return header, body


def _enter(start: dict[str, Any], socket_path: str) -> None:
    os.environ.update(start.pop("variables", None) or {})
    _runtime_context.enter_container(
        _runtime_context.ContainerContext(
            container_id=start.get("container_id", ""),
            app_id=start.get("app_id", ""),
            app_name=start.get("app_name", ""),
            app_description=start.get("app_description", ""),
            function_id=start.get("function_id", ""),
            function_name=start.get("function_name", ""),
            environment=start.get("environment", ""),
            objects=start.get("objects"),
            socket_path=socket_path,
            is_interactive=bool(start.get("interactive")),
            mounts=start.get("mounts"),
        )
    )


def _load(channel: Channel, start: dict[str, Any], body: memoryview) -> Shell:
    """Load the user's function and tell the agent; on failure tell it why and exit."""
    # Until user code says otherwise, __main__ is an empty module: nothing of ours may be found in it.
    sys.modules["__main__"] = type(sys)("__main__")
    watched = _shell_for_loading(channel, start)
    watched.stop_grace = float(start.get("stop_grace", watched.stop_grace))
    watched.watch_loading()
    if start.get("interactive"):
        _prepare_for_terminals()
    began = perf_counter()
    try:
        if start.get("cls") is not None:
            _load_class(watched, start, body)
        else:
            watched.task.function = user_code.load(start["source"], body)
    except user_code.LoadError as error:
        watched.end_session(None)
        _fail(channel, error)
    watched.end_session(None)
    concurrency = start.get("concurrency", {}).get("max_concurrent_inputs", 1)
    shell = _choose(watched, int(concurrency))
    try:
        channel.send({"t": "Ready", "seconds": perf_counter() - began})
    except OSError:
        os._exit(AGENT_GONE)
    return shell


def _load_class(watched: MainThreadShell, start: dict[str, Any], body: memoryview) -> None:
    """Make the instance, run its enter hooks and give the shell its methods.

    Raises:
        LoadError: any of that failed.
    """
    from .lifecycle import Lifecycle, MethodTask

    size = len(body) - int(start.get("parameters_size", 0))
    name, spec, timeout = start.get("function_name", ""), start["cls"], watched.task.timeout
    lifecycle = Lifecycle(user_code.load_class(start["source"], body[:size]), name, spec)

    def too_long() -> NoReturn:
        message = f"{lifecycle.current or name} ran longer than the timeout of {timeout:g} s."
        _fail(watched.channel, user_code.LoadError("FunctionTimeoutError", message[:1].upper() + message[1:]))

    watched.limit_loading(perf_counter() + timeout, too_long)
    lifecycle.construct(body[size:])
    lifecycle.enter()
    watched.limit_loading(None, too_long)
    if int(start.get("concurrency", {}).get("batch_max_size", 0)):  # then it has one method
        watched.task.function = next(iter(lifecycle.methods().values()))
        watched.task.lifecycle = lifecycle
    else:
        watched.task = MethodTask(lifecycle, name, spec, timeout)


def _prepare_for_terminals() -> None:
    """Code may ask for its user's terminal, with `modal.interact()` or `breakpoint()`."""
    # It comes when the terminal goes, and must not end the container.
    signal.signal(signal.SIGHUP, lambda number, frame: None)

    def connect_and_break(*args: Any, **kwargs: Any) -> Any:
        from .interaction import breakpointhook

        return breakpointhook(*args, **kwargs)

    sys.breakpointhook = connect_and_break


def _shell_for_loading(channel: Channel, start: dict[str, Any]) -> MainThreadShell:
    name, timeout, concurrency = start.get("function_name", ""), float(start["timeout"]), start.get("concurrency", {})
    size = int(concurrency.get("batch_max_size", 0))
    if not size:
        return MainThreadShell(channel, Task(_not_loaded, name, bool(start.get("is_generator")), timeout))
    from .batch import BatchTask
    from .batch_shells import BatchShell

    wait = float(concurrency.get("batch_wait_ms", 0)) / 1000
    return BatchShell(channel, BatchTask(_not_loaded, name, False, timeout), size, wait)


def _choose(watched: MainThreadShell, concurrency: int) -> Shell:
    is_batched = type(watched) is not MainThreadShell
    if any(map(is_async, watched.task.functions())):
        if is_batched:
            from .batch_shells import BatchTasksShell

            return BatchTasksShell(watched)
        from .tasks import TasksShell

        return TasksShell(watched, concurrency)
    if concurrency > 1 and not is_batched:
        from .threads import ThreadsShell

        return ThreadsShell(watched, concurrency)
    return watched


def _fail(channel: Channel, error: user_code.LoadError) -> NoReturn:
    from modal._serialization import serialize_failure

    payload = serialize_failure(error.cause) if error.cause is not None else b""
    try:
        channel.send({"t": "StartFailed", "error": {"type": error.kind, "message": error.message}}, [payload])
    except OSError:
        os._exit(AGENT_GONE)
    streams.flush()
    os._exit(START_FAILED)


def _not_loaded() -> NoReturn:
    raise RuntimeError("user code is not loaded")
