"""Containers: the first call of a function that has none, beside bare runc; and what an idle one holds in memory.

The bare runc gets the specification that our own containers run with (same image, mounts, seccomp filter, limits), with
a user and a network namespace of its own, and `python3 -c pass` to run. Its root file system is mounted already; ours
is mounted, connected and logged on the way.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from calls import contender
from results import Row, interleave, ms, times
from server import Server, unshared

_ROUNDS = 15
_ENTRY = "modal/_container/entry.py"
_MIB = 1 << 20


def measure(server: Server) -> list[Row]:
    """The rows of a cold start and of an idle container."""
    # The first holds a container, whose specification and root file system the bare runc uses; the second starts them.
    with contender(server, "intermodal"), contender(server, "intermodal") as process:
        time.sleep(2.0)  # what the warm-up left behind settles; nothing can be waited for
        pids = _runners(server.pid)
        idle = max(unshared(pid) for pid in pids)  # the oldest, of the first contender, comes first
        with tempfile.TemporaryDirectory(prefix="intermodal-bench-runc-") as directory:
            run_bare = _bare_runc(pids[0], Path(directory))
            process.ask("cold", 2)
            median = interleave(_ROUNDS, {"ours": lambda: process.ask("cold", 1)[0], "bare": run_bare})
    ours, theirs = median["ours"], median["bare"]
    ratio = ours / theirs
    return [
        Row(
            "first call of a function with no container",
            ms(ours),
            f"`runc run` of `python3 -c pass`: {ms(theirs)}",
            times(ratio),
            times(3, "≤"),
            ratio <= 3,
        ),
        Row("idle container, unshared memory", f"{idle / _MIB:.1f} MiB", "", "", "≤ 15 MiB", idle <= 15 * _MIB),
    ]


def _runners(server_pid: int) -> list[int]:
    return [pid for pid in _descendants(server_pid) if _ENTRY in Path(f"/proc/{pid}/cmdline").read_text()]


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from _descendants(child)


def _bare_runc(pid: int, directory: Path) -> Callable[[], float]:
    """Return what runs one bare container of the same image as the container of process `pid`, and times it."""
    spec = json.loads(_bundle_of(pid).read_text())
    linux: dict[str, Any] = spec["linux"]
    spec["process"].update(args=["python3", "-c", "pass"], cwd="/")
    kinds = [one["type"] for one in linux["namespaces"]]
    linux["namespaces"] = [{"type": kind} for kind in kinds]
    linux["cgroupsPath"] = "/intermodal-bench"
    (directory / "config.json").write_text(json.dumps(spec))
    numbers = itertools.count()
    runc = shutil.which("runc") or "runc"

    def run() -> float:
        name = f"intermodal-bench-{next(numbers)}"
        command = [runc, "--root", str(directory / "state"), "run", "--bundle", str(directory), name]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return time.perf_counter() - started

    run()
    return run


def _bundle_of(pid: int) -> Path:
    """The specification that a container of ours was started with."""
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"INTERMODAL_CONTAINER_ID":
            found = list(Path("/run/intermodal").glob(f"*/c/{value.decode()}/bundle/config.json"))
            if found:
                return found[0]
    raise SystemExit("The container's specification was not found.")
