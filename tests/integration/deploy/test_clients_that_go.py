"""Ephemeral apps end when their client is gone for good, and not when it is away for a moment."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_server import Users
from killable_server import until
from wire_cutter import WireCutter

PROGRAM = """
    import sys, modal
    app = modal.App("fleeting", image=modal.Image.debian_slim(python_version="%d.%d" % sys.version_info[:2]))

    def wait(marks):
        import os, time
        open(f"{marks}/began", "a").write("x")
        while not os.path.exists(f"{marks}/gate"):
            time.sleep(0.01)
        return "done"

    wait = app.function(serialized=True)(wait)
    with app.run():
        print(wait.remote(sys.argv[1]), flush=True)
"""


class Client:
    """A program with an app that runs, behind a wire that can be cut."""

    def __init__(self, users: Users, wire: WireCutter, process: subprocess.Popen[str], marks: Path) -> None:
        self.users, self.wire, self.process, self.marks = users, wire, process, marks

    def apps(self) -> list[str]:
        return [one["state"] for one in self.users.listed("app", "list")]

    def ends_as_it_should(self) -> None:
        (self.marks / "gate").touch()
        out, err = self.process.communicate(timeout=60)
        assert (self.process.returncode, out) == (0, "done\n"), err
        assert (self.marks / "began").read_text() == "x"  # once
        until(lambda: self.apps() == ["stopped"], "the app to stop with its program")

    def is_missed(self) -> None:
        until(lambda: self.apps() == ["stopped"], "the app to stop without its client")


@pytest.fixture(params=["unix", "tcp"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    users = Users(tmp_path, PORT="0", SESSION_GRACE="3", CLIENT_TIMEOUT="3")
    users.server.start()
    env = {}
    if request.param == "unix":
        wire = WireCutter(Path(users.server.target.removeprefix("unix://")), tmp_path / "wire.sock")
    else:
        command = [sys.executable, "-m", "intermodal.cli"]
        made = subprocess.run(
            [*command, "token", "create", "tester", "--json"], env=users.environ, capture_output=True, check=True
        )
        token = json.loads(made.stdout)
        env = {"MODAL_TOKEN_ID": token["token_id"], "MODAL_TOKEN_SECRET": token["token_secret"]}
        status = subprocess.run([*command, "status", "--json"], env=users.environ, capture_output=True, check=True)
        wire = WireCutter(("127.0.0.1", int(json.loads(status.stdout)["url"].rpartition(":")[2])))
    with wire:
        process = users.start_python(PROGRAM, str(tmp_path), MODAL_SERVER_URL=wire.url, **env)
        until((tmp_path / "began").exists, "the function to run")
        yield Client(users, wire, process, tmp_path)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        with contextlib.suppress(ValueError):
            process.communicate()
    users.server.stop()


def test_a_client_that_is_killed_takes_its_app_along(client: Client) -> None:
    client.process.kill()
    client.is_missed()


def test_a_client_that_is_frozen_takes_its_app_along(client: Client) -> None:
    client.process.send_signal(signal.SIGSTOP)
    client.is_missed()
    client.process.send_signal(signal.SIGCONT)
    _, err = client.process.communicate(timeout=60)
    assert client.process.returncode == 1
    assert "was stopped (client gone)" in err, err


def test_a_client_that_is_frozen_for_a_moment_goes_on(client: Client) -> None:
    client.process.send_signal(signal.SIGSTOP)
    time.sleep(1.0)  # that is what is tested: less than the time a client may be silent
    client.process.send_signal(signal.SIGCONT)
    client.ends_as_it_should()


def test_a_short_cut_of_the_wire_harms_nothing(client: Client) -> None:
    for _ in range(2):
        client.wire.cut()
        time.sleep(0.5)  # less than the grace
        client.wire.mend()
    client.ends_as_it_should()


def test_a_wire_that_stays_cut_ends_the_app(client: Client) -> None:
    client.wire.cut()
    client.is_missed()


def test_a_wire_that_falls_silent_ends_the_app(client: Client) -> None:
    client.wire.fall_silent()
    client.is_missed()


def test_a_client_with_nothing_to_say_is_not_missed(client: Client) -> None:
    time.sleep(7.0)  # longer than it may be silent and away together: it answers when it is asked
    assert client.apps() == ["ephemeral"]
    client.ends_as_it_should()
