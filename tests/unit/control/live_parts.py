"""Calls, functions and containers as the server has them in memory, without a node."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from intermodal.control.apps import Apps
from intermodal.control.calls import Call, Calls
from intermodal.control.container import Container
from intermodal.control.environments import DEFAULT_ID, Environments
from intermodal.control.fleet import Fleet
from intermodal.control.functions import Function, Functions, Revision
from intermodal.control.secret_service import SecretService
from intermodal.model.container import BuiltImage, ContainerExit, ContainerSpec, ExitCause
from intermodal.node.interface import NodeCapacity
from intermodal.scheduling.scheduler import Scheduler
from intermodal.store.interface import AppRecord, CallKind, CallRecord
from intermodal.store.memory import MemoryStore
from intermodal.store.secret_box import SecretBox
from modal._wire.messages.app import AppState
from modal._wire.messages.call import Input
from modal._wire.messages.function import FunctionSpec, RetryPolicy, Source, SourceKind
from modal._wire.messages.runner import RunInputs


def revision(revision_id: str = "re-1", **spec: Any) -> Revision:
    source = Source(SourceKind.SERIALIZED)
    return Revision(revision_id, FunctionSpec("f", source, "im-1", **spec), b"", BuiltImage("im-1", ()), ())


def container_of(function: Function, container_id: str = "ta-1", **fields: Any) -> Container:
    app: Any = None
    return Container(container_id, function, app, function.revision, 0.0, **fields)


def call_of(calls: Calls, call_id: str = "fc-1", inputs: int = 1, parent: str = "", **policy: Any) -> Call:
    """A call of the function fu-1 with inputs without arguments."""
    kind = CallKind.RUN if inputs == 1 else CallKind.MAP
    call = calls.create(CallRecord(call_id, "fu-1", "ap-1", kind, 0.0, parent), RetryPolicy(**policy))
    calls.add_inputs(call, [Input(index, 0) for index in range(inputs)], b"")
    calls.close_inputs(call)
    return call


class RecordingNode:
    """A node of four cores whose containers do nothing. It starts and ends them at once."""

    def __init__(self) -> None:
        self.fleet: Fleet
        self.running: set[str] = set()
        self.pushed: list[RunInputs] = []

    def capacity(self) -> NodeCapacity:
        return NodeCapacity(4.0, 4096)

    async def start(self, spec: ContainerSpec) -> None:
        self.running.add(spec.container_id)

    def push(self, container_id: str, message: RunInputs, body: bytes) -> None:
        assert sum(one.size for one in message.inputs) == len(body)
        self.pushed.append(message)

    def stop(self, container_id: str, grace: float) -> None:
        if container_id in self.running:
            self.running.remove(container_id)
            self.fleet.container_exited(container_id, ContainerExit(ExitCause.STOPPED))


class Live:
    """A fleet on a recording node, and one app with the function fu-1. Needs a running event loop."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        store, rng = MemoryStore(), random.Random(0)
        environments = Environments(store, rng, time.time)
        environments.restore([])
        self.calls, self.functions = Calls(store, time.time), Functions()
        self.apps = Apps(store, environments, time.time)
        self.app = self.apps.add(AppRecord("ap-1", None, "", DEFAULT_ID, AppState.EPHEMERAL.value, "se-1", 0.0))
        self.function = Function("fu-1", "ap-1", revision(**spec))
        self.functions.add(self.function)
        secrets = SecretService(store, SecretBox(folder / "key"), self.apps, rng, time.time)
        ids = iter(f"ta-{number}" for number in range(100))
        self.fleet = Fleet(Scheduler(ids), self.calls, self.functions, self.apps, secrets, time.time, 1.0)
        self.calls.on_finish = self.fleet.input_finished
        self.node = RecordingNode()
        self.node.fleet = self.fleet
        node: Any = self.node
        self.fleet.open(node)
        self.fleet.add_pool(self.function)

    def close(self) -> None:
        self.fleet.close()
        self.calls.flush()
