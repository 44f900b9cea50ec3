"""`modal container list|logs|exec|stop` with real containers, as a person and as a script use them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance_harness import BIN, Background, Platform, Program, wait_until

from pty_session import PtySession, terminal

pytestmark = pytest.mark.e2e

APP = """
    import os, time
    import modal
    app = modal.App("inspected")
    image = modal.Image.debian_slim().env({"FROM_IMAGE": "yes"})

    @app.function(image=image, secrets=[modal.Secret.from_dict({"WORD": "swordfish"})], memory=128)
    def work(seconds: float):
        print("working in", os.environ["MODAL_TASK_ID"], flush=True)
        open("/root/here", "a").write("x")
        time.sleep(seconds)
        return "finished"

    @app.local_entrypoint()
    def main(seconds: float = 100):
        print(work.remote(seconds))
"""


class Inspected:
    """An app with one container, and commands about that."""

    def __init__(self, platform: Platform, running: Background, container_id: str) -> None:
        self.platform, self.running, self.id = platform, running, container_id

    def command(self, *args: object) -> list[object]:
        return [BIN / "modal", "container", "exec", *args]

    def exec(self, *args: object, data: bytes = b"", seconds: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(part) for part in self.command(self.id, *args)],
            env=self.platform.env,
            input=data,
            capture_output=True,
            timeout=seconds,
        )

    @contextlib.contextmanager
    def terminal(self, *args: object, **options: int) -> Iterator[PtySession]:
        with terminal(self.command(self.id, *args), self.platform.env, **options) as session:
            yield session

    def processes(self) -> str:
        """The command lines of everything in the container."""
        done = self.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        return done.stdout.decode()


def listed(platform: Platform) -> list[dict[str, str]]:
    return json.loads(platform.modal("container", "list", "--json").succeeded().out)


@pytest.fixture
def inspected(platform: Platform, program: Program) -> Iterator[Inspected]:
    with platform.background("modal", "run", program(APP)) as running:
        running.wait_for("working in")
        [one] = listed(platform)
        yield Inspected(platform, running, one["container_id"])
        if running.process.poll() is None:
            running.send(signal.SIGINT)
        running.end(30)


def test_containers_are_listed(inspected: Inspected) -> None:
    [one] = listed(inspected.platform)
    assert one["container_id"].startswith("ta-")
    assert one["app_id"].startswith("ap-")
    assert (one["app_name"], one["function"], one["state"]) == ("inspected", "work", "running")
    table = inspected.platform.modal("container", "list").succeeded().out
    assert one["container_id"] in table
    assert table.startswith("Container ID")
    assert one["started_at"] in table


def test_a_command_runs_as_the_container_does(inspected: Inspected) -> None:
    script = (
        'id -u; pwd; echo "$FROM_IMAGE $WORD"; ls here; cat /proc/1/cmdline | tr "\\0" " "; grep -c . /proc/net/dev'
    )
    done = inspected.exec("sh", "-c", script)
    lines = done.stdout.decode().splitlines()
    assert (lines[0], lines[1], lines[2], lines[3]) == ("0", "/root", "yes swordfish", "here")
    assert "init.py" in lines[4]  # the container's processes are seen
    assert done.returncode == 0
    # It has no more rights than the function has.
    for forbidden in (
        "mount -t tmpfs x /mnt",
        "cat /proc/kcore",
        "mknod /tmp/x c 1 1",
        "echo 1 > /proc/sys/kernel/panic",
    ):
        assert inspected.exec("sh", "-c", forbidden).returncode != 0
    same = inspected.exec(
        "python", "-c", "import modal; print(open('/proc/self/cgroup').read() == open('/proc/1/cgroup').read())"
    )
    assert same.stdout.strip() == b"True", same.stderr


def test_bytes_pass_unchanged_and_exit_codes_too(inspected: Inspected) -> None:
    data = os.urandom(5_000_000)
    done = inspected.exec("sh", "-c", "cat; echo error >&2; exit 7", data=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert (done.stderr, done.returncode) == (b"error\n", 7)
    assert inspected.exec("sh", "-c", "kill -9 $$").returncode == 137
    assert inspected.exec("--", "ls", "-d", "/root").stdout == b"/root\n"


def test_what_cannot_be_run_is_said_in_a_sentence(inspected: Inspected) -> None:
    missing = inspected.exec("no-such-program")
    assert (missing.returncode, missing.stderr) == (127, b"Error: The container has no command `no-such-program`.\n")
    assert inspected.exec("--pty", "no-such-program").returncode == 127
    assert inspected.exec("/etc/passwd").returncode == 126
    platform = inspected.platform
    platform.modal("container", "exec", "ta-nobody", "ls").failed_with_one_sentence("ta-nobody", "container list")
    platform.modal("container", "stop", "ta-nobody").failed_with_one_sentence("ta-nobody")
    platform.modal("container", "logs", "ta-nobody").failed_with_one_sentence("ta-nobody", "modal app logs")
    platform.modal("container", "exec", inspected.id).failed_with_one_sentence("COMMAND", code=2)


def test_a_terminal_behaves_like_one(inspected: Inspected) -> None:
    with inspected.terminal("bash", "--norc", "-i", rows=30, columns=90) as session:
        session.wait_for("# ")
        session.type("stty size; tty; echo $TERM\r")
        session.wait_for("30 90")
        session.wait_for("/dev/pts/")
        session.wait_for("xterm")
        session.resize(40, 120)
        session.type("sleep 0.6; stty size\r")
        session.wait_for("40 120")
        session.type("sleep 1000\r")
        wait_until(lambda: "sleep 1000" in inspected.processes(), "the sleep to run")
        session.type("\x03")  # interrupts the sleep, not the client
        session.type("echo still $((40 + 2)) here\r")
        session.wait_for("still 42 here")
        session.type("exit 9\r")
        assert session.end() == 9
    assert "no job control" not in session.screen


def test_a_command_dies_with_its_client(inspected: Inspected) -> None:
    for pty in ("--pty", "--no-pty"):
        with terminal(
            inspected.command(pty, inspected.id, "sh", "-c", "sleep 1234 & echo up; wait"), inspected.platform.env
        ) as session:
            session.wait_for("up")
            assert "sleep 1234" in inspected.processes()
            session.process.kill()
            session.process.wait()
            wait_until(lambda: "sleep 1234" not in inspected.processes(), "the command to be killed")


def test_signals_leave_the_terminal_as_it_was(inspected: Inspected) -> None:
    with inspected.terminal("sleep", "1000") as session:
        wait_until(session.is_raw, "the session to begin")
        session.process.send_signal(signal.SIGTERM)
        assert session.end(20) == 128 + signal.SIGTERM
    no_terminal = inspected.command("--no-pty", inspected.id, "sh", "-c", "echo up; sleep 1000")
    with terminal(no_terminal, inspected.platform.env) as session:
        session.wait_for("up")
        session.type("\x03")
        assert session.end(20) == 130
    wait_until(lambda: "sleep 1000" not in inspected.processes(), "the commands to be killed")


def test_a_flood_waits_for_a_slow_reader(inspected: Inspected) -> None:
    server = inspected.platform.server()
    assert server is not None
    before = server.memory_info().rss
    flood = subprocess.Popen(
        [str(part) for part in inspected.command(inspected.id, "cat", "/dev/zero")],
        env=inspected.platform.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert flood.stdout is not None
    try:
        assert len(flood.stdout.read(50_000_000)) == 50_000_000
        # Nobody reads now; other commands still run.
        assert inspected.exec("echo", "hello").stdout == b"hello\n"
        assert server.memory_info().rss - before < 30_000_000
    finally:
        flood.stdout.close()
        assert flood.wait(20) != 0  # its reader has gone


def test_the_end_of_the_container_ends_its_commands(inspected: Inspected) -> None:
    with inspected.terminal("sh", "-c", "echo up; sleep 1000") as session:
        session.wait_for("up")
        inspected.running.send(signal.SIGINT)
        assert session.end(20) == 137
        assert f"The container {inspected.id} ended while the command ran." in session.screen


def test_a_stopped_container_is_replaced_and_its_input_runs_again(inspected: Inspected) -> None:
    platform, logs = inspected.platform, Path(inspected.running.process.args[0]).name  # type: ignore[index]
    assert logs == "modal"
    with platform.background("modal", "container", "logs", inspected.id) as following:
        following.wait_for("working in")
        said = platform.modal("container", "stop", inspected.id).succeeded().out
        assert said == f"The container {inspected.id} is stopping.\n"
        followed = following.end(30).succeeded()
    assert followed.out == f"working in {inspected.id}\n"
    wait_until(
        lambda: [one["container_id"] for one in listed(platform)] not in ([], [inspected.id]), "another container"
    )
    assert inspected.id not in [one["container_id"] for one in listed(platform)]
    # What an ended container printed can still be read.
    assert platform.modal("container", "logs", inspected.id).succeeded().out == f"working in {inspected.id}\n"
    assert inspected.running.process.poll() is None
