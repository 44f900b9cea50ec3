"""`modal app logs` and `modal container logs`: what was printed, then what is printed, once each, over restarts."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest

APP = """
    import modal
    app = modal.App("speaker")

    @app.function(serialized=True, container_idle_timeout=300)
    def say(text: str):
        import sys
        print(text, flush=True)
        print("aside:", text, file=sys.stderr, flush=True)
"""


class Place:
    """A data directory with its server, and commands of a user."""

    def __init__(self, folder: Path) -> None:
        chosen = {"DATA_DIR": str(folder / "data"), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1"}
        self.data = folder / "data"
        self.environ = {**os.environ, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}
        self.environ.update(MODAL_CONFIG_PATH=str(folder / "modal.toml"), PYTHONUNBUFFERED="1")

    def run(self, *command: str) -> str:
        return subprocess.run(
            [sys.executable, *command], env=self.environ, check=True, timeout=60, capture_output=True, text=True
        ).stdout

    def say(self, text: str) -> None:
        self.run("-c", f"import modal; modal.Function.lookup('speaker', 'say').remote({text!r})")

    def wait_until_stored(self, text: str) -> None:
        """What a server has shown it stores a moment later."""
        deadline = time.monotonic() + 60
        with closing(sqlite3.connect(self.data / "state.db")) as database:
            while not database.execute("SELECT 1 FROM logs WHERE text LIKE ?", (f"%{text}%",)).fetchall():
                assert time.monotonic() < deadline
                time.sleep(0.02)

    @contextmanager
    def following(self, *command: str) -> Iterator[Following]:
        process = subprocess.Popen(
            [sys.executable, "-m", "modal.cli.main", *command],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        following = Following(process)
        try:
            yield following
        finally:
            process.kill()
            process.wait()
            for thread in following.threads:
                thread.join(10)


class Following:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: dict[str, list[str]] = {"out": [], "err": []}
        self.threads = []
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            self.threads.append(threading.Thread(target=self._read, args=(name, stream), daemon=True))
            self.threads[-1].start()

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.lines[name].append(line.rstrip("\n"))

    def wait_for(self, line: str) -> None:
        deadline = time.monotonic() + 60
        while line not in self.lines["out"]:
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("logs")
    place = Place(folder)
    (folder / "speaker.py").write_text(textwrap.dedent(APP))
    place.run("-m", "intermodal.cli", "up", "--quiet")
    place.run("-m", "modal.cli.main", "deploy", str(folder / "speaker.py"))
    yield place
    place.run("-m", "intermodal.cli", "down")


def test_output_is_followed_through_the_death_of_the_server(place: Place) -> None:
    place.say("before")
    with place.following("app", "logs", "speaker") as logs:
        logs.wait_for("before")
        place.say("live")
        logs.wait_for("live")
        place.wait_until_stored("live")
        os.kill(int((place.data / "run" / "server.pid").read_text()), signal.SIGKILL)
        place.run("-m", "intermodal.cli", "up", "--quiet")
        place.say("after")
        logs.wait_for("after")
        assert logs.lines["out"] == ["before", "live", "after"]
        logs.process.send_signal(signal.SIGINT)
        assert logs.process.wait(20) == 130
        assert not [line for line in logs.lines["err"] if "Error" in line or "Traceback" in line]
    with place.following("app", "logs", "--name", "speaker") as logs:
        logs.wait_for("after")
        assert logs.lines["out"] == ["before", "live", "after"]
        place.run("-m", "modal.cli.main", "app", "stop", "speaker")
        assert logs.process.wait(20) == 0


def test_an_app_that_is_not_there(place: Place) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modal.cli.main", "app", "logs", "no-such-app"],
        env=place.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no-such-app" in done.stderr
    assert "Traceback" not in done.stderr
