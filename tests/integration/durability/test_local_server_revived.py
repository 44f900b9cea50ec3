"""The local server that a client started and that dies is started again; one that was stopped stays stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from killable_server import until

PROGRAM = """
    import sys, time
    import modal

    app = modal.App("local")

    @app.function(serialized=True)
    def slow(path, x):
        with open(path, "a") as file:
            file.write(f"{x}\\n")
        time.sleep(1)
        return x

    if __name__ == "__main__":
        with app.run():
            print(list(slow.map([sys.argv[1]] * 4, range(4))))
"""


class Local:
    """A user without any configuration, whose data directory is `folder`/data."""

    def __init__(self, folder: Path) -> None:
        self.executions = folder / "executions"
        self.pid_file = folder / "data" / "run" / "server.pid"
        chosen = {"DATA_DIR": str(folder / "data"), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1"}
        chosen["STOP_GRACE"] = "1"
        ours = ("MODAL_", "INTERMODAL_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environ = {**inherited, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}
        self.environ.update(MODAL_CONFIG_PATH=str(folder / "no-such-modal.toml"), MODAL_RECONNECT_TIMEOUT="15")
        self.program = folder / "program.py"
        self.program.write_text(textwrap.dedent(PROGRAM))

    def run(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.program), str(self.executions)],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def intermodal(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "intermodal.cli", *args]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    one = Local(tmp_path)
    yield one
    one.intermodal("down", "--force")


def test_a_killed_local_server_is_started_again_and_the_run_goes_on(local: Local) -> None:
    with local.run() as running:
        until(local.executions.exists, "an input to run")
        first = int(local.pid_file.read_text())
        os.kill(first, signal.SIGKILL)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, "[0, 1, 2, 3]\n"), err
    assert "had died; started it again" in err
    assert int(local.pid_file.read_text()) != first


@pytest.mark.parametrize("how", [[], ["--force"]])
def test_a_local_server_that_was_stopped_stays_stopped(how: list[str], local: Local) -> None:
    local.environ["MODAL_RECONNECT_TIMEOUT"] = "2"
    with local.run() as running:
        until(local.executions.exists, "an input to run")
        assert local.intermodal("down", *how).returncode == 0
        _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "started it again" not in err
    assert not local.pid_file.exists()
