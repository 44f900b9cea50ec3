"""`modal run` as a person uses it: a real server, containers as plain processes, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = """
    import time
    import modal
    app = modal.App("the-app")

    def inner(x):
        raise ValueError(f"bad {x}")

    @app.function()
    def fail(x: int):
        inner(x)

    @app.function()
    def slow(seconds: float = 60.0):
        print("sleeping", flush=True)
        time.sleep(seconds)

    @app.function()
    def count(n: int):
        yield from range(n)

    @app.local_entrypoint()
    def main():
        fail.remote(1)

    @app.local_entrypoint()
    def unpicklable():
        import threading
        slow.remote(threading.Lock())

    @app.local_entrypoint()
    def stubborn():
        while True:
            try:
                slow.remote()
            except KeyboardInterrupt:
                print("not now", flush=True)
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("run")
    chosen = {"DATA_DIR": str(folder / "data"), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1"}
    chosen["SESSION_GRACE"] = "1"
    environ = {**os.environ, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}
    environ.update(MODAL_CONFIG_PATH=str(folder / "modal.toml"), TERM="xterm", COLUMNS="100")
    environ.pop("MODAL_TRACEBACK", None)
    command = [sys.executable, "-m", "intermodal.cli"]
    subprocess.run([*command, "up", "--quiet"], env=environ, check=True, timeout=60)
    yield environ
    subprocess.run([*command, "down"], env=environ, check=True, timeout=60, stdout=subprocess.DEVNULL)


@pytest.fixture
def app_file(tmp_path) -> Path:
    path = tmp_path / "the_app.py"
    path.write_text(textwrap.dedent(APP))
    return path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "modal.cli.main", *args]


def run(environ: dict[str, str], folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), env=environ, cwd=folder, capture_output=True, text=True, timeout=60)


def containers(environ: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "intermodal.cli", "status"], env=environ, capture_output=True, text=True, timeout=60
    )
    return int(re.search(r"containers: +(\d+)", done.stdout)[1])  # type: ignore[index]


def wait_until_no_container_runs(environ: dict[str, str]) -> None:
    deadline = time.monotonic() + 20
    while containers(environ):
        assert time.monotonic() < deadline, "containers outlived their app"


def test_a_remote_exception_is_a_traceback_through_local_and_remote_frames(environ, app_file):
    done = run(environ, app_file.parent, "run", "--quiet", "the_app.py::main")
    assert done.returncode == 1
    frames = re.findall(r'  File "(.*)", line \d+, in (\w+)', done.stderr)
    assert [name for _, name in frames] == ["main", "fail", "inner"]
    assert frames[0][0] == str(app_file)
    assert done.stderr.endswith("ValueError: bad 1\n")
    assert done.stdout == ""


def test_an_unpicklable_argument_is_shown_at_the_users_line_only(environ, app_file):
    done = run(environ, app_file.parent, "run", "--quiet", "the_app.py::unpicklable")
    assert done.returncode == 1
    assert done.stderr.count("  File ") == 1
    assert done.stderr.count("Traceback") == 1
    assert "SerializationError" in done.stderr.splitlines()[-1]


def test_what_a_generator_function_yields_is_printed(environ, app_file):
    done = run(environ, app_file.parent, "run", "--quiet", "the_app.py::count", "--n", "3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n1\n2\n", "")


def test_a_reader_that_leaves_early_is_no_error_to_report(environ, app_file):
    process = subprocess.Popen(
        command("run", "--quiet", "the_app.py::count", "--n", "100000"),
        env=environ,
        cwd=app_file.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 1


class OnTerminal:
    """A command whose terminal this is."""

    def __init__(self, environ: dict[str, str], folder: Path, *args: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(sys.executable, command(*args), environ)
        self.shown = ""

    def read_until(self, text: str, count: int = 1) -> None:
        while self.shown.count(text) < count:
            self.shown += os.read(self._master, 65536).decode(errors="replace")

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def wait(self) -> int:
        try:
            while data := os.read(self._master, 65536):
                self.shown += data.decode(errors="replace")
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(self._master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.timeout(60)
def test_ctrl_c_on_a_terminal_stops_the_app_and_its_containers(environ, app_file):
    terminal = OnTerminal(environ, app_file.parent, "run", "the_app.py::slow")
    terminal.read_until("sleeping")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "Interrupted: stopping the app and its containers" in terminal.shown
    assert "App stopped: it was interrupted." in terminal.shown
    assert "Traceback" not in terminal.shown
    wait_until_no_container_runs(environ)


@pytest.mark.timeout(60)
def test_a_second_ctrl_c_leaves_at_once(environ, app_file):
    terminal = OnTerminal(environ, app_file.parent, "run", "the_app.py::stubborn")
    terminal.read_until("sleeping")
    terminal.press_ctrl_c()
    terminal.read_until("not now")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130
    assert "Left at once" in terminal.shown
    wait_until_no_container_runs(environ)


@pytest.mark.timeout(60)
def test_a_detached_app_is_left_running_and_can_be_stopped(environ, app_file):
    process = subprocess.Popen(
        command("run", "--detach", "the_app.py::slow"),
        env=environ,
        cwd=app_file.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sleeping\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    app_id = re.search(r"the app (ap-\w+) goes on running", errors)[1]  # type: ignore[index]
    assert containers(environ) == 1
    listed = json.loads(run(environ, app_file.parent, "app", "list", "--json").stdout)
    assert [(one["app_id"], one["state"]) for one in listed if not one["stopped_at"]] == [(app_id, "detached")]
    stopped = run(environ, app_file.parent, "app", "stop", "the-app")
    assert stopped.stdout == f"Stopped the app the-app ({app_id}).\n"
    wait_until_no_container_runs(environ)
