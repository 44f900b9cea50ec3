"""Becomes the program that serves a FUSE mount, with as little as it needs. Run as ``python -m``, with a plan as JSON.

The process gets the network of its container, so it reaches what that reaches; a mount namespace in which nothing of
other containers is left, and a few files of the system are replaced; and a user of its own. The mount is made by the
setuid program ``fusermount``. It is seen outside, since the mount point is shared with where the process came from.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from intermodal.node.mount_table import unmount_below
from intermodal.runtimes.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    attach_mount,
    clone_mount,
    die_with_parent,
    enter_namespace,
    mount,
    unshare,
)


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
    """Never returns. Raises OSError."""
    enter_namespace(plan.network, CLONE_NEWNET)
    unshare(CLONE_NEWNS)
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
    os.chdir("/")
    os.setgroups([])
    os.setresgid(plan.user, plan.user, plan.user)
    os.setresuid(plan.user, plan.user, plan.user)
    die_with_parent()
    os.execve(plan.argv[0], plan.argv, os.environ)


if __name__ == "__main__":
    launch(Plan(**json.loads(sys.argv[1])))
