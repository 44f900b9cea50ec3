"""A real `intermodal serve` process that tests kill and start again, and an app whose executions can be counted."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

#: Rounds of every test that kills at random moments. The default keeps the suite short.
ROUNDS = int(os.environ.get("INTERMODAL_KILL_ROUNDS", "2"))


class KillableServer:
    """Containers are plain processes unless `settings` name a runtime."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.data_dir = folder / "data"
        chosen = {"DATA_DIR": str(self.data_dir), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1"}
        chosen.update(settings)
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "INTERMODAL_"))
        }
        self.environ = {**inherited, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}
        self.environ["MODAL_CONFIG_PATH"] = str(folder / "no-such-modal.toml")
        self.kills = 0
        self._log = open(folder / "server.log", "ab")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"unix://{self.data_dir}/run/server.sock"

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "intermodal.cli", "serve"],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        until(self._listens, "the server to listen")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, Path(self._log.name).read_text()[-2000:]
        with socket.socket(socket.AF_UNIX) as one:
            try:
                one.connect(f"{self.data_dir}/run/server.sock")
            except OSError:
                return False
        return True

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        self._log.close()

    def kill_a_container(self, rng: random.Random, executions: Executions) -> bool:
        """kill -9 one container that has run something, if there is any."""
        able = [
            child for child in self.process.children(recursive=True) if Path(f"{executions.path}.{child.pid}").exists()
        ]
        if not able:
            return False
        rng.choice(able).kill()
        return True

    @contextmanager
    def killed_at_random(self, rng: random.Random, seconds: tuple[float, float], times: int) -> Iterator[None]:
        """While the block runs, kill the server up to `times` times (once at least), each after a random time."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for number in range(times):
                    if stop.wait(rng.uniform(*seconds)) and number:
                        return
                    self.kill()
                    self.start()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failures, failures


def until(holds: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


class Executions:
    """Counts how often each input ran: a function calls `note(path, x)`, this reads the file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "executions")

    def counts(self) -> Counter[int]:
        try:
            return Counter(int(line) for line in Path(self.path).read_text().split())
        except FileNotFoundError:
            return Counter()
