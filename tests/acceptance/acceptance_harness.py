"""Acts as a user does: runs the installed commands, reads what they print, and looks at what the machine then holds."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from intermodal.node.layout import NodeLayout, node_layout

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples"
CONTROL_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: Frames of a traceback that are not the user's.
OUR_FRAMES = re.compile(r'File "[^"]*(/site-packages/|/src/modal/|/src/intermodal/|/opt/intermodal/)')


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it printed."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def succeeded(self) -> Outcome:
        assert self.code == 0, str(self)
        return self

    def failed_with_one_sentence(self, *words: str, code: int = 1) -> Outcome:
        """It failed, the reason has all the words, and nobody sees a traceback."""
        assert self.code == code, str(self)
        for word in words:
            assert word in self.err, f"{word!r} is not in the message\n{self}"
        assert "Traceback" not in self.out + self.err, str(self)
        self.shows_no_frame_of_ours()
        return self

    def failed_with_traceback(self, *words: str) -> Outcome:
        """User code raised: its traceback is shown, with all the words, and no frame of ours."""
        assert self.code == 1, str(self)
        assert "Traceback (most recent call last)" in self.err, str(self)
        for word in words:
            assert word in self.err, f"{word!r} is not in the traceback\n{self}"
        self.shows_no_frame_of_ours()
        return self

    def shows_no_frame_of_ours(self) -> Outcome:
        assert not OUR_FRAMES.search(self.out + self.err), str(self)
        return self


@dataclass
class Background:
    """A command that runs beside the test; everything it prints is collected."""

    process: subprocess.Popen[str]
    _texts: dict[str, list[str]] = field(default_factory=lambda: {"out": [], "err": []})

    def __post_init__(self) -> None:
        self._readers = [
            threading.Thread(target=self._collect, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, name: str, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            self._texts[name].append(line)

    @property
    def out(self) -> str:
        return "".join(self._texts["out"])

    @property
    def err(self) -> str:
        return "".join(self._texts["err"])

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Wait until `text` was printed, on either stream."""

        def said() -> bool:
            has_ended = self.process.poll() is not None
            if has_ended:
                self.end()  # all that it printed is here then
            if text in self.out + self.err:
                return True
            assert not has_ended, f"it ended before it said {text!r}\n{self.end()}"
            return False

        wait_until(said, f"{text!r} to be printed; so far:\n{self.out}\n{self.err}", seconds)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, seconds: float = 60.0) -> Outcome:
        """Wait for its end."""
        self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return Outcome(self.process.returncode, self.out, self.err)


class Platform:
    """One data directory, and the commands of a user who works with it."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.layout: NodeLayout = node_layout(data_dir)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "INTERMODAL_"))}
        self.env = {
            **kept,
            "INTERMODAL_DATA_DIR": str(data_dir),
            "INTERMODAL_PORT": "0",
            "MODAL_CONFIG_PATH": str(data_dir.parent / "no-such-modal.toml"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"INTERMODAL_{name.upper()}": value for name, value in settings.items()},
        }

    def modal(self, *args: object, cwd: Path | None = None, seconds: float = 120.0, **env: str) -> Outcome:
        """Run `modal` with these arguments to its end."""
        return self._run("modal", args, cwd, seconds, env)

    def intermodal(self, *args: object, seconds: float = 120.0, **env: str) -> Outcome:
        return self._run("intermodal", args, None, seconds, env)

    def python(self, program: Path, *args: object, cwd: Path | None = None, seconds: float = 120.0) -> Outcome:
        """Run a program that uses the SDK by itself."""
        return self._run("python", (program, *args), cwd, seconds, {})

    def _run(
        self, command: str, args: tuple[object, ...], cwd: Path | None, seconds: float, env: Mapping[str, str]
    ) -> Outcome:
        done = subprocess.run(
            [str(BIN / command), *map(str, args)],
            cwd=cwd,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def background(self, command: str, *args: object, cwd: Path | None = None, **env: str) -> Iterator[Background]:
        """Run a command beside the test; it is killed if it still runs at the end of the block."""
        process = subprocess.Popen(
            [str(BIN / command), *map(str, args)],
            cwd=cwd,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running = Background(process)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            running.end()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def server(self) -> psutil.Process | None:
        """The process of the server, when one runs."""
        try:
            process = psutil.Process(int((self.data_dir / "run" / "server.pid").read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None
        return process if process.is_running() and process.status() != psutil.STATUS_ZOMBIE else None

    def containers(self) -> set[str]:
        """Ids of the containers that the machine holds for this data directory, also when only their files are left."""
        folders = [self.layout.runc_root, self.layout.containers]
        return {item.name for folder in folders if folder.is_dir() for item in folder.iterdir()}

    def leftovers(self) -> list[str]:
        """Everything on this machine that belongs to the data directory and should not outlive its server."""
        found = [*self._processes(), *self._mounts()]
        found += [f"runc state {name}" for name in self.containers()]
        if self.layout.containers.is_dir():
            found += [f"container directory {item}" for item in self.layout.containers.iterdir()]
        if self.layout.scratch.is_dir():
            found += [f"container files {item}" for item in self.layout.scratch.iterdir()]
        found += [f"interface {name}" for name in os.listdir("/sys/class/net") if self.layout.key in name]
        for command in (["nft", "list", "tables"], ["ip", "netns"]):
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found += [f"{command[0]}: {line}" for line in listed.splitlines() if self.layout.key in line]
        for folder, below, _ in os.walk("/sys/fs/cgroup"):
            if Path(folder).name == "intermodal":
                found += [f"cgroup {folder}/{name}" for name in below if name == self.layout.key]
                below.clear()
        return found

    def _processes(self) -> Iterator[str]:
        buckets = os.fsencode(self.layout.buckets)
        mark, group = os.fsencode(self.data_dir), f"/intermodal/{self.layout.key}".encode()
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
                if (
                    mark in command
                    or buckets in command
                    or mark in environment
                    or group in (folder / "cgroup").read_bytes()
                ):
                    yield f"process {folder.name}: {command.replace(bytes(1), b' ').decode(errors='replace')}"

    def _mounts(self) -> Iterator[str]:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            place = Path(line.split()[4])
            ours = (self.data_dir, self.layout.run, self.layout.buckets, self.layout.volumes)
            if any(place.is_relative_to(one) for one in ours):
                yield f"mount {place}"


class Program:
    """Files of a user, in a directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str, name: str = "app.py") -> Path:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Look until the condition holds; fail with `what` was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
