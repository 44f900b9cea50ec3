"""An agent for tests: starts the real runner in a subprocess, speaks the protocol with it and checks every message."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from modal._serialization import deserialize, deserialize_failure, serialize
from modal._wire import codec, frames
from modal._wire.messages.call import Status
from modal._wire.messages.function import ClassSpec, Concurrency, Source, SourceKind
from modal._wire.messages.runner import (
    RUNNER_MESSAGES,
    CancelInputs,
    Credit,
    Leaving,
    Outputs,
    Recall,
    Returned,
    RunInput,
    RunInputs,
    RunOutput,
    Start,
    Stop,
    Yielded,
)

SDK = Path(__file__).resolve().parents[3] / "src"
ENTRY = SDK / "modal" / "_container" / "entry.py"


class Agent:
    """One container. Use as a context manager; `messages` are read in order with `receive`."""

    def __init__(self, script: str = "", *, python: str = sys.executable, env: dict[str, str] | None = None):
        self.directory = Path(tempfile.mkdtemp(prefix="runner-"))
        (self.directory / "root").mkdir()
        self.script = self.directory / "root" / "app.py"
        self.script.write_text(script)
        self._listener = socket.socket(socket.AF_UNIX)
        path = str(self.directory / "agent.sock")
        self._listener.bind(path)
        self._listener.listen()
        self._listener.settimeout(20)
        import cloudpickle

        vendor = str(Path(cloudpickle.__file__).parents[1])
        self.process = subprocess.Popen(
            [python, str(ENTRY)],
            env={
                **os.environ,
                "INTERMODAL_SOCKET": path,
                "INTERMODAL_CONTAINER_ID": "ta-1",
                "PYTHONPATH": os.pathsep.join([str(self.directory / "root"), str(SDK), vendor]),
                **(env or {}),
            },
            cwd=self.directory / "root",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(10)
        self._decoder = frames.FrameDecoder()
        self._frames: list[memoryview] = []
        self.outputs: dict[str, tuple[RunOutput, bytes]] = {}
        self.yielded: dict[str, list[Any]] = {}
        self.returned: list[str] = []
        self.is_leaving = False
        hello, _ = self.receive()
        assert type(hello).__name__ == "Hello"
        self.hello = hello

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with what user code forked
        self.process.communicate()
        self._connection.close()
        self._listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def send(self, message: Any, body: bytes = b"") -> None:
        header = {"t": type(message).__name__, **codec.encode(message)}
        self._connection.sendall(frames.length_prefixed(frames.pack(header, body)))

    def receive(self) -> tuple[Any, bytes]:
        while not self._frames:
            data = self._connection.recv(1 << 18)
            if not data:
                raise EOFError("the runner closed the connection")
            self._frames = list(self._decoder.feed(data))
        header, body = frames.unpack(self._frames.pop(0))
        return codec.decode(RUNNER_MESSAGES[header["t"]], header), bytes(body)

    def send_start(
        self,
        qualname: str,
        *,
        kind: SourceKind = SourceKind.FILE,
        is_generator: bool = False,
        timeout: float = 300.0,
        concurrency: int = 1,
        batch: tuple[int, int] = (0, 0),
        stop_grace: float = 30.0,
        body: bytes = b"",
        python: str = "",
        module: str = "app",
        local_modules: tuple[str, ...] = (),
        cls: ClassSpec | None = None,
        parameters: bytes = b"",
    ) -> None:
        """Tell it what to run."""
        source = Source(
            kind=kind,
            module=module,
            qualname=qualname,
            path=str(self.script),
            python=python,
            local_modules=list(local_modules),
        )
        self.send(
            Start(
                container_id="ta-1",
                app_id="ap-1",
                function_id="fu-1",
                function_name=qualname,
                environment="main",
                source=source,
                is_generator=is_generator,
                timeout=timeout,
                concurrency=Concurrency(concurrency, None, *batch),
                stop_grace=stop_grace,
                credit=32,
                objects={"other": "fu-2"},
                app_name="shop",
                cls=cls,
                parameters_size=len(parameters),
            ),
            body + parameters,
        )

    def start(self, qualname: str, **options: Any) -> tuple[Any, bytes]:
        """Send Start, with the arguments of `send_start`, and return the answer."""
        self.send_start(qualname, **options)
        return self.receive()

    def ready(self, qualname: str, **options: Any) -> Agent:
        """Start, and expect it to work."""
        answer, body = self.start(qualname, **options)
        assert type(answer).__name__ == "Ready", (answer, body and deserialize_failure(body))
        return self

    def push(self, *calls: tuple[str, tuple[Any, ...]], method: str = "") -> None:
        """Send inputs, each an id and its arguments."""
        payloads = [serialize((args, {})) for _, args in calls]
        inputs = [RunInput(name, f"fc-{name}", len(data), method=method) for (name, _), data in zip(calls, payloads)]
        self.send(RunInputs(inputs), b"".join(payloads))

    def output(self, name: str) -> tuple[RunOutput, Any]:
        """Wait for the output of an input and return it with its value or exception."""
        while name not in self.outputs:
            self.pump()
        record, payload = self.outputs[name]
        if not payload:
            return record, None
        return record, (deserialize if record.status is Status.SUCCESS else deserialize_failure)(payload)

    def call(self, *args: Any, name: str = "", method: str = "") -> tuple[RunOutput, Any]:
        name = name or f"in-{len(self.outputs)}"
        self.push((name, args), method=method)
        return self.output(name)

    def pump(self) -> None:
        """Take one message."""
        message, body = self.receive()
        if isinstance(message, Outputs):
            position = 0
            for record in message.outputs:
                self.outputs[record.input_id] = (record, body[position : position + record.size])
                position += record.size
            assert position == len(body)
        elif isinstance(message, Yielded):
            self.yielded.setdefault(message.input_id, []).append(deserialize(body))
        elif isinstance(message, Returned):
            self.returned += message.input_ids
        elif isinstance(message, Leaving):
            self.is_leaving = True
        else:
            raise AssertionError(message)

    def cancel(self, *names: str) -> None:
        self.send(CancelInputs(list(names)))

    def recall(self, count: int) -> None:
        self.send(Recall(count))

    def credit(self, name: str, count: int) -> None:
        self.send(Credit(name, count))

    def stop(self, grace: float = 30.0) -> None:
        self.send(Stop(grace))

    def hang_up(self) -> None:
        self._connection.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end: exit status, stdout, stderr."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.decode(), err.decode()

    def stdout_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()

    def wait_for_file(self, name: str) -> None:
        """Wait until user code has created a file in its working directory."""
        until = time.monotonic() + 20
        while not (self.directory / "root" / name).exists():
            assert time.monotonic() < until, f"{name} did not appear"
            assert self.process.poll() is None, self.wait()
            time.sleep(0.002)


def pickled(function: Any) -> bytes:
    """A body for SourceKind.SERIALIZED."""
    import cloudpickle

    return serialize(None)[:3] + cloudpickle.dumps(function, protocol=pickle.HIGHEST_PROTOCOL)
