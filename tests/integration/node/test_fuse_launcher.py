"""What starts the process that serves a bucket, with programs that do what a hostile one would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from intermodal.node.fuse_launcher import Plan, command
from intermodal.node.mount_table import unmount_below
from intermodal.runtimes.syscalls import make_shared_point

PYTHON = "/usr/bin/python3"
USER = 165_536
#: Waits for the end of its input.
IDLE = "import sys; print('runs', flush=True); sys.stdin.read()"
#: Looks for the variables of all processes that it sees, and tries to reach one by its number.
CURIOUS = """
import ctypes, json, os, pathlib, sys
pid = int(sys.stdin.readline())
seen, variables = [], ""
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    seen.append(int(folder.name))
    try:
        variables += (folder / "environ").read_text()
    except OSError:
        pass
libc = ctypes.CDLL(None)
PTRACE_SEIZE = 0x4206
report = {
    "seen": seen,
    "variables": variables,
    "signals": libc.kill(pid, 0) == 0,
    "traces": libc.ptrace(PTRACE_SEIZE, pid, None, None) == 0,
    "me": os.getuid(),
}
print(json.dumps(report), flush=True)
"""
#: Has a child, and wants both to live on when it is told to end.
STUBBORN = """
import ctypes, os, signal, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: none
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    print("runs", flush=True)
time.sleep(600)
"""
#: Starts what its arguments say, and waits for it.
AGENT = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts a program as the process of a bucket: `launch(script, by, **variables)`; `by` starts the launcher."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = Path(tempfile.mkdtemp(prefix="intermodal-fuse-", dir="/run"))
    started: list[subprocess.Popen[str]] = []

    def start(script: str, by: Sequence[str] = (), **variables: str) -> subprocess.Popen[str]:
        point = folder / str(len(started))
        point.mkdir()
        make_shared_point(point)
        plan = Plan([PYTHON, "-c", script], str(point), "/proc/self/ns/net", [], {}, USER)
        pipe = subprocess.PIPE
        process = subprocess.Popen([*by, *command(plan)], env=variables, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            for one in [*family(process), process]:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    one.kill()
            process.communicate()
        unmount_below(folder)
        shutil.rmtree(folder)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What it has started."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_one_process_cannot_reach_another_or_read_its_variables(launch: Launch) -> None:
    victim = launch(IDLE, AWS_SECRET_ACCESS_KEY="the-key-of-another")
    assert line_of(victim) == "runs\n"
    number = (family(victim) or [psutil.Process(victim.pid)])[0].pid
    assert b"the-key-of-another" in Path(f"/proc/{number}/environ").read_bytes()  # root may
    curious = launch(CURIOUS, AWS_SECRET_ACCESS_KEY="my-own-key")
    report = json.loads(curious.communicate(f"{number}\n", timeout=30)[0])
    assert report["me"] == USER
    assert "my-own-key" in report["variables"]
    assert "the-key-of-another" not in report["variables"]
    assert len(report["seen"]) == 1
    assert not report["signals"]
    assert not report["traces"]


def test_a_program_that_does_not_want_to_end_is_ended_with_all_it_started(launch: Launch) -> None:
    stubborn = launch(STUBBORN)
    assert line_of(stubborn) == "runs\n"
    there = family(stubborn)
    stubborn.terminate()
    stubborn.wait(30)
    assert [one for one in there if one.is_running()] == []  # at once: what waits for it unmounts then
    assert len(there) == 2


def test_it_is_ended_when_who_started_it_is_killed(launch: Launch) -> None:
    agent = launch(STUBBORN, by=AGENT)
    assert line_of(agent) == "runs\n"
    there = family(agent)
    agent.kill()
    _, alive = psutil.wait_procs(there, 30)
    assert alive == []
    assert len(there) == 3


def test_it_ends_as_its_program_does(launch: Launch) -> None:
    idle = launch(IDLE)
    assert line_of(idle) == "runs\n"
    idle.communicate(timeout=30)
    assert idle.returncode == 0
    assert launch("import sys; sys.exit(3)").wait(30) == 3
