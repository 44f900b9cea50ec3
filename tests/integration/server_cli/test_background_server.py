"""`intermodal up`, `status` and `down` against real servers that need no container runtime."""

from __future__ import annotations

import concurrent.futures
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from intermodal.cli.server_probe import holder
from intermodal.settings import Settings


class Installation:
    """An `intermodal` command with a data directory of its own."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.settings = Settings.load(data_dir=data_dir)
        chosen = {"DATA_DIR": str(data_dir), "RUNTIME": "mock", "BUILDER": "memory", "PORT": "-1", **settings}
        self.environ = {**os.environ, **{f"INTERMODAL_{name}": value for name, value in chosen.items()}}

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "intermodal.cli", *args],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "data")
    yield made
    made.run("down", "--force")
    assert holder(made.settings) is None


def test_up_starts_a_server_that_status_shows_and_down_stops(installation):
    up = installation.run("up")
    assert up.returncode == 0, up.stderr
    status = installation.status()
    assert status["running"] is True
    assert status["data_dir"] == str(installation.data_dir)
    assert f"(pid {status['pid']})" in up.stdout
    assert holder(installation.settings) == status["pid"]
    table = installation.run("status").stdout
    assert f"data directory: {installation.data_dir}" in table
    down = installation.run("down")
    assert down.stdout == f"Stopped the server (pid {status['pid']}).\n"
    assert holder(installation.settings) is None
    assert not installation.settings.socket.exists()


def test_racing_starters_start_one_server(installation):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: installation.run("up"), range(4)))
    assert [item.returncode for item in done] == [0] * 4
    assert sorted("started" in item.stdout for item in done) == [False, False, False, True]
    assert len({item.stdout.partition("(pid ")[2] for item in done}) == 1


def test_up_quiet_says_nothing(installation):
    done = installation.run("up", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_killed_server_is_not_running_and_can_be_started_again(installation):
    installation.run("up")
    pid = installation.status()["pid"]
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([descriptor], [], [], 10)[0]
    os.close(descriptor)
    assert installation.status()["running"] is False
    assert installation.run("up").returncode == 0
    assert installation.status()["pid"] != pid


def test_a_second_server_on_one_data_directory_is_refused(installation):
    installation.run("up")
    done = installation.run("serve")
    assert done.returncode == 1
    assert f"Another server (pid {installation.status()['pid']})" in done.stderr


def test_status_without_a_server_exits_with_3(installation):
    done = installation.run("status")
    assert done.returncode == 3
    assert done.stderr == f"The server on {installation.data_dir} is not running. Start it with `intermodal up`.\n"
    assert installation.status() == {"running": False, "data_dir": str(installation.data_dir)}


def test_down_without_a_server_says_so(installation):
    done = installation.run("down")
    assert (done.returncode, done.stdout) == (0, f"No server runs on {installation.data_dir}.\n")


def test_up_gives_the_reason_when_the_server_ends(tmp_path):
    installation = Installation(tmp_path / "data", BUILDER="nonsense")
    done = installation.run("up")
    assert done.returncode == 1
    assert done.stderr == "Error: The setting builder must be buildah or memory, but is 'nonsense'.\n"
    assert holder(installation.settings) is None


def test_a_bad_setting_is_one_sentence(tmp_path):
    done = Installation(tmp_path / "data", PORT="many").run("up")
    assert done.returncode == 1
    assert done.stderr == "Error: The setting port must be int, but is 'many'.\n"


def test_a_data_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = Installation(tmp_path / "file" / "data").run("up")
    assert done.returncode == 1
    assert f"The data directory {tmp_path / 'file' / 'data'} cannot be used: Not a directory." in done.stderr
