"""What tests of the agent share: a root file system of this machine's files, scripted runners, a recording listener."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from intermodal.model.container import BuiltImage, ContainerExit, ContainerSpec
from intermodal.node.agent import Agent
from intermodal.node.composition import NodeSettings, Storage, isolated_agent, storage_in
from intermodal.node.layout import node_layout
from intermodal.node.mount_table import mounts_below
from intermodal.node.runtime_copy import RuntimeCopy
from modal._wire.messages.app import LogStream
from modal._wire.messages.common import ErrorInfo
from modal._wire.messages.function import Concurrency, Resources, Source, SourceKind
from modal._wire.messages.runner import Outputs, RunInput, RunInputs, Start, Yielded

PYTHON = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"

#: The part of a test's runner that all share: the protocol, with plain sockets. `script` follows it.
PREAMBLE = """
import json, os, socket, struct, sys, time
sock = socket.socket(socket.AF_UNIX)
def dial():
    sock.connect(os.environ["INTERMODAL_SOCKET"])
def say(header, body=b""):
    head = json.dumps(header).encode()
    sock.sendall(struct.pack(">II", 4 + len(head) + len(body), len(head)) + head + body)
def exactly(count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            sys.exit(9)
        data += more
    return data
def hear():
    frame = exactly(struct.unpack(">I", exactly(4))[0])
    stop = 4 + struct.unpack(">I", frame[:4])[0]
    return json.loads(frame[4:stop]), frame[stop:]
def hello():
    dial()
    say({"t": "Hello", "container_id": os.environ["INTERMODAL_CONTAINER_ID"], "python": "3.11", "pid": os.getpid()})
    return hear()
def ready():
    start = hello()
    say({"t": "Ready"})
    return start
def output(header, body):
    input_id = header["inputs"][0]["input_id"]
    say({"t": "Outputs", "outputs": [{"input_id": input_id, "status": "success", "size": len(body)}]}, body)
def answer(body):
    output(hear()[0], body)
def report(value):
    answer(json.dumps(value).encode())
"""
#: Answers each input with its own bytes until it is asked to stop.
ECHO = """
ready()
while True:
    header, body = hear()
    if header["t"] == "Stop":
        break
    output(header, body)
"""


def make_layer(target: Path) -> None:
    """Fill `target` with hard links to this machine's Python, C library and a few programs."""
    libraries = Path("/usr/lib/x86_64-linux-gnu")
    for directory in ("usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64", "etc", "tmp", "root", "opt", "var"):
        (target / directory).mkdir(parents=True, exist_ok=True)
    (target / "tmp").chmod(0o1777)
    for name in ("bin", "lib", "lib64"):
        (target / name).symlink_to(f"usr/{name}")
    programs = [PYTHON, *(f"/usr/bin/{name}" for name in ("dash", "cat", "ls", "id", "sleep", "mount"))]
    for path in [*programs, *map(str, libraries.glob("*.so*"))]:
        if Path(path).is_file():
            _place(Path(path).resolve(), target / path.lstrip("/"))
    (target / "usr/bin/sh").symlink_to("dash")
    (target / "usr/lib64/ld-linux-x86-64.so.2").symlink_to("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    library = Path(PYTHON.replace("bin", "lib"))
    shutil.copytree(library, target / str(library).lstrip("/"), symlinks=True, copy_function=_place)
    (target / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


def _place(source: Path | str, target: Path | str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # the temporary directory is on another file system
        shutil.copy2(source, target, follow_symlinks=False)


@dataclass
class ScriptedCopies:
    """Stands in for the SDK: its runner is whatever script the test gives."""

    home: Path

    async def open(self) -> None:
        (self.home / "vendor").mkdir(parents=True, exist_ok=True)
        init = Path(__file__).parents[3] / "src" / "intermodal" / "node" / "init.py"
        shutil.copy(init, self.home / "init.py")

    async def get(self, python_version: str) -> RuntimeCopy:
        return RuntimeCopy(self.home / "sdk", self.home / "vendor", self.home / "init.py")

    async def close(self) -> None:
        return

    def script(self, text: str) -> None:
        entry = self.home / "sdk" / "modal" / "_container" / "entry.py"
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_text(PREAMBLE + textwrap.dedent(text))


@dataclass
class Recorder:
    """A listener that keeps what it is told."""

    ready: dict[str, float] = field(default_factory=dict)
    failed: dict[str, tuple[ErrorInfo, bytes]] = field(default_factory=dict)
    answers: list[tuple[str, Outputs, bytes]] = field(default_factory=list)
    yields: list[tuple[str, Yielded, bytes]] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    text: dict[LogStream, str] = field(default_factory=dict)
    exits: dict[str, ContainerExit] = field(default_factory=dict)

    def container_ready(self, container_id: str, seconds: float) -> None:
        assert container_id not in self.exits
        self.ready[container_id] = seconds

    def container_start_failed(self, container_id: str, error: ErrorInfo, payload: bytes) -> None:
        assert container_id not in self.exits
        self.failed[container_id] = (error, payload)

    def outputs(self, container_id: str, message: Outputs, body: memoryview | bytes) -> None:
        assert container_id not in self.exits
        self.answers.append((container_id, message, bytes(body)))

    def yielded(self, container_id: str, message: Yielded, body: memoryview | bytes) -> None:
        self.yields.append((container_id, message, bytes(body)))

    def inputs_returned(self, container_id: str, input_ids: list[str]) -> None:
        self.returned += input_ids

    def logs(self, container_id: str, stream: LogStream, text: str, at: float) -> None:
        assert container_id not in self.exits
        self.text[stream] = self.text.get(stream, "") + text

    def container_exited(self, container_id: str, exit: ContainerExit) -> None:
        assert container_id not in self.exits, "an exit is reported once"
        self.exits[container_id] = exit


class NoApi:
    """A server that takes no calls."""

    def accept(self, container_id: str, reader_transport: Any, first_frame: bytes) -> object:
        reader_transport.abort()
        return asyncio.Protocol()


def make_spec(image: BuiltImage, name: str = "ta-1", **changes: Any) -> ContainerSpec:
    start = Start(
        container_id=name,
        app_id="ap-1",
        function_id="fu-1",
        function_name="f",
        environment="main",
        source=Source(SourceKind.FILE, "app", "f", "/root/app.py"),
        is_generator=False,
        timeout=60.0,
        concurrency=Concurrency(),
        credit=1,
    )
    return ContainerSpec(container_id=name, image=image, start=start, **{"resources": Resources(), **changes})


def one_input(input_id: str, body: bytes = b"") -> RunInputs:
    return RunInputs([RunInput(input_id, "fc-1", len(body))])


async def until(condition: Callable[[], Any], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "timed out waiting"
        await asyncio.sleep(0.003)


@dataclass
class Site:
    """An agent under test, with all that surrounds it."""

    agent: Agent
    recorder: Recorder
    copies: ScriptedCopies
    image: BuiltImage
    data: Path
    storage: Storage
    started: int = 0

    async def start(self, script: str = "", **changes: Any) -> str:
        """Start a container that runs `script`; return its id."""
        if script:
            self.copies.script(script)
        self.started += 1
        name = f"ta-{self.started}"
        await self.agent.start(make_spec(changes.pop("image", self.image), name, **changes))
        return name

    async def ask(self, name: str, body: bytes = b"") -> Any:
        """Push an input to a container once it is ready, and return what it reports (JSON)."""
        await until(lambda: name in self.recorder.ready or name in self.recorder.exits)
        assert name in self.recorder.ready, (self.recorder.exits[name], self.recorder.text)
        before = len(self.recorder.answers)
        self.agent.push(name, one_input("in-1", body), body)
        await until(lambda: len(self.recorder.answers) > before or name in self.recorder.exits)
        assert len(self.recorder.answers) > before, (self.recorder.exits[name], self.recorder.text)
        return json.loads(self.recorder.answers[-1][2])

    async def exit_of(self, name: str) -> ContainerExit:
        await until(lambda: name in self.recorder.exits)
        return self.recorder.exits[name]


def mounted_volumes(data: Path) -> list[str]:
    """The mount points of volumes in containers."""
    return [str(point) for point in mounts_below(node_layout(data).volumes)]


def leftovers(data: Path) -> list[str]:
    """What an agent of this data directory has left on the machine."""
    layout = node_layout(data)
    found = [str(point) for top in (layout.run, layout.scratch) for point in mounts_below(top)]
    found += mounted_volumes(data)
    found += [name for _, name in socket.if_nameindex() if name.startswith(layout.interface_prefix)]
    # Not by a glob, which fails when another group vanishes meanwhile.
    found += [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(f"/intermodal/{layout.key}")]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [line for line in tables.splitlines() if layout.key in line]
    found += [str(path) for path in (layout.run, layout.volumes) if path.exists()]
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True).stdout
    found += [line for line in loops.splitlines() if str(data) in line]
    return found


@contextlib.asynccontextmanager
async def open_site(data: Path, home: Path, api: Any = None, **settings: Any) -> AsyncIterator[Site]:
    """An open agent over `data`, where `storage/base` is a root file system; `home` is reachable for everyone."""
    recorder, copies = Recorder(), ScriptedCopies(home)
    blobs = data / "blobs"
    storage = storage_in(data, data / "run", 100_000)
    agent = isolated_agent(
        NodeSettings(data, **settings), lambda digest: blobs / digest, recorder, api or NoApi(), storage, copies
    )
    layer = data / "storage" / "base"
    image = BuiltImage("im-1", (layer,), python=PYTHON, python_version=PYTHON.rpartition("python")[2])
    await agent.open()
    try:
        yield Site(agent, recorder, copies, image, data, storage)
    finally:
        await agent.close()
        storage.close()
        await until(lambda: not leftovers(data), 5)
