"""Becomes the program that serves a FUSE mount, with as little as it needs. Run as ``python -m``, with a plan as JSON.

The program gets the network of its container, so it reaches what that reaches; a mount namespace in which nothing of
other containers is left, and a few files of the system are replaced; a user that owns nothing; and a process namespace
of its own. All such programs have one user, and who has one's user may read its variables, its keys among them, if it
can name it. The mount is made by the setuid program ``fusermount``. It is seen outside, since the mount point is shared
with where the process came from.

The launcher stays, as root, beside the program: SIGTERM, or the end of who started it, ends the program and all that it
has started, and when the launcher has ended, so have they.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from intermodal.node.mount_table import mounts_below, proc_lines, unmount_below
from intermodal.runtimes.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    attach_mount,
    clone_mount,
    die_with_parent,
    enter_namespace,
    mount,
    unmount,
    unshare,
)

_SIGNALS = {signal.SIGTERM, signal.SIGCHLD}  #: what the launcher waits for


@dataclass(frozen=True)
class Plan:
    """Paths are absolute."""

    argv: list[str]
    point: str  #: where the program mounts; a shared mount point
    network: str  #: the namespace to enter
    hidden: list[str]  #: directories whose mounts are not for this process
    shown: dict[str, str]  #: files and directories it sees, by the path where it sees them
    user: int  #: and group


def command(plan: Plan) -> list[str]:
    """What to execute, as root."""
    return [sys.executable, "-I", "-m", "intermodal.node.fuse_launcher", json.dumps(asdict(plan))]


def launch(plan: Plan) -> None:
    """Never returns: exits as the program does. Raises OSError."""
    die_with_parent(signal.SIGTERM)
    _make_surroundings(plan)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    child = os.fork()
    if child:
        sys.exit(_wait(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _hide_processes()
    os.chdir("/")
    os.setgroups([])
    os.setresgid(plan.user, plan.user, plan.user)
    os.setresuid(plan.user, plan.user, plan.user)
    die_with_parent()
    os.execve(plan.argv[0], plan.argv, os.environ)


def _make_surroundings(plan: Plan) -> None:
    enter_namespace(plan.network, CLONE_NEWNET)
    unshare(CLONE_NEWNS | CLONE_NEWPID)  # the latter for children
    point = Path(plan.point)
    shared = clone_mount(point)
    # From here on nothing that is mounted or unmounted is seen outside, but what is mounted on this clone.
    mount("", Path("/"), "", MS_REC | MS_PRIVATE)
    for directory in plan.hidden:
        unmount_below(Path(directory))
    attach_mount(shared, point)
    os.close(shared)
    for path, source in plan.shown.items():
        mount(source, Path(path).resolve(), "", MS_BIND)


def _hide_processes() -> None:
    """Leave one ``/proc``, that of this process's namespace, of all that the machine may have."""
    lines = proc_lines(Path("/proc/self/mountinfo"))
    for point in mounts_below(Path("/"), [line for line in lines if " - proc " in line]):
        unmount(point)
    mount("proc", Path("/proc"), "proc", MS_NOSUID | MS_NODEV)


def _wait(child: int) -> int:
    """Wait for the first process of a namespace, with which all others of it end; return its exit code."""
    while True:
        if signal.sigwait(_SIGNALS) is signal.SIGTERM:
            os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    launch(Plan(**json.loads(sys.argv[1])))
